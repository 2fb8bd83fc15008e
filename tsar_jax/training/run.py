"""A run's folder: config.json, metrics.jsonl, metrics.csv, checkpoints/, figures/."""

import contextlib
import dataclasses
import errno
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsar_jax.atomic import replacing
from tsar_jax.errors import UserError
from tsar_jax.provenance import provenance
from tsar_jax.training.config import config_from_json, config_to_json

if TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class Run:
    """Where a run lives, what is run there, and whether it continues.

    path: the folder; experiment: the script's name; preset: the preset's name;
    config: the dataclass of every setting; resume: continue what the folder holds.
    """

    path: Path
    config: Any
    experiment: str = ""
    preset: str = ""
    resume: bool = False

    @property
    def config_path(self) -> Path:
        return self.path / "config.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def description(self, steps: int) -> dict[str, Any]:
        """What config.json of a run of `steps` steps holds."""
        return {
            "experiment": self.experiment,
            "preset": self.preset,
            "steps": steps,
            "config": config_to_json(self.config),
        }

    def resume_command(self) -> str:
        """The command that continues the run."""
        script = f"tsar-jax run {self.experiment} " if self.experiment else ""
        return f"{script}--resume {self.path}"


def write_atomically(path: Path, text: str) -> None:
    """Replaces the file `path` with `text`; a reader or a crash sees the old file or the new."""
    with replacing(path) as file:
        file.write(text.encode())


def write_arrays_atomically(path: Path, arrays: "Mapping[str, np.ndarray]") -> None:
    """Replace the file `path` with a compressed npz of `arrays`, or leave the old one."""
    import numpy as np  # here, for the command line imports this module and must start quickly

    with replacing(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def check_new(path: Path) -> None:
    """Makes the folder `path` where needed and checks that a run can begin in it.

    Raises UserError if it cannot be written or holds a run already.
    """
    if (path / "config.json").exists():
        raise UserError(
            f"{path} already holds a run: continue it with --resume {path}, "
            "or name another folder with --run."
        )
    check_writable(path)


def check_writable(path: Path, option: str = "--run") -> None:
    """Makes the folder `path` where needed; raises UserError unless files can be made in it.

    option: of the command line, by which another folder can be named.
    """
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"The folder {path} has a name that is not UTF-8, which checkpoints cannot have: "
            f"name another with {option}."
        ) from None
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(
            f"The folder {path} cannot be written ({error.strerror or error}): "
            f"name another with {option}."
        ) from error


def start(run: Run, steps: int) -> None:
    """Makes the folders of a run of `steps` steps and writes its config.json.

    The config.json says as well by what, where and when the run was begun; nothing that reads it
    depends on that.

    Raises UserError as `check_new` does.
    """
    check_new(run.path)
    run.checkpoints.mkdir(exist_ok=True)
    run.figures.mkdir(exist_ok=True)
    stored = {**run.description(steps), "provenance": provenance()}
    write_atomically(run.config_path, json.dumps(stored, indent=2) + "\n")


def read_description(path: Path) -> dict[str, Any]:
    """What config.json of the run folder `path` holds: {"experiment", "preset", "steps", "config"}.

    Raises UserError if the folder or the file is missing, or the file is not such an object.
    """
    if not path.is_dir():
        raise UserError(f"There is no run folder {path}: check the path given to --resume.")
    config_path = path / "config.json"
    try:
        stored = json.loads(config_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is not a run folder, for it has no config.json: check the path."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{config_path} cannot be read ({error}): restore it, or start a new run."
        ) from error
    if not isinstance(stored, dict) or not isinstance(stored.get("config"), dict):
        raise UserError(f'{config_path} has no object "config": restore it, or start a new run.')
    return stored


def load_config(path: str | os.PathLike[str], config_class: type[Any] | None = None) -> Any:
    """The config of the run in the folder `path`.

    A `config_class`, or without one a nested dictionary. Raises UserError if the folder holds
    no run, or its config does not fit the class.
    """
    stored = read_description(Path(path))["config"]
    if config_class is None:
        return stored
    return config_from_json(config_class, stored, str(Path(path) / "config.json"))


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps of the finished saves in a checkpoints folder, oldest first, damaged or not."""
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal())


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the run folder for this process; UserError if another trains in it.

    The lock is the kernel's, so a killed process leaves none behind; where the system or its
    file system has no such locks, the folder is not guarded.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise UserError(
                    f"Another process is training in {path}: wait for it, or stop it first."
                ) from None
        yield
