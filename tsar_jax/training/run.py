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
"""Preset of a run that was made from a release's weights."""
PRETRAINED = "pretrained.json"
"""Name of the file that says where a run that came with the package is from."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run: its folder, its settings, and whether it continues.

    path: the folder. config: the dataclass of every setting. experiment: the script's name.
    preset: the preset's name. resume: whether the run continues what the folder holds.
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
        """Return whether the run began as a release or came with the package, without metrics."""
        return self.preset == IMPORTED or (self.path / PRETRAINED).exists()

    def description(self, steps: int) -> dict[str, Any]:
        """Return the content of the config.json of a run of `steps` steps, but its provenance."""
        return {
            "experiment": self.experiment,
            "preset": self.preset,
            "steps": steps,
            "config": config_to_json(self.config),
        }

    def resume_command(self) -> str:
        """Return the command that continues the run."""
        script = f"tsar-jax run {quoted(self.experiment)} " if self.experiment else ""
        return f"{script}--resume {quoted(self.path)}{allowing(self.config)}"


MAX_CONFIG = 1 << 20
"""Size of the largest config.json that is read, in bytes."""
WRITTEN_FOLDERS = ("checkpoints", "damaged_checkpoints", "figures", "arrays", "tensorboard")
"""Folders that are written in a run's folder, or in one that a script writes to."""
WRITTEN_FILES = (".json", ".jsonl", ".csv", ".md", ".npz")


def write_atomically(path: Path, text: str) -> None:
    """Replace the file `path` with `text`; a reader or a crash sees the old file or the new."""
    with replacing(path) as file:
        file.write(text.encode())


def write_arrays_atomically(path: Path, arrays: "Mapping[str, np.ndarray]") -> None:
    """Replace the file `path` with a compressed npz of `arrays`, or leave the old one."""
    import numpy as np  # here, for the command line imports this module and must start quickly

    with replacing(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def check_new(path: Path, option: str | None = None) -> None:
    """Check that a run can begin in the folder `path`, which need not exist.

    option: the command line's flag for another folder, for error messages.

    Raises:
        UserError: it cannot be written or holds a run already.
    """
    if os.path.lexists(path / "config.json"):
        resume = "resume it" if option is None else f"continue it with --resume {quoted(path)}"
        raise UserError(
            f"{path} already holds a run: {resume}, or choose another folder{_with(option)}."
        )
    check_writable(path, option)


def check_writable(path: Path, option: str | None = None) -> None:
    """Check that files can be made in the folder `path`, and that they stay in there.

    The check leaves nothing behind, so that a command that fails later does not either.

    Args:
        path: the folder, which need not exist.
        option: as in `check_new`.

    Raises:
        UserError: it cannot be written, or has a link or a folder where something is written.
    """
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"The folder {path} has a name that is not UTF-8, which checkpoints cannot have: "
            f"choose another{_with(option)}."
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
    """Check that nothing written to a folder would land outside it.

    Raises:
        UserError: one of `WRITTEN_FOLDERS` in it is, or contains, a link; or a folder has the name
            of a file that is written.
        OSError: the folder cannot be read.
    """
    for name in WRITTEN_FOLDERS:
        folder = path / name
        if os.path.lexists(folder) and not folder.is_symlink() and not folder.is_dir():
            raise UserError(f"{folder} is no folder, but is written to as one: move it away.")
        inside = (
            Path(parent) / name
            for parent, folders, files in os.walk(folder)
            for name in (*folders, *files)
        )
        for entry in (folder, *inside):
            if entry.is_symlink():
                raise UserError(
                    f"{entry} is a link, and what is written there would leave {path}: replace it "
                    "by what it points to, or move the whole folder and link that."
                )
    for entry in path.iterdir():
        if entry.suffix in WRITTEN_FILES and entry.is_dir() and not entry.is_symlink():
            raise UserError(f"{entry} is a folder where a file is to be written: move it away.")


def make_folder(path: Path, option: str | None = None) -> None:
    """Make a folder that `check_writable` has passed, before the first file is written.

    option: the command line's flag for another folder, for error messages.

    Raises:
        UserError: the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, option, error) from error


def _unwritable(path: Path, option: str | None, error: OSError) -> UserError:
    return UserError(
        f"The folder {path} cannot be written ({error.strerror or error}): "
        f"make it writable, or choose another{_with(option)}."
    )


def _with(option: str | None) -> str:
    """Return the end of a remedy that an option of the command line gives, if any does."""
    return "" if option is None else f" with {option}"


MAX_NUMBER = 99
"""Largest number that a claimed folder's name ends in; a folder that cannot be made at all would
otherwise be tried for ever.
"""

_claimed: list[Path] = []


def claim_folder(parent: Path, name: str) -> Path:
    """Make a new folder for a run and return it: `name`, or that and a number if it exists.

    `release_folders` removes it if nothing is ever written to it.
    """
    path = parent / name
    for count in range(2, MAX_NUMBER + 1):
        with contextlib.suppress(OSError):
            made = make_missing(parent)
            path.mkdir()
            _claimed.extend([*made, path])
            break
        path = parent / f"{name}-{count}"
    return path  # check_new reports why it could not be made, where it was not


def release_folders() -> None:
    """Remove the folders that were claimed and are empty, at the end of a command."""
    remove_empty(_claimed)
    _claimed.clear()


def create_run(run: Run, steps: int) -> None:
    """Make the folders of a run of `steps` steps and write its config.json.

    The config.json also records versions, device, command and date, for people to read.

    Raises:
        UserError: as `check_new` does.
    """
    check_new(run.path)
    make_folder(run.path)
    run.checkpoints.mkdir(exist_ok=True)
    run.figures.mkdir(exist_ok=True)
    stored = {**run.description(steps), "provenance": provenance()}
    write_atomically(run.config_path, json.dumps(stored, indent=2) + "\n")


def read_description(path: Path) -> dict[str, Any]:
    """Return the config.json of the run folder `path`.

    Returns:
        An object with "config" and, unless the file was edited, "experiment", "preset" and "steps".

    Raises:
        UserError: the folder or the file is missing, or the file is not such an object.
    """
    if not path.is_dir():
        raise UserError(f"There is no run folder {path}: check the path.")
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
    """Return the config of the run in the folder `path`.

    Args:
        path: the run's folder.
        config_class: class of the config; None: it is returned as a nested dictionary.

    Raises:
        UserError: the folder holds no run, or its config does not fit the class.
    """
    stored = read_description(Path(path))["config"]
    if config_class is None:
        return stored
    return config_from_json(config_class, stored, str(Path(path) / "config.json"))


def read_run(path: Path, experiment: str, config_class: type[Config]) -> Config:
    """Return the config of a run of an experiment.

    Args:
        path: the run's folder.
        experiment: name of the experiment.
        config_class: class of the experiment's config.

    Raises:
        UserError: the folder holds no such run.
    """
    if not path.is_dir():
        raise UserError(f"There is no run folder {path}: check the path.")
    stored = read_description(path).get("experiment")
    if stored != experiment:
        raise UserError(f"{path} is a run of {shown(stored)}, not of {experiment!r}.")
    return load_config(path, config_class)


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of the finished saves in a folder, oldest first, damaged ones included."""
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if _is_step(entry.name))


def odd_steps(folder: Path) -> list[Path]:
    """Return entries of a checkpoints folder that Orbax takes for steps but no save has made.

    Their names have digits of other scripts or leading zeros, or are too large a number.
    """
    if not folder.is_dir():
        return []
    return [
        entry
        for entry in sorted(folder.iterdir())
        if entry.name.isnumeric() and not _is_step(entry.name)
    ]


def _is_step(name: str) -> bool:
    return bool(re.fullmatch(r"0|[1-9][0-9]{0,9}", name)) and int(name) < 2**31


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the run folder for this process. Raises UserError if another process trains in it.

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
