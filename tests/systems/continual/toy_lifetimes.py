"""Lifetimes of every method on a tiny stream of two tasks, each computed once for all tests."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from tsar_jax.data.continual.registry import StreamSettings, make_stream
from tsar_jax.data.types import LabelledDataset, LabelledImages
from tsar_jax.networks.mlp import make_mlp
from tsar_jax.plasticity.methods import make_method
from tsar_jax.systems.continual.system import Experiment, RunState, make_spec

BATCH, EPOCHS, CAPACITY = 8, 4, 20
PART = 4
"""Steps of a part of a lifetime; most parts end within an epoch, for an epoch has 6, or 11."""
SETTINGS = {
    "clser": {
        "stable_model_alpha": 0.9,
        "plastic_model_alpha": 0.9,
        "stable_model_update_freq": 1,
    },
    "synergy": {"ema_alpha": 0.9},
    "hal": {"steps_on_anchors": 5},
    "mer": {"item_num": 0},
}


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


@cache
def life_of(name: str, kind: str = "seq", capacity: int = CAPACITY) -> Experiment:
    """A method on the blobs, its tasks of a kind."""
    method = make_method(name, **SETTINGS.get(name, {}))
    settings = StreamSettings(BATCH, EPOCHS, tasks=2, joint=method.joint)
    stream = make_stream(f"{kind}-blobs", blobs(), settings)
    net = make_mlp(stream.image, stream.classes, (12, 8))
    return Experiment(
        make_spec(net, stream, learning_rate=0.2, capacity=capacity, replay=BATCH), method, stream
    )


class Programs(NamedTuple):
    """Functions of lifetimes of one method, compiled.

    init: (key) -> RunState before its first step. part: (RunState, keys [steps]) -> the RunState
    after a part of it, and the losses.
    """

    init: Any
    part: Any


@cache
def programs(name: str) -> Programs:
    """The programs of a method."""
    life = life_of(name)
    data = jax.device_put(life.stream.data)

    def step(lifetime: RunState, key: jax.Array) -> tuple[RunState, jax.Array]:
        return life.step(lifetime, data, key)

    return Programs(jax.jit(lambda key: life.init(key, data)), jax.jit(partial(jax.lax.scan, step)))


class Lived(NamedTuple):
    """A lifetime: before its first step, after each of its parts, and the loss of every step."""

    begin: RunState
    after: tuple[RunState, ...]
    losses: np.ndarray

    @property
    def end(self) -> RunState:
        """The lifetime after its last step."""
        return self.after[-1]


def step_keys(name: str, seed: int = 0) -> jax.Array:
    """The keys of a lifetime's steps, [parts, PART]."""
    _, key = jax.random.split(jax.random.key(seed))
    parts, rest = divmod(life_of(name).stream.steps, PART)
    assert not rest
    return jax.random.split(key, (parts, PART))


def live(name: str, start_seed: int = 0, step_seed: int = 0) -> Lived:
    """A whole lifetime of a method, on the host, of a seed for its start and one for its steps."""
    init, part = programs(name)
    begin = lifetime = init(jax.random.split(jax.random.key(start_seed))[0])
    after, losses = [], []
    for keys in step_keys(name, step_seed):
        lifetime, part_losses = part(lifetime, keys)
        after.append(lifetime)
        losses.append(part_losses)
    return jax.device_get(Lived(begin, tuple(after), np.concatenate(losses)))


lived = cache(live)
"""What `live` returns, computed once."""
