"""Reading of the packaged runs, and writing them as run folders."""

import dataclasses
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsar_jax.errors import UserError, check_known
from tsar_jax.training.run import PRETRAINED

if TYPE_CHECKING:
    import numpy as np

HERE = Path(__file__).parent
PREFIX = "pretrained:"
UNPACKED = Path("runs", "pretrained")
"""Folder in which runs are unpacked, relative to the working folder."""

REINSTALL = "install the package again"
NAME = re.compile(rf"(?P<before>(?:^|.*=)){PREFIX}(?P<name>[^/]*)(?P<rest>/.*)?", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Description of a packaged run.

    Attributes:
        about: description, in a line.
        use: command that shows what it does.
        result: result that it reaches, measured with these very arrays.
        experiment, preset, steps, config: as in the run's config.json.
        step: step of the checkpoint.
        arrays: dtype and shape of each of the state's arrays, by name; those that the file lacks
            are zero, as an optimiser's moments are in the beginning.
        provenance: command, commit, machine, date and hours of the training.
        sha256: SHA-256 of the file of arrays, which need not come with the package.
        files: texts of the run's other files, by name.
    """

    about: str
    use: str
    result: str
    experiment: str
    preset: str
    steps: int
    step: int
    config: dict[str, Any]
    arrays: dict[str, tuple[str, list[int]]]
    provenance: dict[str, str]
    sha256: str
    files: dict[str, str] = dataclasses.field(default_factory=dict)


def known(folder: Path = HERE) -> dict[str, Pretrained]:
    """Return the descriptions of the packaged runs, by name.

    Raises:
        UserError: a description is damaged.
    """
    return {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}


def _read(path: Path) -> Pretrained:
    try:
        return Pretrained(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): {REINSTALL}.") from error


def resolve(argument: str) -> str:
    """Return a command's argument with `pretrained:NAME` replaced by the run's folder.

    Args:
        argument: "pretrained:NAME", "--run=pretrained:NAME" or "pretrained:NAME/rule.json";
            anything else is returned as it is.

    Raises:
        UserError: see `unpack`.
    """
    match = NAME.fullmatch(argument)
    if match is None:
        return argument
    return f"{match['before']}{unpack(match['name'])}{match['rest'] or ''}"


def unpack(name: str, parent: Path = UNPACKED, folder: Path = HERE) -> Path:
    """Write the folder of a packaged run, unless it is there already.

    Args:
        name: one of `known`.
        parent: folder to write it in.
        folder: folder of the packaged files.

    Returns:
        The run's folder, `parent`/`name`.

    Raises:
        UserError: there is no such name, its file of arrays is missing or damaged, or the folder
            holds something else or cannot be written.
    """
    runs = known(folder)
    check_known("pretrained thing", name, runs)
    pretrained, path = runs[name], parent / name
    if path.exists():
        _check_same(path, pretrained)
        return path
    arrays = read_arrays(find_arrays(name, pretrained, parent, folder), pretrained)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=parent) as temporary:
            whole = Path(temporary, name)
            _write(whole, pretrained, arrays)
            # Another process may have been quicker; its folder is as good.
            if not path.exists():
                shutil.move(whole, path)
    except OSError as error:
        raise UserError(
            f"{name} cannot be unpacked to {path} ({error.strerror or error}): "
            "go to a folder that can be written."
        ) from error
    return path


def find_arrays(
    name: str, pretrained: Pretrained, parent: Path = UNPACKED, folder: Path = HERE
) -> Path:
    """Return the path of a run's file of arrays.

    One that is too large for the package is a file of its own, which is put into `parent`.

    Args:
        name, parent, folder: see `unpack`.
        pretrained: description of the run.

    Raises:
        UserError: there is none in either folder.
    """
    packaged, own = folder / f"{name}.npz", parent / f"{name}.npz"
    found = next((path for path in (packaged, own) if path.exists()), None)
    if found is None:
        raise UserError(
            f"The weights of {name} are too large to come with the package: put {own.name}, with "
            f"the SHA-256 {pretrained.sha256}, into {parent}."
        )
    return found


def _check_same(path: Path, pretrained: Pretrained) -> None:
    try:
        sha256 = json.loads((path / PRETRAINED).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        sha256 = None
    if sha256 != pretrained.sha256:
        raise UserError(
            f"{path} is not what comes with this version of the package: move it out of the way."
        )


def read_arrays(path: Path, pretrained: Pretrained) -> "dict[str, np.ndarray]":
    """Return the state's arrays by name, in the dtypes of the training.

    Raises:
        UserError: the file is missing or not the one that the description names.
    """
    import numpy as np  # here, for commands that name no packaged run must start quickly

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {REINSTALL}.") from error
    if hashlib.sha256(content).hexdigest() != pretrained.sha256:
        remedy = REINSTALL if path.parent == HERE else "take another copy of the file"
        raise UserError(f"{path} is damaged: {remedy}.")
    with np.load(path, allow_pickle=False) as file:
        packed = {name: file[name] for name in file.files}
    return {
        name: packed[name].astype(dtype) if name in packed else np.zeros(shape, dtype)
        for name, (dtype, shape) in pretrained.arrays.items()
    }


def _write(path: Path, pretrained: Pretrained, arrays: "Mapping[str, np.ndarray]") -> None:
    # Imported here, for that takes seconds.
    from tsar_jax.training.checkpoints import SaveFailed, save_once
    from tsar_jax.training.rescue import reason

    path.mkdir()
    (path / "figures").mkdir()
    try:
        save_once(path / "checkpoints", pretrained.step, dict(arrays), pretrained.config)
    except SaveFailed as error:
        raise OSError(reason(error)) from error
    description = {
        "experiment": pretrained.experiment,
        "preset": pretrained.preset,
        "steps": pretrained.steps,
        "config": pretrained.config,
    }
    provenance = {"result": pretrained.result, **pretrained.provenance, "sha256": pretrained.sha256}
    texts = {
        **pretrained.files,
        PRETRAINED: json.dumps(provenance, indent=2) + "\n",
        "config.json": json.dumps(description, indent=2) + "\n",
    }
    for name, text in texts.items():
        (path / name).write_text(text, encoding="utf-8")
