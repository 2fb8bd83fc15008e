"""Checkpoints: what is saved is what is read; damage, other configs and other models."""

import dataclasses
import json
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_training import ToyConfig, make_data, make_toy, same_bits, train_toy

from tsar_jax.errors import UserError
from tsar_jax.training.checkpoints import (
    CheckpointWriter,
    DamagedCheckpoint,
    check_config,
    check_space,
    from_host,
    load_checkpoint,
    read_checkpoint,
    state_bytes,
    to_host,
)
from tsar_jax.training.config import earlier
from tsar_jax.training.run import checkpoint_steps, load_config

CONFIG = ToyConfig(steps=20)


def largest(path):
    return max((file for file in path.rglob("*") if file.is_file()), key=lambda f: f.stat().st_size)


def truncate(path):
    file = largest(path / "state")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_bits(path):
    """Each byte of the arrays' files, one at a time, is too slow; the middle of each file."""
    for file in (path / "state").rglob("d/*"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0x10
        file.write_bytes(content)


def fill_with_garbage(path):
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(b"garbage" * 20)


def empty_files(path):
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


def remove_arrays(path):
    shutil.rmtree(path / "state")


def remove_record(path):
    shutil.rmtree(path / "record")


def remove_everything(path):
    shutil.rmtree(path)
    path.mkdir()


def change_record(path):
    file = largest(path / "record")
    file.write_text(file.read_text().replace('"steps": 20', '"steps": 21'))


def swap_with_older(path):
    shutil.rmtree(path)
    shutil.copytree(path.parent / "15", path)


DAMAGE = [
    truncate,
    flip_bits,
    fill_with_garbage,
    empty_files,
    remove_arrays,
    remove_record,
    remove_everything,
    change_record,
    swap_with_older,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_newest_falls_back_to_the_one_before(finished, run, damage):
    damage(run / "checkpoints" / "20")
    like = finished[1].state
    with pytest.raises(UserError, match=r"step 20 .* is damaged"):
        load_checkpoint(run, 20, like=like)
    with pytest.warns(UserWarning, match="step 20 in .* is damaged"):
        assert load_checkpoint(run, like=like)[1] == 15
    assert checkpoint_steps(run / "checkpoints") == [10, 15, 20]  # loading changes nothing
    with pytest.warns(UserWarning, match="damaged_checkpoints/20-0; that of step 15"):
        trained = train_toy(run, CONFIG, resume=True)
    assert same_bits(trained.state, finished[1].state)
    assert checkpoint_steps(run / "checkpoints") == [10, 15, 20]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_checkpoint(run, like=like)[1] == 20


def test_no_usable_checkpoint_is_an_error_that_moves_nothing(run):
    for step in (10, 15, 20):
        fill_with_garbage(run / "checkpoints" / str(step))
    for _ in range(2):
        with pytest.raises(UserError, match="can be read: start a new run"):
            train_toy(run, CONFIG, resume=True)
    assert checkpoint_steps(run / "checkpoints") == [10, 15, 20]


def test_lost_checkpoints_are_an_error(run):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match=r"checkpoints of .* are gone"):
        train_toy(run, CONFIG, resume=True)


def test_a_save_cut_short_is_no_checkpoint(run, finished):
    (run / "checkpoints" / "25.orbax-checkpoint-tmp-123").mkdir()
    assert load_checkpoint(run, like=finished[1].state)[1] == 20


def test_checkpoint_of_another_model_is_refused(run):
    other = ToyConfig(steps=20, inputs=9)
    like = jax.eval_shape(make_toy(other).init, jax.random.key(0))
    with pytest.raises(UserError, match=r"'weights/kernel' is float32 \[8\] there, .* \[9\]"):
        load_checkpoint(run, like=like)
    with pytest.raises(UserError, match=r"another model: 'extra' is absent there, but int32 \[2\]"):
        load_checkpoint(run, like={"extra": jnp.zeros(2, int)})
    with pytest.raises(UserError, match=r"another model: .* is not in this one"):
        load_checkpoint(run, like={})


def test_model_changed_in_code_is_refused_on_resume(run, monkeypatch):
    import toy_training

    other = ToyConfig(inputs=5)
    monkeypatch.setattr(toy_training, "make_toy", lambda *_: make_toy(other))
    monkeypatch.setattr(toy_training, "make_data", lambda *_: make_data(other.inputs))
    with pytest.raises(UserError, match=r"step 20 .* another model: 'weights/kernel'"):
        train_toy(run, CONFIG, resume=True)


def test_checkpoint_from_before_a_field_existed_has_its_earlier_value():
    @dataclasses.dataclass(frozen=True)
    class Config:
        rate: float = 0.1
        scale: str = dataclasses.field(default="new", metadata=earlier("old"))

    check_config({"config": {"rate": 0.1}}, Config(scale="old"), "checkpoint")
    with pytest.raises(UserError, match="scale: 'old' -> 'new'"):
        check_config({"config": {"rate": 0.1}}, Config(), "checkpoint")


def test_config_edited_since_the_checkpoint_is_refused(run):
    path = run / "config.json"
    stored = json.loads(path.read_text())
    stored["config"]["learning_rate"] = 0.5
    path.write_text(json.dumps(stored))
    config = load_config(run, ToyConfig)
    assert config.learning_rate == 0.5
    with pytest.raises(UserError, match=r"\(learning_rate: 0.01 -> 0.5\): undo the change"):
        train_toy(run, config, resume=True)


def test_steps_and_folders_that_are_not_there(run, tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint of step 3 .* \[10, 15, 20\]"):
        load_checkpoint(run, 3, like={})
    with pytest.raises(UserError, match="no checkpoints in"):
        load_checkpoint(tmp_path / "nowhere", like={})


def test_every_kind_of_leaf_survives(tmp_path):
    state = {
        "bfloat16": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3),
        "bool": jnp.array([True, False]),
        "empty": jnp.zeros((0, 4)),
        "keys": jax.random.split(jax.random.key(3), 2),
        "rbg": jax.random.key(1, impl="rbg"),
        "nested": (jnp.int8(-3), [jnp.uint32(7)], None, {"a b/c.d": jnp.float32(-0.0)}),
        "number": 2,
    }
    writer = CheckpointWriter(tmp_path, keep=1)
    writer.save(3, to_host(state), {})
    writer.wait()
    writer.close()
    restored = from_host(read_checkpoint(tmp_path, 3)[0], jax.eval_shape(lambda: state), "x")
    assert same_bits(restored, state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert restored["rbg"].dtype == state["rbg"].dtype


def test_paths_that_collide_are_refused():
    with pytest.raises(ValueError, match="share a path"):
        to_host({"a/b": jnp.zeros(1), "a": {"b": jnp.ones(1)}})


def test_saved_arrays_share_no_memory_with_the_device():
    state = jnp.arange(1000.0)
    assert np.shares_memory(jax.device_get(state), np.asarray(state))  # hence the copy
    assert not np.shares_memory(to_host(state)["state"], np.asarray(state))
    like = jax.eval_shape(lambda: state)
    host = to_host(state)
    assert not np.shares_memory(np.asarray(from_host(host, like, "x")), host["state"])


def test_donated_buffers_are_not_overwritten_while_they_are_saved(tmp_path):
    advance = jax.jit(lambda state: state + 1, donate_argnums=0)
    state = jnp.zeros(1 << 20)
    writer = CheckpointWriter(tmp_path, keep=10)
    for step in range(0, 50, 10):
        writer.save(step, to_host(state), {})
        for _ in range(10):
            state = advance(state)
    writer.wait()
    writer.close()
    for step in range(0, 50, 10):
        assert (read_checkpoint(tmp_path, step)[0]["state"] == step).all()


def test_missing_checkpoint_is_damaged(tmp_path):
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(tmp_path, 1)


def test_disk_that_cannot_hold_the_checkpoints_is_refused_before_anything_is_made(
    tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    folder = tmp_path / "run" / "checkpoints"
    assert "1 MB each, at most 3 at a time" in check_space(folder, 1_000_000, keep=2)
    with pytest.raises(UserError, match=r"up to 4 at a time.*only 3 MB free: make room"):
        check_space(folder, 1_000_000, keep=3)
    assert not folder.parent.exists()
    # A resumed run has some of them already.
    (folder / "10").mkdir(parents=True)
    check_space(folder, 1_000_000, keep=3)


def test_size_of_a_state_is_that_of_its_arrays():
    state = {"a": jnp.zeros((3, 5)), "key": jax.random.key(0), "n": np.int32(1)}
    assert state_bytes(state) == 60 + 8 + 4
