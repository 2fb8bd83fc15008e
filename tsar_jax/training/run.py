"""A run's folder: config.json, metrics.jsonl, metrics.csv, checkpoints/, figures/."""

import contextlib
import dataclasses
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tsar_jax.atomic import make_missing, open_lock, remove_empty, replacing
from tsar_jax.errors import UserError, quoted, shown
from tsar_jax.modules import allowing
from tsar_jax.provenance import provenance
from tsar_jax.training.config import config_from_json, config_to_json
from tsar_jax.untrusted.files import read_json

if TYPE_CHECKING:
    import numpy as np

Config = TypeVar("Config")

IMPORTED = "imported"
"""The preset of a run that was made of a release's weights."""
PRETRAINED = "pretrained.json"
"""File of a run that came with the package, which says where it is from."""


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

    @property
    def begun_elsewhere(self) -> bool:
        """Whether its first steps left no metrics: it is of a release, or came with the package."""
        return self.preset == IMPORTED or (self.path / PRETRAINED).exists()

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
        script = f"tsar-jax run {quoted(self.experiment)} " if self.experiment else ""
        return f"{script}--resume {quoted(self.path)}{allowing(self.config)}"


MAX_CONFIG = 1 << 20
"""Bytes of a config.json that is read."""
WRITTEN_FOLDERS = ("checkpoints", "damaged_checkpoints", "figures", "arrays", "tensorboard")
"""In a run's folder, or one that a script writes to."""
WRITTEN_FILES = (".json", ".jsonl", ".csv", ".md", ".npz")


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
    """Check that a run can begin in the folder `path`, which need not exist.

    Raises:
        UserError: it cannot be written or holds a run already.
    """
    if os.path.lexists(path / "config.json"):
        raise UserError(
            f"{path} already holds a run: continue it with --resume {quoted(path)}, "
            "or name another folder with --out."
        )
    check_writable(path)


def check_writable(path: Path, option: str = "--out") -> None:
    """Check that files can be made in the folder `path`, and that they stay in there.

    What it takes to find out is removed again, so that a command that fails later leaves nothing.

    Args:
        path: the folder, which need not exist.
        option: of the command line, by which another can be named.

    Raises:
        UserError: it cannot be written, or has a link or a folder where something is written.
    """
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"The folder {path} has a name that is not UTF-8, which checkpoints cannot have: "
            f"name another with {option}."
        ) from None
    made: list[Path] = []
    try:
        made += make_missing(path)
        with tempfile.TemporaryFile(dir=path):
            pass
        check_inside(path)
    except OSError as error:
        raise _unwritable(path, option, error) from error
    finally:
        remove_empty(made)


def check_inside(path: Path) -> None:
    """Check that what is written to a folder is written into it and nowhere else.

    Raises:
        UserError: a folder in it that we write to is, or contains, a link; or a file's place is
            taken by a folder.
        OSError: it cannot be read.
    """
    for name in WRITTEN_FOLDERS:
        folder = path / name
        if os.path.lexists(folder) and not folder.is_symlink() and not folder.is_dir():
            raise UserError(f"{folder} is no folder, but is written to as one: move it away.")
        inside = (Path(top) / n for top, a, b in os.walk(folder) for n in (*a, *b))
        for found in (folder, *inside):
            if found.is_symlink():
                raise UserError(
                    f"{found} is a link, and what is written there would leave {path}: replace it "
                    "by what it points to, or move the whole folder and link that."
                )
    for found in path.iterdir():
        if found.suffix in WRITTEN_FILES and found.is_dir() and not found.is_symlink():
            raise UserError(f"{found} is a folder where a file is to be written: move it away.")


def make_folder(path: Path, option: str = "--out") -> None:
    """Make a folder that `check_writable` found fit, before the first file is written.

    Raises:
        UserError: it cannot be made. option: by which another can be named.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, option, error) from error


def _unwritable(path: Path, option: str, error: OSError) -> UserError:
    return UserError(
        f"The folder {path} cannot be written ({error.strerror or error}): "
        f"name another with {option}."
    )


_claimed: list[Path] = []


def claim_folder(parent: Path, name: str) -> Path:
    """Make a folder of its own for a run, and return it: `name`, or that and a number.

    `release_folders` removes it if nothing is ever written to it.
    """
    path = parent / name
    for count in range(2, 100):
        with contextlib.suppress(OSError):
            made = make_missing(parent)
            path.mkdir()
            _claimed.extend([*made, path])
            break
        path = parent / f"{name}-{count}"
    return path  # check_new says what is wrong with one that could not be made


def release_folders() -> None:
    """Remove the folders that were claimed and are empty, at the end of a command."""
    remove_empty(_claimed)
    _claimed.clear()


def start(run: Run, steps: int) -> None:
    """Makes the folders of a run of `steps` steps and writes its config.json.

    The config.json says as well by what, where and when the run was begun; nothing that reads it
    depends on that.

    Raises UserError as `check_new` does.
    """
    check_new(run.path)
    make_folder(run.path)
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
        stored = read_json(config_path, MAX_CONFIG)
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


def read_run(path: Path, experiment: str, config_class: type[Config]) -> Config:
    """Return the config of a run of an experiment.

    Args:
        path: the run's folder.
        experiment: name of the script whose run it must be.
        config_class: class of that script's config.

    Raises:
        UserError: the folder holds no such run.
    """
    if not path.is_dir():
        raise UserError(f"There is no run folder {path}: check the path.")
    found = read_description(path).get("experiment")
    if found != experiment:
        raise UserError(f"{path} is a run of {shown(found)}, not of {experiment!r}.")
    return load_config(path, config_class)


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps of the finished saves in a checkpoints folder, oldest first, damaged or not."""
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if _is_step(entry.name))


def odd_steps(folder: Path) -> list[Path]:
    """Return what in a checkpoints folder has a number for a name that no save ever gets.

    Orbax takes such names for steps: digits of other scripts, leading zeros, too large a number.
    """
    if not folder.is_dir():
        return []
    entries = sorted(folder.iterdir())
    return [e for e in entries if e.name.isnumeric() and not _is_step(e.name)]


def _is_step(name: str) -> bool:
    return bool(re.fullmatch(r"0|[1-9][0-9]{0,9}", name)) and int(name) < 2**31


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
    with open_lock(path / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise UserError(
                    f"Another process is training in {path}: wait for it, or stop it first."
                ) from None
        yield
