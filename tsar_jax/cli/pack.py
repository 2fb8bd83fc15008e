"""Put a trained run among those that come with the package (for maintainers).

    python -m tsar_jax.cli.pack runs/NAME cart-pole --keep genome --half \\
        --about "..." --result "..." --use "tsar-jax run ..." --command "..." --commit HASH \\
        --machine "..." --date 2026-11-27 --hours 1.2

The result is to be measured with the packed arrays: pack first, measure `pretrained:NAME`, then
pack again with what was found.
"""

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from tsar_jax.atomic import replacing
from tsar_jax.cli.exits import run_main
from tsar_jax.data.packaged_file import write_npz
from tsar_jax.errors import UserError
from tsar_jax.pretrained.store import HERE, Pretrained
from tsar_jax.training.checkpoints import Arrays, read_newest
from tsar_jax.training.run import read_description, write_atomically


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The run to pack, and its description."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    name: tyro.conf.Positional[str]
    """Name of the packaged run."""
    about: str
    """Description of the run, in a sentence."""
    result: str
    """Result that it reaches, in a sentence."""
    use: str
    """Command that shows it."""
    command: str
    """Command that trained it."""
    commit: str
    """Commit at which it was trained."""
    machine: str
    """Machine on which it was trained."""
    date: str
    """Day of the training."""
    hours: float
    """Hours of the training."""
    keep: tuple[str, ...] = ()
    """Branches of the state to keep; the others become zero (default: all)."""
    half: bool = False
    """Whether float32 arrays are stored as float16."""
    files: tuple[str, ...] = ()
    """Text files of the run to keep."""
    out: Path = HERE
    """Folder of the packaged files."""


def pack(arguments: Arguments) -> tuple[Path, Path]:
    """Write NAME.npz and NAME.json and return their paths.

    Raises:
        UserError: the run has no checkpoint, or none of its arrays is in a branch to keep.
    """
    stored = read_description(arguments.run)
    newest = read_newest(arguments.run / "checkpoints")
    if newest is None:
        raise UserError(f"{arguments.run} has no checkpoint: name a trained run.")
    arrays, record = newest
    packed = {
        name: array.astype(np.float16) if arguments.half and array.dtype == np.float32 else array
        for name, array in arrays.items()
        if not arguments.keep or name.split("/")[0] in arguments.keep
    }
    if not packed:
        raise UserError(f"{arguments.run} has no array in {arguments.keep}: fix --keep.")
    buffer = io.BytesIO()
    write_npz(buffer, packed)
    content = buffer.getvalue()
    description = describe(arguments, stored, arrays, record["step"], content)
    data, text = (arguments.out / f"{arguments.name}.{suffix}" for suffix in ("npz", "json"))
    with replacing(data) as file:
        file.write(content)
    write_atomically(text, json.dumps(dataclasses.asdict(description), indent=1) + "\n")
    return data, text


def describe(
    arguments: Arguments, stored: dict[str, Any], arrays: Arrays, step: int, content: bytes
) -> Pretrained:
    """Return the description of a packed run.

    Args:
        arguments: what the command line says of the run.
        stored: the run's config.json.
        arrays: all arrays of the state, by name.
        step: step of the checkpoint.
        content: the packed file of arrays.
    """
    return Pretrained(
        about=arguments.about,
        use=arguments.use,
        result=arguments.result,
        experiment=stored["experiment"],
        preset=stored["preset"],
        steps=stored["steps"],
        step=step,
        config=stored["config"],
        arrays={name: (str(array.dtype), list(array.shape)) for name, array in arrays.items()},
        provenance={
            "command": arguments.command,
            "commit": arguments.commit,
            "machine": arguments.machine,
            "date": arguments.date,
            "hours": f"{arguments.hours:g}",
        },
        sha256=hashlib.sha256(content).hexdigest(),
        files={
            name: (arguments.run / name).read_text(encoding="utf-8") for name in arguments.files
        },
    )


def main() -> None:
    """Pack the run that the command line names, and print what was written."""
    arguments = tyro.cli(Arguments, description=__doc__, prog="python -m tsar_jax.cli.pack")
    for path in pack(arguments):
        print(f"{path}  {path.stat().st_size / 1e6:.3g} MB")


if __name__ == "__main__":
    run_main(main)
