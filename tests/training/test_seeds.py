"""Several seeds in one run: each as if alone, the lost ones left out, arrays beside the metrics."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_training import Quiet, ToyConfig, make_data, make_toy, same_bits, without_times

from tsar_jax.errors import UserError
from tsar_jax.training import loop as training_loop
from tsar_jax.training.arrays import FOLDER
from tsar_jax.training.checkpoints import load_checkpoint, load_seeds
from tsar_jax.training.errors import TrainingDiverged, TrainingInterrupted
from tsar_jax.training.loop import train
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.run import Run
from tsar_jax.training.system import HostMetrics, System

CONFIG = ToyConfig(steps=12, chunk=5, eval_every=6, checkpoint_every=4, seed=7, seeds=3)


def walk(limit=jnp.inf):
    """A system that walks at random and shows where it has been; beyond `limit` it is infinite."""

    def step(state, data, key):
        state = state + data * jax.random.normal(key, state.shape)
        state = jnp.where(jnp.abs(state) > limit, jnp.inf, state)
        return state, {"loss": state.sum()}, {"place": state, "number": jnp.int32(3)}

    def evaluate(state, data, key):
        return {"distance": jnp.abs(state).sum()}

    return System(lambda key: jax.random.normal(key, (2,)), step, evaluate)


def on_host(system):
    """The same system, its functions called one by one."""
    return system._replace(
        step=lambda *arguments: (*system.step(*arguments)[:2], {}),
        host_metrics=HostMetrics(("loss",), ("distance",)),
    )


def trained(system, path, config=CONFIG, resume=False, data=1.0, progress=None, **first):
    run = Run(path, config, "toy", "cpu", resume)
    return train(system, np.float32(data), config, run, progress=progress or Quiet(), **first)


def alone(config, seed):
    return dataclasses.replace(config, seed=seed, seeds=1)


@pytest.mark.parametrize("make", [walk, lambda: on_host(walk())], ids=["traced", "on the host"])
def test_a_seed_of_several_is_what_it_is_alone(tmp_path, make):
    several = trained(make(), tmp_path / "several")
    losses = []
    for number in range(3):
        path = tmp_path / str(number)
        one = trained(make(), path, alone(CONFIG, 7 + number))
        np.testing.assert_array_equal(several.state.state[number], one.state)
        losses.append([row["loss"] for row in one.metrics if row["split"] == "train"])
        state, step = load_checkpoint(tmp_path / "several", like=one.state, seed=number)
        assert step == 12
        np.testing.assert_array_equal(state, one.state)
    rows = [row for row in several.metrics if row["split"] == "train"]
    np.testing.assert_allclose([row["loss"] for row in rows], np.mean(losses, 0), rtol=1e-5)
    assert [row["lost_seeds"] for row in rows] == [0] * len(rows)


def test_adam_and_typed_keys_too(tmp_path):
    def toy(path, config):
        run = Run(path, config, "toy", "cpu")
        return train(make_toy(config), make_data(), config, run, progress=Quiet())

    several = toy(tmp_path / "several", CONFIG)
    one = toy(tmp_path / "one", alone(CONFIG, 8))
    second = jax.tree.map(lambda leaf: leaf[1], several.state.state)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), second.weights, one.state.weights
    )
    assert (jax.random.key_data(second.key) == jax.random.key_data(one.state.key)).all()


def test_resuming_is_bit_exact_with_arrays(tmp_path, monkeypatch):
    whole = trained(walk(), tmp_path / "whole")
    stops = iter([None, signal.SIGINT])

    @contextlib.contextmanager
    def caught():
        yield lambda: next(stops)

    with monkeypatch.context() as patches:
        patches.setattr(training_loop, "caught_signals", caught)
        with pytest.raises(TrainingInterrupted, match="step 5 of 12"):
            trained(walk(), tmp_path / "run")
    again = trained(walk(), tmp_path / "run", resume=True)
    assert same_bits(again.state, whole.state)
    assert without_times(again.metrics) == without_times(whole.metrics)
    for name, values in whole.arrays.values.items():
        np.testing.assert_array_equal(again.arrays.values[name], values)


def test_arrays_are_written_before_their_checkpoint_and_read_on(tmp_path):
    whole = trained(walk(), tmp_path)
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == [
        "12.npz",
        "4.npz",
        "8.npz",
    ]
    place = whole.arrays.values["place"]
    assert place.shape == (3, 12, 2)
    np.testing.assert_array_equal(whole.arrays.steps, np.arange(1, 13))
    np.testing.assert_array_equal(place[:, -1], whole.state.state)
    # A later file than the checkpoint is of steps that will be taken again.
    (tmp_path / FOLDER / "99.npz").write_bytes((tmp_path / FOLDER / "8.npz").read_bytes())
    again = trained(walk(), tmp_path, resume=True)
    np.testing.assert_array_equal(again.arrays.values["place"], place)
    assert not (tmp_path / FOLDER / "99.npz").exists()
    (tmp_path / FOLDER / "4.npz").write_bytes(b"PK")
    with pytest.warns(UserWarning, match=r"4\.npz cannot be read as arrays of steps"):
        again = trained(walk(), tmp_path, resume=True)
    np.testing.assert_array_equal(again.arrays.steps, np.arange(5, 13))


class Said(Quiet):
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


def test_a_lost_seed_stays_and_the_others_go_on(tmp_path):
    said = Said()
    found = trained(walk(limit=6.5), tmp_path / "run", progress=said)
    lost = np.asarray(found.state.lost)
    assert 0 < lost.sum() < 3
    number = int(np.argmax(lost))
    free = trained(walk(), tmp_path / "free")
    path = free.arrays.values["place"][number]
    first = int(np.argmax((np.abs(path) > 6.5).any(-1)))
    assert first > 0
    np.testing.assert_array_equal(found.state.state[number], path[first - 1])
    place = found.arrays.values["place"][number]
    assert np.isinf(place[first]).any()
    assert np.isnan(place[first + 1 :]).all()
    assert (found.arrays.values["number"] == 3).all()
    assert np.isfinite([row["loss"] for row in found.metrics if "loss" in row]).all()
    assert sum(f"seed {7 + number} is lost" in line for line in said.lines) == 1
    states, numbers, _ = load_seeds(tmp_path / "run", like=jnp.zeros(2))
    assert numbers == np.flatnonzero(lost).tolist()
    np.testing.assert_array_equal(states, found.state.state)
    said = Said()
    again = trained(walk(limit=6.5), tmp_path / "run", resume=True, progress=said)
    assert same_bits(again.state, found.state)
    assert not any("is lost" in line for line in said.lines)


def test_where_all_are_lost_training_has_diverged(tmp_path):
    with pytest.raises(TrainingDiverged, match="The loss is nan at step 1"):
        trained(walk(limit=0.0), tmp_path)


def test_first_states_are_made_of_each_seed_s_key(tmp_path):
    found = trained(walk(), tmp_path, data=0, first_state=lambda key: jax.random.uniform(key, (2,)))
    assert len(np.unique(np.asarray(found.state.state))) == 6
    np.testing.assert_array_equal(found.state.state, found.arrays.values["place"][:, 0])


def test_a_seed_that_is_not_there_is_named(tmp_path):
    found = trained(walk(), tmp_path / "several")
    like = found.state.state[0]
    with pytest.raises(UserError, match="is of 3 seeds: there is no number 3, counted from 0"):
        load_checkpoint(tmp_path / "several", like=like, seed=3)
    one = trained(walk(), tmp_path / "one", alone(CONFIG, 7))
    with pytest.raises(UserError, match="is of 1 seeds: there is no number 1"):
        load_checkpoint(tmp_path / "one", like=like, seed=1)
    states, lost, _ = load_seeds(tmp_path / "one", like=like)
    np.testing.assert_array_equal(states[0], one.state)
    assert lost == []


@pytest.mark.parametrize("seeds", [0, -1])
def test_impossible_numbers_of_seeds_are_refused(seeds):
    with pytest.raises(UserError, match="seeds must be at least 1"):
        ToyConfig(seeds=seeds)
    with pytest.raises(UserError, match="seed"):
        ToyConfig(seed=2**32 - 1, seeds=2)


@pytest.mark.parametrize("devices", [2, 4])
def test_seeds_are_spread_over_devices_to_the_same_numbers(tmp_path, devices):
    script = Path(__file__).with_name("toy_training.py")
    flags = ["--steps", "12", "--seeds", "3", "--out", str(tmp_path / "spread")]
    surroundings = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, script, *flags], env=surroundings, check=True)
    config = ToyConfig(steps=12, seeds=3)
    run = Run(tmp_path / "one", config, "toy", "cpu")
    train(make_toy(config), make_data(), config, run, progress=Quiet())
    spread, one = (without_times(read_rows(tmp_path / name)) for name in ("spread", "one"))
    for a, b in zip(spread, one, strict=True):
        assert a.pop("split") == b.pop("split")
        assert a == pytest.approx(b, rel=1e-5)
