"""A training step of SYNERgy with ResNet-18, and the importance of its parameters."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import matmul_rates
from benchmarks.measure import Benchmark, Cost, Targets, Work
from tsar_jax.networks.classifier import Classifier, Variables
from tsar_jax.networks.resnet import make_resnet18

CLASSES = 10
RATE = 0.05
STEPS = 4


def forward_flop(side: int, width: int) -> float:
    """Of one image [side, side, 3], without norms: 1.1 GFLOP at width 64 and 32x32.

    Each 3x3 layer of a stage costs the same, but the first of a later stage half: places become
    four times fewer and the product of in and out channels four times more. Three shortcuts cost
    a ninth of such a first layer each.
    """
    whole = 9 * side**2 * width**2
    stem = 9 * side**2 * 3 * width
    return 2.0 * (stem + 4 * whole + 3 * (3 * whole + whole / 2 + whole / 18))


def _products(side: int, width: int, images: int, passes: float) -> Cost:
    """passes: 3 with gradients, 1 without; the rate is that of a stage's first products too."""
    shape = (images * side**2 // 4, 18 * width, 2 * width)
    return Cost(
        passes * images * forward_flop(side, width),
        "FLOP",
        functools.partial(matmul_rates, shapes=(shape,)),
    )


def _setting(side: int, width: int) -> tuple[Classifier, Variables]:
    network = make_resnet18((side, side, 3), CLASSES, width)
    return network, jax.jit(network.init)(jax.random.key(0))


def _data(images: int, side: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    shown = rng.normal(size=(images, side, side, 3)).astype(np.float32)
    return jnp.asarray(shown), jnp.asarray(np.arange(images, dtype=np.int32) % CLASSES)


def step(side: int, width: int, batch: int) -> Work:
    """W and S on the replay, W on batch and replay, SGD: 128 images forward, 96 of them back.

    At batch 32, width 64 and 32x32: 350 GFLOP. Several in one call, as in a chunk of training.
    """
    network, variables = _setting(side, width)
    average = jax.tree.map(jnp.copy, variables)
    images, labels = _data(2 * batch, side)

    def one_step(
        state: tuple[Variables, Variables], images: jax.Array, labels: jax.Array
    ) -> tuple[tuple[Variables, Variables], jax.Array]:
        working, semantic = state
        replay = images[batch:]
        target, stats = network.train(semantic, replay, None)

        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            logits, stats = network.train(Variables(params, working.stats), replay, None)
            consistency = jnp.square(logits - target).mean()
            logits, stats = network.train(Variables(params, stats), images, None)
            right = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
            return consistency - right.mean(), stats

        (loss, new), gradient = jax.value_and_grad(loss_of, has_aux=True)(working.params)
        params = jax.tree.map(lambda p, g: p - RATE * g, working.params, gradient)
        return (Variables(params, new), semantic._replace(stats=stats)), loss

    def function(state: Any, _: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        return jax.lax.scan(lambda s, _: one_step(s, images, labels), state, None, STEPS)

    # Forward 1 + 1 + 2 batches, and 2 * (1 + 2) backward.
    cost = _products(side, width, batch, 10.0)
    return Work(function, (variables, average), (images, labels), STEPS, (cost,))


def importance(side: int, width: int, images: int) -> Work:
    """The importance of every parameter over as many images: 670 GFLOP for 200 at width 64."""
    network, variables = _setting(side, width)

    def function(
        stats: Any, _: jax.Array, params: Any, images: jax.Array, labels: jax.Array
    ) -> tuple[Any, Any]:
        importance, stats = network.fisher(Variables(params, stats), images, labels)
        return stats, importance

    cost = _products(side, width, images, 3.0)
    arguments = (variables.params, *_data(images, side))
    return Work(function, variables.stats, arguments, 1, (cost,))


BENCHMARKS = (
    Benchmark(
        "resnet_step",
        "SYNERgy's step with ResNet-18, 32 new and 32 replayed images 32x32",
        functools.partial(step, 32, 64, 32),
        functools.partial(step, 16, 2, 2),
        Targets(ratio=1.5),
    ),
    Benchmark(
        "resnet_fisher",
        "the importance of ResNet-18's parameters over 200 images 32x32",
        functools.partial(importance, 32, 64, 200),
        functools.partial(importance, 16, 2, 4),
        Targets(ratio=1.7, peak_memory_bytes=1.5e9),
    ),
)
