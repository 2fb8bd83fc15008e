"""SYNERgy's step on turning digits, alone and of several seeds at once."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import matmul_rates
from benchmarks.measure import Benchmark, Cost, Targets, Work
from tsar_jax.data.continual import make_stream
from tsar_jax.data.continual.registry import StreamSettings
from tsar_jax.data.types import LabelledDataset, LabelledImages
from tsar_jax.devices import split_cpu
from tsar_jax.networks.mlp import make_mlp
from tsar_jax.plasticity.methods import make_method
from tsar_jax.systems.continual.system import ContinualConfig, Experiment, make_spec, make_system
from tsar_jax.training.loop import make_keys
from tsar_jax.training.programs import make_programs

CLASSES, SIDE = 10, 28
STEPS = 20
"""In one call, so that none of them ends a task."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """images: of the data set. hidden: widths. batch: new images, and as many replayed."""

    images: int = 60_000
    hidden: tuple[int, ...] = (100, 100)
    batch: int = 128
    buffer: int = 500
    fisher_update_freq: float = 0.8


PAPER = Setting()
TINY = Setting(images=400, hidden=(8, 8), batch=4, buffer=8)


def step_flops(setting: Setting) -> float:
    """Of the products of one step: W forward and back, S forward, and the mean Fisher pass."""
    sizes = (SIDE**2, *setting.hidden, CLASSES)
    macs = sum(into * out for into, out in itertools.pairwise(sizes))
    back = macs - sizes[0] * sizes[1]
    seen = 2 * setting.batch
    fisher = setting.fisher_update_freq * setting.buffer
    return 2.0 * (seen * (2 * macs + back) + setting.batch * macs + fisher * (2 * macs + back))


def data(images: int) -> LabelledDataset:
    """Noise, which takes as long as digits."""
    random = np.random.default_rng(0)
    names = tuple(map(str, range(CLASSES)))

    def split(count: int) -> LabelledImages:
        shown = random.integers(0, 256, (count, SIDE, SIDE), np.uint8)
        return LabelledImages(shown, np.arange(count, dtype=np.int32) % CLASSES, names)

    return LabelledDataset("mnist", split(images), split(images // 6), "noise")


def synergy(seeds: int, setting: Setting) -> Work:
    """Steps as the training loop runs them, stream and buffer included; a unit is one seed's."""
    stream = make_stream("rot-mnist", data(setting.images), StreamSettings(batch=setting.batch))
    method = make_method("synergy", fisher_update_freq=setting.fisher_update_freq)
    net = make_mlp(stream.image, CLASSES, setting.hidden)
    spec = make_spec(net, stream, learning_rate=0.2, capacity=setting.buffer, replay=setting.batch)
    if seeds > 1:
        split_cpu()
    system, keys = (
        make_system(ContinualConfig(), Experiment(spec, method, stream)),
        make_keys(0, seeds),
    )
    programs = make_programs(system, stream.data, keys.init, STEPS, seeds=seeds)

    def function(state: Any, call: jax.Array, data: Any, root: jax.Array) -> tuple[Any, Any]:
        state, *found = programs.chunk(state, data, root, call * STEPS, jnp.int32(STEPS))
        return state, found

    state = programs.init(keys.init)
    shape = (2 * setting.batch, SIDE**2, setting.hidden[0])
    cost = Cost(step_flops(setting), "FLOP", functools.partial(matmul_rates, shapes=(shape,)))
    arguments = (jax.device_put(stream.data), keys.step)
    return Work(function, state, arguments, STEPS * seeds, (cost,))


BENCHMARKS = (
    Benchmark(
        "synergy_step",
        "SYNERgy's step on rot-mnist, 128 new and 128 replayed digits, buffer 500",
        functools.partial(synergy, 1, PAPER),
        functools.partial(synergy, 1, TINY),
        Targets(),
    ),
    Benchmark(
        "synergy_seeds",
        "the same of five seeds in one program, per seed",
        functools.partial(synergy, 5, PAPER),
        functools.partial(synergy, 5, TINY),
        Targets(),
    ),
)
