"""Every method over a tiny stream of two tasks, and what one can be asked to learn."""

import dataclasses
from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.data.continual.registry import StreamSettings, make_stream
from tsar_jax.data.types import LabelledDataset, LabelledImages
from tsar_jax.errors import UserError
from tsar_jax.networks.mlp import make_mlp
from tsar_jax.systems.continual.methods import METHODS, check_supported, make_method
from tsar_jax.systems.continual.system import ContinualConfig, Life, make_spec, make_system

BATCH, EPOCHS, CAPACITY = 8, 4, 20
SETTINGS = {
    "clser": ("stable_model_alpha=0.9", "plastic_model_alpha=0.9", "stable_model_update_freq=1"),
    "synergy": ("ema_alpha=0.9",),
    "hal": ("steps_on_anchors=5",),
    "mer": ("item_num=0",),
}
REMEMBERING = ("er", "der", "derpp", "clser", "synergy", "agem", "gem", "gss", "hal", "icarl")

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@cache
def blobs() -> LabelledDataset:
    """Images of 4x4 in four classes that differ in which quarter is bright."""
    random = np.random.RandomState(0)
    quarters = np.kron(np.eye(4).reshape(4, 2, 2), np.full((1, 2, 2), 150))

    def images(count: int) -> LabelledImages:
        labels = np.arange(count, dtype=np.int32) % 4
        shown = quarters[labels] + random.uniform(0, 100, (count, 4, 4))
        return LabelledImages(shown.astype(np.uint8), labels, ("a", "b", "c", "d"))

    return LabelledDataset("blobs", images(84), images(40), "made for this test")


def life_of(name: str, kind: str = "seq") -> Life:
    method = make_method(name, SETTINGS.get(name, ()))
    settings = StreamSettings(BATCH, EPOCHS, tasks=2, joint=method.joint)
    stream = make_stream(f"{kind}-blobs", blobs(), settings)
    net = make_mlp(stream.image, stream.classes, (12, 8))
    return Life(make_spec(net, stream, rate=0.2, capacity=CAPACITY, replay=BATCH), method, stream)


@cache
def lived(name: str) -> tuple:
    """The lifetime before and after two tasks, and the losses; every method once."""
    life = life_of(name)
    data = jax.device_put(life.stream.data)

    @jax.jit
    def run(seed, data):
        init_key, step_key = jax.random.split(jax.random.key(seed))
        begin = life.init(init_key, data)
        keys = jax.random.split(step_key, life.stream.steps)
        return begin, *jax.lax.scan(partial(stepped, life, data), begin, keys)

    return jax.device_get(run(0, data))


def stepped(life, data, lifetime, key):
    return life.step(lifetime, data, key)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_lives_through_two_tasks(name) -> None:
    begin, end, losses = lived(name)
    chex.assert_trees_all_equal_shapes_and_dtypes(begin, end)
    assert np.isfinite(losses).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(end))
    # Task-incremental, of the task just learned, by the reported model.
    life = life_of(name)
    model = life.models.index(life.method.reported)
    last = end.accuracy[-1, -1, model, 1]
    assert last > 0.8


@pytest.mark.parametrize("name", REMEMBERING)
def test_memory_forgets_less(name) -> None:
    life = life_of(name)
    first = lived(name)[1].accuracy[1, 0, life.models.index(life.method.reported), 0]
    assert first > lived("sgd")[1].accuracy[1, 0, 0, 0] + 0.2


def test_seeds_are_independent() -> None:
    """Lifetimes run together, as on an accelerator, or in turn."""
    life = life_of("icarl")
    data = jax.device_put(life.stream.data)

    def run(seed):
        init_key, step_key = jax.random.split(jax.random.key(seed))
        begin = life.init(init_key, data)
        keys = jax.random.split(step_key, life.stream.steps)
        return jax.lax.scan(partial(stepped, life, data), begin, keys)[0].accuracy

    together = jax.jit(jax.vmap(run))(jnp.arange(2))
    np.testing.assert_allclose(together[0], lived("icarl")[1].accuracy, atol=0.051)


def test_a_stream_that_a_method_cannot_learn() -> None:
    for name, kind, cumulative in (
        ("ewc_on", "general", False),
        ("lwf", "domain", False),
        ("icarl", "class", True),
        ("pnn", "class", True),
    ):
        life = life_of(name)
        stream = life.stream._replace(name="a-stream", kind=kind, cumulative=cumulative)
        with pytest.raises(UserError, match=f"Method {name} cannot learn a-stream") as error:
            check_supported(life.method, name, stream)
        assert "choose another stream, or a method from sgd" in str(error.value)
        with pytest.raises(UserError):
            make_system(ContinualConfig(method=name), dataclasses.replace(life, stream=stream))
    for name in METHODS:
        check_supported(METHODS[name](), name, life_of("sgd").stream)
