"""Command line: `tsar-jax prepare --help`, or `python -m data_prep` in the repository."""

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from tsar_jax.cli.exits import exit_code
from tsar_jax.cli.flags import check_flags
from tsar_jax.data.prepared import default_folder, named_folder
from tsar_jax.errors import UserError, check_known
from tsar_jax.output import check_printed

if TYPE_CHECKING:
    from .building import Prepared

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
    from .omniglot import prepare_omniglot

    return _report("Omniglot", prepare_omniglot(archives, _target(out), overwrite))


def cifar10(archives: Path | None = None, out: Path | None = None, overwrite: bool = False) -> str:
    """CIFAR-10 at 32x32: 50,000 training and 10,000 test images of 10 classes, in colour.

    Safe to interrupt and to repeat: nothing half-written is ever taken for whole.

    Args:
        archives: Folder with cifar-10-python.tar.gz, whole or with fewer images. By default it is
            downloaded from www.cs.toronto.edu/~kriz (170 MB).
        out: Folder of prepared data sets. By default $TFDS_DATA_DIR, else ~/tensorflow_datasets,
            where tsar_jax.data.load_labelled looks too.
        overwrite: Prepare anew even what is there already.
    """
    from .cifar10 import prepare_cifar10

    return _report("CIFAR-10", prepare_cifar10(archives, _target(out), overwrite))


def cifar100(archives: Path | None = None, out: Path | None = None, overwrite: bool = False) -> str:
    """CIFAR-100 at 28x28 and 32x32: 100 classes of 500 training and 100 test images, in colour.

    Safe to interrupt and to repeat: nothing half-written is ever taken for whole.

    Args:
        archives: Folder with cifar-100-python.tar.gz. By default it is downloaded from
            www.cs.toronto.edu/~kriz (169 MB).
        out: Folder of prepared data sets. By default $TFDS_DATA_DIR, else ~/tensorflow_datasets,
            where tsar_jax.data.load looks too.
        overwrite: Prepare anew even what is there already.
    """
    from .cifar100 import prepare_cifar100

    return _report("CIFAR-100", *prepare_cifar100(archives, _target(out), overwrite))


def emnist(
    archives: Path | None = None,
    tfds: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> str:
    """EMNIST Balanced at 28x28: 47 classes of 2400 training and 400 test images, grey.

    Safe to interrupt and to repeat: nothing half-written is ever taken for whole.

    Args:
        archives: Folder with gzip.zip, or with the emnist-balanced files of it, .gz or unpacked. By
            default gzip.zip is downloaded from biometrics.nist.gov (562 MB).
        tfds: Instead of archives, a folder where tensorflow-datasets prepared emnist/balanced, in
            array_record format.
        out: Folder of prepared data sets. By default $TFDS_DATA_DIR, else ~/tensorflow_datasets,
            where tsar_jax.data.load looks too.
        overwrite: Prepare anew even what is there already.
    """
    from .emnist import prepare_emnist

    _check_sources(archives, tfds)
    return _report("EMNIST Balanced", prepare_emnist(archives, tfds, _target(out), overwrite))


def mini_imagenet(
    archives: Path | None = None, out: Path | None = None, overwrite: bool = False
) -> str:
    """mini-ImageNet at 28x28 and 32x32: 64 training, 16 validation and 20 test classes, in colour.

    Safe to interrupt and to repeat: nothing half-written is ever taken for whole.

    Args:
        archives: Folder with mini-imagenet.zip, or with the folder images and the files train.csv,
            val.csv and test.csv. There is no official download.
        out: Folder of prepared data sets. By default $TFDS_DATA_DIR, else ~/tensorflow_datasets,
            where tsar_jax.data.load looks too.
        overwrite: Prepare anew even what is there already.
    """
    from .mini_imagenet import prepare_mini_imagenet

    return _report("mini-ImageNet", *prepare_mini_imagenet(archives, _target(out), overwrite))


def mnist(
    archives: Path | None = None,
    tfds: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> str:
    """MNIST at 28x28: 60,000 training and 10,000 test images of 10 classes, grey.

    Safe to interrupt and to repeat: nothing half-written is ever taken for whole.

    Args:
        archives: Folder with train-images-idx3-ubyte.gz and the three other official files, .gz or
            unpacked. By default they are downloaded from storage.googleapis.com/cvdf-datasets
            (12 MB).
        tfds: Instead of archives, a folder where tensorflow-datasets prepared mnist, in
            array_record format.
        out: Folder of prepared data sets. By default $TFDS_DATA_DIR, else ~/tensorflow_datasets,
            where tsar_jax.data.load looks too.
        overwrite: Prepare anew even what is there already.
    """
    from .mnist import prepare_mnist

    _check_sources(archives, tfds)
    return _report("MNIST", prepare_mnist(archives, tfds, _target(out), overwrite))


def tiny_imagenet(
    archives: Path | None = None, out: Path | None = None, overwrite: bool = False
) -> str:
    """Tiny ImageNet at 64x64: 100,000 training and 10,000 test images of 200 classes, in colour.

    Safe to interrupt and to repeat: nothing half-written is ever taken for whole.

    Args:
        archives: Folder with tiny-imagenet-200.zip, whole or with fewer images. By default it is
            downloaded from cs231n.stanford.edu (248 MB).
        out: Folder of prepared data sets. By default $TFDS_DATA_DIR, else ~/tensorflow_datasets,
            where tsar_jax.data.load_labelled looks too.
        overwrite: Prepare anew even what is there already.
    """
    from .tiny_imagenet import prepare_tiny_imagenet

    return _report("Tiny ImageNet", prepare_tiny_imagenet(archives, _target(out), overwrite))


def images(
    archives: Path,
    name: str,
    size: Literal[28, 32, 64] = 28,
    out: Path | None = None,
    overwrite: bool = False,
) -> str:
    """Images of your own, a folder of them for every class, usable wherever a data set is named.

    Any number of JPEG, PNG, BMP, GIF, TIFF, WEBP or PPM images of any size, squeezed into squares;
    without folders train/ and test/, every fifth of a class, at least one, is for testing. They are
    grey if all of them are. Safe to interrupt and to repeat.

    Args:
        archives: Folder that holds a folder (or a zip) of images for every class, or train/ and
            test/ (or train.zip and test.zip) that do; or a zip or tar of such folders.
        name: The name to know them by, small letters, digits and underscores.
        size: Height and width of the prepared images; networks for Omniglot and a transfer want 28.
        out: Folder of prepared data sets. By default $TFDS_DATA_DIR, else ~/tensorflow_datasets,
            where tsar_jax.data.load and load_labelled look too.
        overwrite: Prepare anew even what is there already.
    """
    from .own_images import prepare_images

    prepared, sentences = prepare_images(archives, name, size, _target(out), overwrite)
    return f"{_report(name, prepared)}\n{sentences}"


def _check_sources(archives: Path | None, tfds: Path | None) -> None:
    if archives is not None and tfds is not None:
        raise UserError(
            f"both --archives {archives} and --tfds {tfds} name a source: leave out one of them"
        )


def _target(out: Path | None) -> Path:
    if out is not None:
        return named_folder(out)
    folder = default_folder()
    if folder.parts[:1] and folder.parts[0].startswith("~"):
        raise UserError(f"{folder} names a home folder that is unknown: name a folder with --out.")
    return folder


def _report(title: str, *results: "Prepared") -> str:
    return "\n".join(
        f"{title} is prepared in {folder}"
        if written
        else f"{title} is already prepared in {folder}; --overwrite prepares it anew"
        for folder, written in results
    )


def package_omniglot(archives: Path) -> str:
    """Rebuild the copy of Omniglot that comes with tsar_jax.

    Args:
        archives: Folder with images_background.zip and images_evaluation.zip.
    """
    from .omniglot import package_omniglot

    return f"Omniglot is packaged in {package_omniglot(archives)}"


def package_emnist(archives: Path) -> str:
    """Rebuild the images of EMNIST ByMerge that come with tsar_jax.

    Args:
        archives: Folder with emnist-bymerge-test400-images-idx3-ubyte.gz, the labels that belong to
            it and emnist-bymerge-mapping.txt.
    """
    from .emnist import package_emnist

    return f"EMNIST is packaged in {package_emnist(archives)}"


COMMANDS: dict[str, Callable[..., str]] = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "emnist": emnist,
    "images": images,
    "mini-imagenet": mini_imagenet,
    "mnist": mnist,
    "omniglot": omniglot,
    "package-emnist": package_emnist,
    "package-omniglot": package_omniglot,
    "tiny-imagenet": tiny_imagenet,
}


def _check_names(argv: Sequence[str]) -> None:
    """Raise UserError for a command or one of its flags that does not exist."""
    if not argv or argv[0].startswith("-"):
        return
    name = argv[0].replace("_", "-")
    check_known("command", name, COMMANDS)
    flags = list(inspect.signature(COMMANDS[name]).parameters)
    check_flags(flags, argv[1:], f"tsar-jax prepare {name}")


INTERRUPTED = "interrupted: nothing half-written was kept; the same command begins anew"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 2 after bad input, 130 when interrupted."""

    def run() -> None:
        argv = sys.argv[1:] if arguments is None else list(arguments)
        _check_names(argv)
        print(
            tyro.extras.subcommand_cli_from_dict(
                COMMANDS, prog="tsar-jax prepare", description=DESCRIPTION, args=argv
            )
        )
        check_printed()

    return exit_code(run, INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
