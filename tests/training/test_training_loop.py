"""The loop: one trace, the same bits whatever the partition, divergence, metrics."""

import contextlib
import csv
import json
import signal
import struct
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from toy_training import (
    Quiet,
    ToyConfig,
    make_data,
    make_toy,
    same_bits,
    train_toy,
    without_times,
)

from tsar_jax.errors import UserError
from tsar_jax.training import loop as training_loop
from tsar_jax.training.checkpoints import load_checkpoint, read_checkpoint
from tsar_jax.training.errors import TrainingDiverged, TrainingInterrupted
from tsar_jax.training.loop import LoopConfig, next_boundary, train
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.run import Run, checkpoint_steps
from tsar_jax.training.system import System


def interrupted_after(monkeypatch, chunks):
    """Makes the loop see a Ctrl-C after that many chunks."""

    @contextlib.contextmanager
    def caught():
        answers = iter([None] * (chunks - 1))
        yield lambda: next(answers, signal.SIGINT)

    monkeypatch.setattr(training_loop, "caught_signals", caught)


def csv_without_times(path):
    with (path / "metrics.csv").open() as file:
        return without_times(csv.DictReader(file))


def test_step_is_traced_once_whatever_the_chunks(tmp_path):
    traces = []
    train_toy(tmp_path / "run", ToyConfig(steps=41), traces=traces)
    assert len(traces) == 1


def test_run_folder_holds_config_metrics_checkpoints_and_figures(tmp_path):
    config = ToyConfig()
    trained = train_toy(tmp_path, config)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["steps"] == 40
    assert (tmp_path / "figures").is_dir()
    assert checkpoint_steps(tmp_path / "checkpoints") == [30, 35, 40]
    rows = read_rows(tmp_path)
    assert rows == trained.metrics
    assert [row["step"] for row in rows if row["split"] == "eval"] == [10, 20, 30, 40]
    with (tmp_path / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in table if row["split"] == "train"] == [
        row["loss"] for row in rows if row["split"] == "train"
    ]
    state, step = load_checkpoint(tmp_path, like=trained.state)
    assert step == 40
    assert same_bits(state, trained.state)


def test_train_metrics_are_means_over_the_steps_of_their_chunk(tmp_path):
    fine = train_toy(tmp_path / "fine", ToyConfig(chunk=1, eval_every=None, checkpoint_every=None))
    coarse = train_toy(
        tmp_path / "coarse", ToyConfig(chunk=16, eval_every=None, checkpoint_every=None)
    )
    losses = [row["loss"] for row in fine.metrics if row["split"] == "train"]
    means = [np.mean(losses[start : start + 16]) for start in (0, 16, 32)]
    got = [row["loss"] for row in coarse.metrics if row["split"] == "train"]
    np.testing.assert_allclose(got, means, rtol=1e-12)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    config = ToyConfig(steps=30, chunk=30, eval_every=None, checkpoint_every=None)
    return train_toy(tmp_path_factory.mktemp("reference") / "run", config)


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink a failure takes minutes
)
@given(
    chunk=st.integers(1, 31),
    eval_every=st.none() | st.integers(1, 31),
    checkpoint_every=st.none() | st.integers(1, 31),
    interruptions=st.lists(st.integers(1, 6), max_size=2),
)
def test_same_bits_whatever_the_partition(
    uninterrupted, monkeypatch, chunk, eval_every, checkpoint_every, interruptions
):
    config = ToyConfig(
        steps=30, chunk=chunk, eval_every=eval_every, checkpoint_every=checkpoint_every
    )
    with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as patches:
        straight, broken = Path(folder) / "straight", Path(folder) / "broken"
        assert same_bits(train_toy(straight, config).state, uninterrupted.state)
        resume = False
        for chunks in interruptions:
            interrupted_after(patches, chunks)
            with contextlib.suppress(TrainingInterrupted):
                train_toy(broken, config, resume)
            resume = True
        patches.undo()
        trained = train_toy(broken, config, resume)
        assert same_bits(trained.state, uninterrupted.state)
        assert without_times(read_rows(broken)) == without_times(read_rows(straight))
        assert csv_without_times(broken) == csv_without_times(straight)


def test_boundaries_do_not_depend_on_where_a_process_began():
    loop = LoopConfig(steps=100, chunk=7, eval_every=10, checkpoint_every=25)
    wanted = sorted({*range(7, 100, 7), *range(10, 100, 10), 25, 50, 75, 100})
    for step in range(100):
        assert next_boundary(step, loop) == next(end for end in wanted if end > step)


def test_unsaved_metrics_and_a_partial_last_line_are_dropped_on_resume(tmp_path, monkeypatch):
    config = ToyConfig()
    whole = train_toy(tmp_path / "whole", config)
    path = tmp_path / "run"
    interrupted_after(monkeypatch, 3)
    with pytest.raises(TrainingInterrupted, match=r"step 10 of 40.*--resume"):
        train_toy(path, config)
    monkeypatch.undo()
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 14, "split": "train", "loss": 1.0}\n{"step": 15, "spl')
    with (path / "metrics.csv").open("a") as file:
        file.write("14,train,0.1")
    trained = train_toy(path, config, resume=True)
    assert same_bits(trained.state, whole.state)
    assert without_times(read_rows(path)) == without_times(whole.metrics)
    assert csv_without_times(path) == csv_without_times(tmp_path / "whole")
    walls = [row["wall_s"] for row in read_rows(path)]
    assert walls == sorted(walls)


def test_finished_run_resumes_to_what_it_was(tmp_path):
    first = train_toy(tmp_path, ToyConfig(steps=5))
    again = train_toy(tmp_path, ToyConfig(steps=5), resume=True)
    assert same_bits(first.state, again.state)
    assert again.metrics == first.metrics


def test_no_steps_saves_the_initial_state(tmp_path):
    trained = train_toy(tmp_path, ToyConfig(steps=0))
    assert (trained.step, trained.metrics) == (0, [])
    assert checkpoint_steps(tmp_path / "checkpoints") == [0]


def test_run_killed_before_its_first_checkpoint_starts_anew(tmp_path):
    config = ToyConfig(steps=10)
    whole = train_toy(tmp_path / "whole", config)
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.json").write_text((tmp_path / "whole" / "config.json").read_text())
    assert same_bits(train_toy(path, config, resume=True).state, whole.state)


@pytest.fixture
def calls(monkeypatch):
    """Names of what is called to save and to write metrics, in order."""
    found = []

    def recorded(owner, name):
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *arguments: (found.append(name), original(*arguments))[1]
        )

    for name in ("save", "wait"):
        recorded(training_loop.CheckpointWriter, name)
    recorded(training_loop.MetricsWriter, "write")
    recorded(training_loop, "to_host")
    return found


def test_first_checkpoint_is_on_the_disk_before_the_first_metrics(tmp_path, calls):
    train_toy(tmp_path, ToyConfig(steps=5))
    assert calls[calls.index("save") :][:3] == ["save", "wait", "write"]


def test_the_save_before_has_ended_when_a_state_is_copied(tmp_path, calls):
    """Two copies of a large state do not fit beside it."""
    train_toy(tmp_path, ToyConfig(steps=20, checkpoint_every=5))
    copies = [index for index, name in enumerate(calls) if name == "to_host"]
    assert len(copies) == 5
    assert all(calls[index - 1] == "wait" for index in copies)


def test_nan_loss_stops_at_its_step_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(TrainingDiverged, match="nan at step 33: lower the learning rate") as error:
        train_toy(tmp_path, ToyConfig(nan_at=33))
    assert error.value.step == 33
    assert "that of step 30" in str(error.value)
    assert checkpoint_steps(tmp_path / "checkpoints") == [20, 25, 30]
    for step in (20, 25, 30):
        arrays, _ = read_checkpoint(tmp_path / "checkpoints", step)
        assert all(np.isfinite(array).all() for array in arrays.values())
    assert max(row["step"] for row in read_rows(tmp_path)) == 30


def test_state_that_is_not_finite_is_never_saved(tmp_path):
    def step(state, data, key):
        # The loss is that of before the update, so it is still finite when the state is not.
        return state * data, {"loss": state}, {}

    system = System(lambda key: jnp.ones(()), step, lambda state, data, key: {})
    config = ToyConfig(steps=10, chunk=1, checkpoint_every=1)
    run = Run(tmp_path, config)
    with pytest.raises(TrainingDiverged, match="'state' is not finite at step 4"):
        train(system, np.float32(1e10), config, run, progress=Quiet())
    assert checkpoint_steps(tmp_path / "checkpoints") == [1, 2, 3]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [({"loss": jnp.zeros(2)}, "must be a scalar"), ({"error": jnp.zeros(())}, 'need a "loss"')],
)
def test_metrics_are_checked(tmp_path, metrics, message):
    system = System(lambda key: 0.0, lambda *_: (0.0, metrics, {}), lambda *_: {})
    with pytest.raises(ValueError, match=message):
        train(system, None, LoopConfig(), Run(tmp_path, LoopConfig()), progress=Quiet())


def test_randomness_of_a_step_is_the_root_key_and_its_number(tmp_path):
    def step(state, data, key):
        number = state[0].astype(int) + 1
        return state.at[number].set(jax.random.uniform(key)).at[0].add(1), {"loss": 0.0}, {}

    config = ToyConfig(steps=6, chunk=4)
    system = System(lambda key: jnp.zeros(7), step, lambda *_: {})
    trained = train(system, None, config, Run(tmp_path, config), progress=Quiet())
    root = training_loop.make_keys(config.seed).step
    wanted = [jax.random.uniform(jax.random.fold_in(root, index)) for index in range(6)]
    np.testing.assert_array_equal(trained.state[1:], wanted)


@pytest.mark.parametrize(
    "settings_",
    [
        {"steps": -1},
        {"chunk": 0},
        {"eval_every": 0},
        {"checkpoint_every": -2},
        {"keep": 0},
        {"seed": -1},
        {"seed": 2**32},
        {"seed": 2**63},
        {"seed": True},
        {"seed": np.True_},
        {"seed": 1.0},
        {"steps": 2**31},
    ],
)
def test_impossible_settings_are_refused(settings_):
    with pytest.raises(UserError, match=next(iter(settings_))):
        LoopConfig(**settings_)


def read_events(path):
    """The events of a file of records: length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    record = path.read_bytes()
    while record:
        (length,) = struct.unpack("Q", record[:8])
        yield Event.FromString(record[12 : 12 + length])
        record = record[16 + length :]


def test_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    trained = train_toy(tmp_path / "run", ToyConfig(steps=5, tensorboard=True))
    (path,) = (tmp_path / "run" / "tensorboard").glob("events*")
    _, session, *events = read_events(path)
    assert session.step == 1  # in a resumed run TensorBoard hides what is later than this
    found = {(e.step, e.summary.value[0].tag): e.summary.value[0].simple_value for e in events}
    wanted = {
        (row["step"], f"{row['split']}/{name}"): value
        for row in trained.metrics
        for name, value in row.items()
        if name not in ("step", "split", "wall_s", "steps_per_s")
    }
    assert found == pytest.approx(wanted)
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install 'tsar_jax\[tensorboard\]'"):
        train_toy(tmp_path / "other", ToyConfig(tensorboard=True))
    assert not (tmp_path / "other").exists()


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    train_toy(tmp_path, ToyConfig(steps=5))
    with (
        training_loop.run_folder.locked(tmp_path),
        pytest.raises(UserError, match="Another process"),
    ):
        train_toy(tmp_path, ToyConfig(steps=5), resume=True)


def test_data_may_be_numpy_and_the_first_state_weakly_typed(tmp_path):
    system = make_toy(ToyConfig())
    assert jax.eval_shape(system.init, jax.random.key(0)).count.weak_type
    trained = train_toy(tmp_path, ToyConfig(steps=3))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(trained.state.weights))
    assert isinstance(make_data()["inputs"], np.ndarray)
