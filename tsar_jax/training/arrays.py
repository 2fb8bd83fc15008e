"""Arrays that steps return beside scalars, in a file of the run's folder for every checkpoint.

RUN/arrays/STEP.npz holds the arrays of the steps since the previous file, up to step number STEP:
each [steps, ...], or [seeds, steps, ...] in a run of several seeds.
"""

import io
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tsar_jax.atomic import replacing
from tsar_jax.errors import UserError
from tsar_jax.untrusted.files import open_regular
from tsar_jax.untrusted.zips import open_zip, read_member, zip_members

FOLDER = "arrays"
MAX_ARRAY = 1 << 30
"""Largest array that is read from a file, in bytes, so that no file can fill the memory."""


class StepArrays(NamedTuple):
    """Arrays of some steps of a run.

    steps [n]: numbers of the steps, from 1, ascending. values: arrays by name, [n, ...], or
        [seeds, n, ...] in a run of several seeds.
    """

    steps: np.ndarray
    values: dict[str, np.ndarray]


class ArrayWriter:
    """A collector of the arrays of steps, which writes them before their checkpoint.

    Files past `step` that an earlier process left are removed, for the run continues from there.

    Args:
        folder: the run's folder.
        names: names of the arrays; no file is written where there are none.
        step: steps done when the run begins or is resumed.
        seeds: whether the arrays have a leading axis of seeds.
    """

    def __init__(self, folder: Path, names: Sequence[str], step: int, *, seeds: bool):
        self._folder, self._axis = folder / FOLDER, int(seeds)
        self._written: list[StepArrays] = []
        self._waiting: list[StepArrays] = []
        if not names:
            return
        self._folder.mkdir(exist_ok=True)
        for number in _steps_of(self._folder):
            path = _file(self._folder, number)
            if number > step:
                path.unlink()
                continue
            try:
                self._written.append(_read(path))
            except UserError as error:
                warnings.warn(f"{error} Training goes on without them.", stacklevel=3)

    def add(self, first: int, count: int, values: dict[str, np.ndarray]) -> None:
        """Add the arrays of steps number first + 1 to first + count.

        Args:
            values: arrays by name, of as many steps as the longest chunk has; those past the first
                `count` are ignored.
        """
        if values:
            axis, steps = self._axis, np.arange(first + 1, first + count + 1)
            cut = {name: np.take(array, range(count), axis) for name, array in values.items()}
            self._waiting.append(StepArrays(steps, cut))

    def write(self) -> None:
        """Write the arrays added since the last call. Raises OSError."""
        if not self._waiting:
            return
        part = _joined(self._waiting, self._axis)
        write_arrays(self._folder.parent, part)
        self._written.append(part)
        self._waiting = []

    @property
    def arrays(self) -> StepArrays:
        """Return the arrays of all steps, those of earlier processes included."""
        return _joined([*self._written, *self._waiting], self._axis)


def write_arrays(folder: Path, arrays: StepArrays) -> None:
    """Write the arrays of some steps as one file of a run's folder. Raises OSError."""
    if arrays.steps.size:
        (folder / FOLDER).mkdir(exist_ok=True)
        with replacing(_file(folder / FOLDER, int(arrays.steps[-1]))) as file:
            np.savez(file, steps=arrays.steps, **arrays.values)  # type: ignore[arg-type]


def _joined(parts: Sequence[StepArrays], axis: int) -> StepArrays:
    if not parts:
        return StepArrays(np.zeros(0, int), {})
    names = parts[0].values
    steps = np.concatenate([part.steps for part in parts])
    return StepArrays(
        steps, {name: np.concatenate([part.values[name] for part in parts], axis) for name in names}
    )


def _steps_of(folder: Path) -> list[int]:
    """Return the steps of the files in a folder of arrays, ascending."""
    names = [name.removesuffix(".npz") for name in os.listdir(folder) if name.endswith(".npz")]
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal())


def _file(folder: Path, step: int) -> Path:
    return folder / f"{step}.npz"


def _read(path: Path) -> StepArrays:
    """Read one file, which may hold anything. Raises UserError."""
    try:
        with open_regular(path) as opened, open_zip(path, opened) as archive:
            arrays = {
                member.filename.removesuffix(".npy"): np.lib.format.read_array(
                    io.BytesIO(read_member(archive, member)), allow_pickle=False
                )
                for member in zip_members(archive, MAX_ARRAY)
            }
        return StepArrays(arrays.pop("steps"), arrays)
    except (UserError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as arrays of steps ({error}).") from error
