"""Trained things in the package: packed and unpacked to the same bits, named wherever a run is."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tsar_jax import cli
from tsar_jax.cli.pack import Arguments, pack
from tsar_jax.environments.registry import find_environments
from tsar_jax.environments.types import Variants
from tsar_jax.errors import UserError
from tsar_jax.pretrained import known, resolve, unpack
from tsar_jax.pretrained.listing import listing
from tsar_jax.pretrained.store import HERE
from tsar_jax.systems.episodic import anml, tsar
from tsar_jax.systems.hebbian import system as hebbian
from tsar_jax.systems.hebbian.evolution import init_evolution
from tsar_jax.systems.learned_rules import system as learned_rules
from tsar_jax.training.checkpoints import (
    CheckpointWriter,
    SaveFailed,
    load_checkpoint,
    read_newest,
)
from tsar_jax.training.run import Run, create_run, load_config

SAID = {
    "about": "A toy.",
    "result": "It plays.",
    "use": "tsar-jax status pretrained:toy",
    "command": "tsar-jax run toy",
    "commit": "0123456",
    "machine": "a bench",
    "date": "2026-11-27",
    "hours": 0.1,
}


@dataclasses.dataclass(frozen=True)
class Toy:
    rate: float = 0.1


ARRAYS = {
    "params/w": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "opt_state/mu": np.full((2, 3), 0.5, np.float32),
    "opt_state/count": np.array(7, np.int32),
}
MAXIMUM_BYTES = 12_000_000
ROOT = Path(__file__).parents[2]
FILES_OF_THEIR_OWN = {"anml-paper": ROOT / "results" / "anml" / "paper" / "anml-paper.npz"}
"""Runs whose arrays do not come with the package."""


@pytest.fixture
def toy_run(tmp_path):
    """A run folder with one checkpoint, of step 7."""
    path = tmp_path / "run"
    writer = CheckpointWriter(path / "checkpoints", keep=1)
    writer.save(7, ARRAYS, {"rate": 0.1})
    writer.close()
    create_run(Run(path, Toy(), "toy", "cpu"), 7)
    (path / "rule.json").write_text("{}\n")
    return path


def pack_toy(run, out, **changed):
    return pack(Arguments(run=run, name="toy", out=out, **SAID | changed))


def read_arrays(path):
    found = read_newest(path / "checkpoints")
    assert found is not None
    return found


def test_what_is_packed_comes_back_to_the_same_bits(toy_run, tmp_path):
    pack_toy(toy_run, tmp_path, files=("rule.json",))
    path = unpack("toy", tmp_path / "out", tmp_path)
    arrays, record = read_arrays(path)
    assert record == read_arrays(toy_run)[1]
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)
    assert (path / "rule.json").read_text() == "{}\n"
    assert load_config(path) == {"rate": 0.1}


def test_packing_twice_gives_the_same_bytes(toy_run, tmp_path):
    first = [file.read_bytes() for file in pack_toy(toy_run, tmp_path)]
    assert [file.read_bytes() for file in pack_toy(toy_run, tmp_path)] == first


def test_what_is_not_kept_is_zero_and_half_precision_comes_back_as_float32(toy_run, tmp_path):
    pack_toy(toy_run, tmp_path, keep=("params",), half=True)
    arrays, _ = read_arrays(unpack("toy", tmp_path / "out", tmp_path))
    rounded = ARRAYS["params/w"].astype(np.float16).astype(np.float32)
    assert not np.array_equal(rounded, ARRAYS["params/w"])
    np.testing.assert_array_equal(arrays["params/w"], rounded, strict=True)
    np.testing.assert_array_equal(arrays["opt_state/mu"], np.zeros((2, 3), np.float32), strict=True)
    np.testing.assert_array_equal(arrays["opt_state/count"], np.array(0, np.int32), strict=True)


def test_no_metrics_are_missed_in_what_was_unpacked(toy_run, tmp_path):
    pack_toy(toy_run, tmp_path)
    assert not Run(toy_run, Toy(), "toy", "cpu").begun_elsewhere
    path = unpack("toy", tmp_path / "out", tmp_path)
    assert Run(path, Toy(), "toy", "cpu").begun_elsewhere


def test_a_full_disk_is_a_sentence(toy_run, tmp_path, monkeypatch):
    def fail(self):
        raise SaveFailed("in Orbax's words: No space left on device (os error 28)")

    pack_toy(toy_run, tmp_path)
    monkeypatch.setattr(CheckpointWriter, "wait", fail)
    with pytest.raises(UserError, match=r"cannot be unpacked to .* \(No space left on device\)"):
        unpack("toy", tmp_path / "out", tmp_path)


def test_a_branch_that_is_not_there_is_not_packed(toy_run, tmp_path):
    with pytest.raises(UserError, match=r"no array in \('weights',\)"):
        pack_toy(toy_run, tmp_path, keep=("weights",))


def test_unpacking_again_takes_the_same_folder_but_no_other(toy_run, tmp_path):
    pack_toy(toy_run, tmp_path)
    path = unpack("toy", tmp_path / "out", tmp_path)
    (path / "evaluation.json").write_text("{}")
    assert unpack("toy", tmp_path / "out", tmp_path) == path
    assert (path / "evaluation.json").exists()
    pack_toy(toy_run, tmp_path, keep=("params",))
    with pytest.raises(UserError, match="is not what comes with this version"):
        unpack("toy", tmp_path / "out", tmp_path)


def test_a_damaged_file_is_refused_and_leaves_nothing(toy_run, tmp_path):
    data, text = pack_toy(toy_run, tmp_path)
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"toy\.npz is damaged: take another copy of the file"):
        unpack("toy", tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()
    text.write_text('{"about": 1}')
    with pytest.raises(UserError, match=r"toy\.json is damaged"):
        unpack("toy", tmp_path / "out", tmp_path)


def test_weights_that_do_not_come_with_the_package_are_put_beside_what_is_unpacked(
    toy_run, tmp_path
):
    data, _ = pack_toy(toy_run, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    data.rename(tmp_path / "elsewhere.npz")
    digest = known(tmp_path)["toy"].sha256
    with pytest.raises(UserError, match=rf"put toy\.npz, with the SHA-256 {digest}, into .*out"):
        unpack("toy", out, tmp_path)
    shutil.copy(tmp_path / "elsewhere.npz", out / "toy.npz")
    arrays, _ = read_arrays(unpack("toy", out, tmp_path))
    np.testing.assert_array_equal(arrays["params/w"], ARRAYS["params/w"])


def test_a_folder_that_cannot_be_made_is_named(toy_run, tmp_path):
    pack_toy(toy_run, tmp_path)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"toy cannot be unpacked to .*out/toy"):
        unpack("toy", tmp_path / "out", tmp_path)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("pretrained:cart-pole", "runs/pretrained/cart-pole"),
        ("--run=pretrained:cart-pole", "--run=runs/pretrained/cart-pole"),
        ("pretrained:cart-pole/config.json", "runs/pretrained/cart-pole/config.json"),
        ("runs/pretrained:cart-pole", "runs/pretrained:cart-pole"),
        ("--preset", "--preset"),
    ],
)
def test_a_name_stands_for_its_folder(argument, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve(argument) == expected
    assert Path("runs/pretrained").exists() == (argument != expected)


@pytest.mark.parametrize("name", ["nobody", "", "..", "../cart-pole"])
def test_an_unknown_name_is_refused(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tsar-jax", "status", f"pretrained:{name}"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "There is no pretrained thing" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_commands_take_the_name_of_a_pretrained_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tsar-jax", "status", "pretrained:cart-pole"])
    cli.main()
    assert "finished     yes" in capsys.readouterr().out


def test_the_package_stays_small():
    assert sum(path.stat().st_size for path in HERE.glob("*.npz")) <= MAXIMUM_BYTES
    assert {path.stem for path in HERE.glob("*.npz")} == set(known()) - set(FILES_OF_THEIR_OWN)


def make_state(experiment, path):
    """A state of the tree that the run's code makes today."""
    key = jax.random.key(0)
    if experiment == "hebbian_evolve":
        config = load_config(path, hebbian.HebbianConfig)
        worlds = find_environments(
            config.environment, config.bodies[:1], config.engine, config.integrator
        )
        world = worlds.one(0) if isinstance(worlds, Variants) else worlds(1)[0]
        policy = hebbian.policy_for(config, world)
        return jax.eval_shape(lambda key: init_evolution(config.evolution, policy.init(key)), key)
    if experiment == "plasticity_meta_train":
        rule = load_config(path, learned_rules.LearnedRuleConfig)
        return jax.eval_shape(learned_rules.make_system(rule, 47).init, key)
    if experiment == "tsar_meta_train":
        return jax.eval_shape(tsar.make_system(load_config(path, tsar.TsarConfig)).init, key)
    assert experiment == "anml_meta_train"
    return jax.eval_shape(anml.make_system(load_config(path, anml.AnmlConfig)).init, key)


@pytest.mark.parametrize("name", known())
def test_each_is_a_run_of_today_and_says_where_it_is_from(name, tmp_path):
    pretrained = known()[name]
    if name in FILES_OF_THEIR_OWN:
        shutil.copy(FILES_OF_THEIR_OWN[name], tmp_path)
    path = unpack(name, tmp_path)
    state, step = load_checkpoint(path, like=make_state(pretrained.experiment, path))
    assert step == pretrained.step
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert f"pretrained:{name}" in pretrained.use
    assert pretrained.provenance["command"].startswith(f"tsar-jax run {pretrained.experiment}")
    told = json.loads((path / "pretrained.json").read_text())
    assert told["result"]
    assert all(told[key] for key in ("command", "commit", "machine", "date", "hours"))
    shutil.rmtree(path)


def test_the_list_shows_each_and_all_that_is_known_of_one():
    text = listing(None)
    assert all(f"pretrained:{name}  (" in text for name in known())
    assert f"commit      {known()['cart-pole'].provenance['commit']}" in listing("cart-pole")
    with pytest.raises(UserError, match="There is no pretrained thing 'nobody'"):
        listing("nobody")
