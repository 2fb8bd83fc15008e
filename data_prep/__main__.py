"""Command line: `python -m data_prep --help`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from tsar_jax.data.prepared import default_folder
from tsar_jax.errors import UserError

DESCRIPTION = "Prepares data sets for tsar_jax.data.load, from their official archives."


def omniglot(archives: Path | None = None, out: Path | None = None, overwrite: bool = False) -> str:
    """Omniglot at 28x28: 964 background and 659 evaluation classes of 20 drawings.

    Safe to interrupt and to repeat: nothing half-written is ever taken for whole.

    Args:
        archives: Folder with images_background.zip and images_evaluation.zip. By default they
            are downloaded from github.com/brendenlake/omniglot (16 MB).
        out: Folder of prepared data sets. By default $TFDS_DATA_DIR, else ~/tensorflow_datasets,
            where tsar_jax.data.load looks too.
        overwrite: Prepare anew even what is there already.
    """
    # Imported here, like its like: --help should not wait for tensorflow-datasets.
    from data_prep.omniglot import prepare_omniglot

    target = default_folder() if out is None else out.expanduser()
    folder, written = prepare_omniglot(archives, target, overwrite)
    if written:
        return f"Omniglot is prepared in {folder}"
    return f"Omniglot is already prepared in {folder}; --overwrite prepares it anew"


def package_omniglot(archives: Path) -> str:
    """Rebuild the copy of Omniglot that comes with tsar_jax.

    Args:
        archives: Folder with images_background.zip and images_evaluation.zip.
    """
    from data_prep.omniglot import package_omniglot

    return f"Omniglot is packaged in {package_omniglot(archives)}"


COMMANDS = {"omniglot": omniglot, "package-omniglot": package_omniglot}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit code: 0, 2 after bad input, 130 when interrupted."""
    try:
        print(
            tyro.extras.subcommand_cli_from_dict(
                COMMANDS, prog="data_prep", description=DESCRIPTION, args=arguments
            )
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was prepared; the same command begins anew", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
