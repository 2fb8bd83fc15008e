"""Checkpoints: the training state is saved asynchronously and verified when it is read.

A checkpoint is two Orbax items: "state", the arrays under their paths in the state's tree, and
"record", which describes them and holds a SHA-256 of everything, for Orbax does not notice
every byte that changes on the disk.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax import processes
from tsar_jax.errors import MAX_TEXT, UserError, escaped, shown
from tsar_jax.random_keys import is_key, wrap_key
from tsar_jax.training.config import config_difference, config_to_json, with_later_fields
from tsar_jax.training.run import checkpoint_steps, odd_steps
from tsar_jax.training.seeds import arrays_of_seed, of_several_seeds
from tsar_jax.training.system import State

Arrays = dict[str, np.ndarray]
Record = dict[str, Any]


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read, or is not what was saved."""


class SaveFailed(Exception):
    """A checkpoint that could not be written."""


def leaf_names(state: State) -> list[str]:
    """Return the path of every leaf, such as "params/dense/kernel"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    keystr = jax.tree_util.keystr
    names = [keystr(path, simple=True, separator="/") or "state" for path, _ in leaves]
    if len(set(names)) != len(names):
        raise ValueError(f"two leaves of the state share a path, among {sorted(names)}")
    return names


def to_host(state: State) -> Arrays:
    """Return the leaves of a state by path, as NumPy arrays that share no memory with the device's.

    On the CPU `jax.device_get` aliases the device's buffer, and the next compiled call is given
    that buffer to overwrite while a save may still be reading it; hence the copies.
    """
    leaves = [_key_data(leaf) for leaf in jax.tree.leaves(state)]
    return {
        name: np.array(processes.on_host(leaf))
        for name, leaf in zip(leaf_names(state), leaves, strict=True)
    }


def from_host(arrays: Arrays, like: State, source: str, *, on_device: bool = True) -> State:
    """Return a state of the tree, shapes and dtypes of `like`.

    Args:
        arrays: leaves by path, as `to_host` gives them.
        like: a tree of arrays or ShapeDtypeStructs.
        source: where the arrays are from, for error messages.
        on_device: whether they are copied to JAX's default device; else they stay as they are, but
            for random keys, so that a state can be placed that one device cannot hold.

    Raises:
        UserError: an array is missing, superfluous or of another shape or dtype.
    """
    names = leaf_names(like)
    leaves, tree = jax.tree.flatten(like)
    for name, leaf in zip(names, leaves, strict=True):
        expected = jax.eval_shape(_key_data, leaf)
        array = arrays.get(name)
        if array is None or (array.shape, array.dtype) != (expected.shape, expected.dtype):
            saved = "absent" if array is None else f"{array.dtype} {list(array.shape)}"
            raise UserError(
                f"The {source} is of another model: {shown(name)} is {saved} there, but "
                f"{expected.dtype} {list(expected.shape)} in this one; resume with the code and "
                "config that it was saved with."
            )
    extra = [name for name in arrays if name not in names]
    if extra:
        raise UserError(
            f"The {source} is of another model: {shown(extra[0])} "
            f"({arrays[extra[0]].dtype} {list(arrays[extra[0]].shape)}) is not in this one; "
            "resume with the code and config that it was saved with."
        )
    # Copied, for the loop donates the state's buffers and NumPy's are not JAX's to overwrite.
    placed = [jnp.array(arrays[name]) if on_device else arrays[name] for name in names]
    restored = [_of_kind(array, leaf) for array, leaf in zip(placed, leaves, strict=True)]
    return jax.tree.unflatten(tree, restored)


def _key_data(leaf: Any) -> Any:
    """Return a typed random key as the integers it is made of, any other leaf as an array."""
    if is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if isinstance(leaf, jax.Array | np.ndarray) else jnp.asarray(leaf)


def _of_kind(array: Any, like: Any) -> Any:
    """Return an array, as typed random keys where `like` are keys."""
    return wrap_key(array, like) if is_key(like) else array


def digest(record: Record, arrays: Arrays) -> str:
    """Return the SHA-256 of a checkpoint's record, without "sha256", and of its arrays' bytes."""
    total = hashlib.sha256()
    described = {name: value for name, value in record.items() if name != "sha256"}
    total.update(json.dumps(described, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def state_bytes(state: State) -> int:
    """Return about how many bytes a checkpoint takes. state: of arrays or ShapeDtypeStructs."""
    leaves = jax.tree.leaves(jax.eval_shape(lambda tree: jax.tree.map(_key_data, tree), state))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def check_space(folder: Path, size: int, keep: int) -> str:
    """Return a sentence on the disk space that a run's checkpoints take.

    Args:
        folder: the checkpoints' folder, which need not exist yet.
        size: bytes of a checkpoint.
        keep: how many are kept; one more is there while it is written.

    Raises:
        UserError: the disk cannot hold those that are not there already.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    count = keep + 1
    missing = max(count - len(checkpoint_steps(folder)), 1)
    if missing * size > free:
        raise UserError(
            f"Checkpoints of this run take {_readable(size)} each and there are up to {count} at a "
            f"time, but the disk of {existing} has only {_readable(free)} free: make room, lower "
            "keep, or choose a folder on another disk."
        )
    return (
        f"checkpoints: {_readable(size)} each, at most {count} at a time "
        f"({_readable(free)} free on the disk)"
    )


def _readable(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"


class CheckpointWriter:
    """A writer that saves states in the background and keeps the newest `keep` of them.

    Orbax prints nothing until `close`, for its threads may print at any time.
    """

    def __init__(self, folder: Path, keep: int):
        import orbax.checkpoint as ocp

        self._ocp = ocp
        with contextlib.ExitStack() as stack:
            stack.enter_context(_quiet_orbax())
            options = ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,
                # Which Orbax refuses for a part of the processes; the folder is there.
                create=not processes.several(),
                **_alone(ocp),
            )
            # Nothing changes the arrays that are handed over, so Orbax need not copy them first.
            numpy = ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)
            known = ocp.type_handlers.create_type_handler_registry((np.ndarray, numpy))
            self._manager = ocp.CheckpointManager(
                folder.absolute(),
                options=options,
                item_handlers={
                    "state": ocp.PyTreeCheckpointHandler(type_handler_registry=known),
                    "record": ocp.JsonCheckpointHandler(),
                },
            )
            self._quiet = stack.pop_all()

    def save(self, step: int, arrays: Arrays, config: Record) -> None:
        """Begin to save `arrays`, which must not change afterwards.

        It waits for the previous save, and returns while the files are still being written.

        Raises:
            SaveFailed: this save or the previous one failed.
        """
        args = self._ocp.args
        record = {"step": step, "config": config, "shapes": _shapes(arrays)}
        record["sha256"] = digest(record, arrays)
        # Orbax refuses arrays without elements; their shapes in the record restore them.
        filled = {name: array for name, array in arrays.items() if array.size}
        with _failing_as_one():
            self._manager.save(
                step,
                args=args.Composite(state=args.PyTreeSave(filled), record=args.JsonSave(record)),
            )

    def wait(self) -> None:
        """Wait until the last save has ended. Raises SaveFailed if it failed."""
        with _failing_as_one():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """End Orbax's threads. It raises nothing: `wait` has raised what matters."""
        with self._quiet:
            # The first call raises the error of a failed save before it has closed anything.
            for _ in range(2):
                with contextlib.suppress(Exception):
                    self._manager.close()
                    break


def _alone(ocp: Any) -> dict[str, Any]:
    """Return options by which Orbax waits for no other process, for each has the whole state."""
    if not processes.several():
        return {}
    process = jax.process_index()
    only = ocp.options.MultiprocessingOptions(primary_host=process, active_processes={process})
    return {"multiprocessing_options": only}


def save_once(folder: Path, step: int, arrays: Arrays, config: Record) -> None:
    """Save one checkpoint in a folder of its own, and return when it is whole.

    Raises:
        SaveFailed: it could not be written.
    """
    writer = CheckpointWriter(folder, keep=1)
    try:
        writer.save(step, arrays, config)
        writer.wait()
    finally:
        writer.close()


@contextlib.contextmanager
def _failing_as_one() -> Iterator[None]:
    """Raise SaveFailed for whatever Orbax and TensorStore raise where a disk fails them."""
    try:
        yield
    except Exception as error:
        raise SaveFailed(str(error)) from error


def _shapes(arrays: Arrays) -> dict[str, list[Any]]:
    return {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()}


def read_checkpoint(folder: Path, step: int) -> tuple[Arrays, Record]:
    """Return the arrays and the record of one step. Raises DamagedCheckpoint."""
    import orbax.checkpoint as ocp

    path = (folder / str(step)).absolute()
    try:
        with _quiet_orbax():
            alone = _alone(ocp)
            json_handler = ocp.JsonCheckpointHandler(**alone)
            with ocp.Checkpointer(json_handler, **alone) as reader:
                record = reader.restore(path / "record")
            filled = {
                name: shape for name, (_, shape) in record["shapes"].items() if 0 not in shape
            }
            as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in filled}
            tree_handler = ocp.PyTreeCheckpointHandler(**alone)
            with ocp.Checkpointer(tree_handler, **alone) as reader:
                arrays = reader.restore(
                    path / "state", args=ocp.args.PyTreeRestore(restore_args=as_numpy)
                )
        for name, (dtype, shape) in record["shapes"].items():
            if 0 in shape:
                arrays[name] = np.zeros(shape, jnp.dtype(dtype))
        intact = record["step"] == step and record["sha256"] == digest(record, arrays)
    except Exception as error:
        # Damaged bytes surface as almost any error of Orbax, TensorStore, JSON or this function.
        reason = escaped(str(error).partition("\n")[0], 200)
        raise DamagedCheckpoint(f"{type(error).__name__}: {reason}") from error
    if not intact:
        raise DamagedCheckpoint("its checksum does not match its contents")
    return arrays, record


def read_newest(folder: Path, set_aside: Path | None = None) -> tuple[Arrays, Record] | None:
    """Return the newest checkpoint that is intact, None if there are none at all.

    Args:
        folder: the checkpoints' folder.
        set_aside: folder to which newer, damaged checkpoints are moved, so that their steps can
            be saved anew; None: they stay. Each gives a warning.

    Raises:
        UserError: all are damaged; nothing is moved.
    """
    if set_aside is not None:
        _set_odd_aside(folder, set_aside)
    steps = checkpoint_steps(folder)
    damaged: dict[int, str] = {}
    for step in reversed(steps):
        try:
            checkpoint = read_checkpoint(folder, step)
        except DamagedCheckpoint as damage:
            damaged[step] = str(damage)
            continue
        for bad, reason in damaged.items():
            moved = f", moved to {_move(folder / str(bad), set_aside)}" if set_aside else ""
            warnings.warn(
                f"The checkpoint of step {bad} in {folder} is damaged ({reason}){moved}; "
                f"that of step {step} takes its place.",
                stacklevel=2,
            )
        return checkpoint
    if steps:
        raise UserError(f"No checkpoint in {folder} can be read: start a new run.")
    return None


def _set_odd_aside(folder: Path, set_aside: Path) -> None:
    """Move entries that Orbax would take for steps but no save has made, each with a warning."""
    for odd in odd_steps(folder):
        name, moved = escaped(odd.name, MAX_TEXT), escaped(str(_move(odd, set_aside)))
        warnings.warn(
            f"{name} in {folder} is no step of a checkpoint, moved to {moved}.", stacklevel=3
        )


def _move(path: Path, folder: Path) -> Path:
    """Move a checkpoint into a folder, under a name that is free there, and return it."""
    folder.mkdir(exist_ok=True)
    # The name is cut, for it may be as long as a file system allows, without room for the number.
    numbered = (folder / f"{path.name[:50]}-{count}" for count in itertools.count())
    target = next(free for free in numbered if not os.path.lexists(free))
    path.rename(target)
    return target


def check_config(record: Record, config: Any, source: str) -> None:
    """Raise UserError, which shows the difference, if a checkpoint has another config.

    Fields that did not exist when it was saved are filled in first. config: the run's dataclass.
    """
    saved = with_later_fields(type(config), record["config"])
    difference = config_difference(saved, config_to_json(config))
    if difference:
        raise UserError(
            f"The config differs from that of the {source} ({difference}): "
            "undo the change, or start a new run."
        )


def load_checkpoint(
    run_folder: str | os.PathLike[str],
    step: int | None = None,
    *,
    like: State,
    branch: str | None = None,
    seed: int = 0,
) -> tuple[State, int]:
    """Return the state of one seed of a run and its step; the folder is left as it is.

    Args:
        run_folder: the run's folder.
        step: step of one of the checkpoints; None: the newest that is intact, with a warning for
            each damaged one.
        like: a state of the same tree, or `jax.eval_shape(system.init, key)`; of the branch alone
            where one is named.
        branch: path of the part of the state that is read, such as "params"; None: all of it.
        seed: number of the seed in a run of several, from 0.

    Raises:
        UserError: there is no checkpoint, it is damaged, or it is of another model.
    """
    arrays, step, source = _read_for_evaluation(run_folder, step)
    arrays = arrays_of_seed(arrays, seed, source)
    if branch is not None:
        arrays = branch_of(arrays, branch)
    return from_host(arrays, like, source), step


def load_seeds(
    run_folder: str | os.PathLike[str], step: int | None = None, *, like: State
) -> tuple[State, list[int], int]:
    """Return the states of all seeds of a run, one or several, for evaluation.

    Args:
        run_folder, step: as of `load_checkpoint`.
        like: the state of one seed.

    Returns:
        The states, every array with a leading axis of seeds; the numbers, from 0, of those that are
        lost; and the step.

    Raises:
        UserError: as `load_checkpoint` does.
    """
    arrays, step, source = _read_for_evaluation(run_folder, step)
    lost = arrays["lost"] if of_several_seeds(arrays) else np.zeros(1, bool)
    states = [
        from_host(arrays_of_seed(arrays, seed, source), like, source) for seed in range(len(lost))
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return stacked, np.flatnonzero(lost).tolist(), step


def _read_for_evaluation(
    run_folder: str | os.PathLike[str], step: int | None
) -> tuple[Arrays, int, str]:
    """Return a checkpoint's arrays, its step, and its name for error messages."""
    folder = Path(run_folder) / "checkpoints"
    steps = checkpoint_steps(folder)
    if not steps:
        raise UserError(f"There are no checkpoints in {run_folder}: check the path of the run.")
    if step is None:
        newest = read_newest(folder)
        assert newest is not None  # there are some, and read_newest raises if none is intact
        arrays, record = newest
    elif step not in steps:
        raise UserError(f"There is no checkpoint of step {step} in {run_folder}: it has {steps}.")
    else:
        try:
            arrays, record = read_checkpoint(folder, step)
        except DamagedCheckpoint as damage:
            raise UserError(
                f"The checkpoint of step {step} in {run_folder} is damaged ({damage}): "
                f"choose another of {steps}."
            ) from damage
    return arrays, record["step"], f"checkpoint of step {record['step']} in {run_folder}"


def branch_of(arrays: Arrays, branch: str) -> Arrays:
    """Return the arrays of a state below a path, by the rest of their paths."""
    prefix = f"{branch}/"
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Keep Orbax's messages off the terminal; its errors are raised anyway.

    Blocks may overlap and end in any order; after the last one all is as it was before the first.
    """
    _quiet.enter()
    try:
        yield
    finally:
        _quiet.leave()


class _Quiet:
    """A count of the blocks that keep Orbax quiet, and what the first of them replaced."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._level = logging.NOTSET
        self._hook = threading.excepthook
        self._unraisable = sys.unraisablehook

    def enter(self) -> None:
        with self._lock:
            self._count += 1
            if self._count == 1:
                logger = logging.getLogger("absl")
                self._level, self._hook = logger.level, threading.excepthook
                self._unraisable = sys.unraisablehook
                logger.setLevel(logging.CRITICAL)
                threading.excepthook = self._unless_of_orbax
                sys.unraisablehook = self._unless_of_tensorstore

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                logging.getLogger("absl").setLevel(self._level)
                threading.excepthook = self._hook
                sys.unraisablehook = self._unraisable

    def _unless_of_orbax(self, failed: Any) -> None:
        """Drop errors of Orbax's threads; pass others to the previous `threading.excepthook`."""
        frame = failed.exc_traceback
        while frame is not None:
            if frame.tb_frame.f_globals.get("__name__", "").startswith("orbax."):
                return
            frame = frame.tb_next
        self._hook(failed)

    def _unless_of_tensorstore(self, failed: Any) -> None:
        """Drop an error of TensorStore's threads; pass others to the previous `sys.unraisablehook`.

        Where a save fails, TensorStore's threads still report to the event loop that Orbax closed.
        """
        if failed.object is None and str(failed.exc_value) == "Event loop is closed":
            return
        self._unraisable(failed)


_quiet = _Quiet()
