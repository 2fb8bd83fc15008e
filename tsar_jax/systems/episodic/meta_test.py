"""Meta-test: learn unseen classes one image after another, then be tested on all of them.

Beaulieu et al. (2020): a run draws classes, re-initialises the output layer, learns 15 images
of each class in one pass, one image at a time, and is scored on those (train) and on the
class's five others (test).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.extend.core import jaxpr_as_fun

from tsar_jax.data.episodes import ClassOrder, Pixels, draw_stream, scale_omniglot
from tsar_jax.networks import (
    Activations,
    Network,
    Params,
    init_params,
    run_stages,
    stored_stages,
)
from tsar_jax.plasticity.gradient_learner import (
    GradientState,
    current_params,
    network_learner,
)
from tsar_jax.plasticity.learner import Learner, unroll
from tsar_jax.plasticity.masks import combine, partition

# Bytes of simultaneous runs that a CPU's cache, or an accelerator's memory, holds comfortably.
CPU_MEMORY = 2**24
ACCELERATOR_MEMORY = 2**33


class Protocol(NamedTuple):
    """How one meta-test run goes.

    classes: how many are drawn, among the first `population`. learn: images of a class that are
    learned; the rest are held out. class_order: see `ClassOrder`. iid: learn images shuffled, not
    class after class. epochs: passes over them. reset: begin with everything plastic
    re-initialised, not only the output layer.
    """

    classes: int
    population: int = 650
    learn: int = 15
    class_order: ClassOrder = "random"
    iid: bool = False
    epochs: int = 1
    reset: bool = False


def adam_learner(network: Network, plastic: Params, learning_rate: jax.Array | float) -> Learner:
    """Return the learner of a meta-test: Adam, one example at a time.

    plastic: tree of booleans like the parameters, True where they learn. An example is one row of
    the signals that enter the first level that learns (or, where these are large, a level before
    it: `networks.stored_stages`), and its label.
    """
    depth = stored_stages(network, plastic)
    return network_learner(network, plastic, depth, optax.adam(learning_rate))


def learn_stream(
    network: Network,
    params: Params,
    plastic: Params,
    signals: Activations,
    labels: jax.Array,
    *,
    rate: jax.Array | float,
    index: jax.Array | None = None,
) -> tuple[Params, jax.Array]:
    """Learn by Adam, one example at a time; return the parameters and the losses [T] on the way.

    Args:
        plastic: tree of booleans like params, True where they learn.
        signals: signals of the levels that do not learn, one row per example; or any rows, of
            which index [T] names one per example.
        labels: classes [T]. The loss is that before the example's update.
    """
    learner = adam_learner(network, plastic, rate)
    rows = jnp.arange(labels.size) if index is None else index

    def update(
        theta: Params, state: GradientState, example: tuple[jax.Array, jax.Array], key: Any
    ) -> tuple[GradientState, jax.Array]:
        """Learn one row: the stream's signals themselves would be a copy of each row's."""
        row, label = example
        return learner.update(theta, state, (jax.tree.map(lambda s: s[row], signals), label), key)

    by_row = learner._replace(update=update)
    state, losses = unroll(by_row, params, learner.init(params, None), (rows, labels))
    return current_params(params, plastic, state), losses


def frozen_signals(
    network: Network, params: Params, plastic: Params, images: jax.Array, *, pixels: Pixels
) -> Activations:
    """Return the signals of the levels that do not learn, for images [classes, per_class, H, W].

    Rows are classes * per_class, in that order. images: uint8; pixels: their scale in training.
    """
    depth = stored_stages(network, plastic)

    def signals_of_class(images: jax.Array) -> Activations:
        return run_stages(network, params, scale_omniglot(images, pixels), 0, depth)

    signals = lax.map(signals_of_class, images)
    return jax.tree.map(lambda s: s.reshape(-1, *s.shape[2:]), signals)


def run_once(
    network: Network,
    params: Params,
    plastic: Params,
    signals: Activations,
    protocol: Protocol,
    per_class: int,
    key: jax.Array,
    rate: jax.Array,
) -> dict[str, jax.Array]:
    """One meta-test run on rows of `frozen_signals`: train and test accuracy.

    Also `per_class` [classes], the test accuracy on each class in the order they were learned.
    """
    stream_key, reset_key = jax.random.split(key)
    stream = draw_stream(
        stream_key,
        population=protocol.population,
        classes=protocol.classes,
        learn=protocol.learn,
        per_class=per_class,
        class_order=protocol.class_order,
        iid=protocol.iid,
        epochs=protocol.epochs,
    )
    start = fresh_start(network, params, plastic, reset_key, everything=protocol.reset)
    rows = stream.learn_index @ jnp.array([per_class, 1])
    learned, _ = learn_stream(
        network, start, plastic, signals, stream.learn_labels, rate=rate, index=rows
    )
    depth = stored_stages(network, plastic)

    def correct(index: jax.Array, labels: jax.Array) -> jax.Array:
        rows = index @ jnp.array([per_class, 1])
        chosen = jax.tree.map(lambda s: s[rows], signals)
        logits = run_stages(network, learned, chosen, depth)
        return logits.argmax(-1) == labels

    held_out = correct(stream.test_index, stream.test_labels)
    first_pass = slice(0, protocol.classes * protocol.learn)
    return {
        "train": correct(stream.learn_index[first_pass], stream.learn_labels[first_pass]).mean(),
        "test": held_out.mean(),
        "per_class": held_out.reshape(protocol.classes, -1).mean(1),
    }


def fresh_start(
    network: Network, params: Params, plastic: Params, key: jax.Array, *, everything: bool
) -> Params:
    """Re-initialise the output layer, or everything plastic."""
    fresh = init_params(network, key)
    if everything:
        return combine(partition(fresh, plastic)[0], partition(params, plastic)[1])
    return {**params, "head": fresh["head"]}


def bytes_per_run(params: Params, plastic: Params) -> int:
    """Memory that one of several simultaneous runs takes: weights, moments and gradient."""
    learned = partition(params, plastic)[0]
    return 4 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(learned))


def automatic_memory() -> int:
    """Bytes for simultaneous runs that suit the device."""
    return CPU_MEMORY if jax.default_backend() == "cpu" else ACCELERATOR_MEMORY


def run_many(
    network: Network,
    params: Params,
    plastic: Params,
    signals: Activations,
    protocol: Protocol,
    per_class: int,
    keys: jax.Array,
    rates: jax.Array,
    *,
    memory: int,
    count: jax.Array | int | None = None,
) -> dict[str, jax.Array]:
    """`run_once` for keys [n] and rates [n], as many at a time as fit into `memory` bytes."""
    run = functools.partial(run_once, network, params, plastic, signals, protocol, per_class)
    each = bytes_per_run(params, plastic)
    return as_many_as_fit(run, keys, rates, each=each, memory=memory, count=count)


def as_many_as_fit(
    run: Callable[[jax.Array, jax.Array], dict[str, jax.Array]],
    keys: jax.Array,
    rates: jax.Array,
    *,
    each: int,
    memory: int,
    count: jax.Array | int | None = None,
) -> dict[str, jax.Array]:
    """run(key, rate) for keys [n] and rates [n], as many at a time as fit into `memory` bytes.

    each: bytes that one run takes. count: only the first that many are run (the others' results
    are zero), so that searches and runs of different numbers share one compiled program.
    """
    number = rates.size
    together = min(number, max(1, memory // each))
    batches = -(-number // together)
    padded = jnp.minimum(jnp.arange(batches * together), number - 1).reshape(batches, together)

    def run_batch(batch: jax.Array) -> dict[str, jax.Array]:
        index = padded[batch]
        if together == 1:  # vmap would turn conditions into selections, and cost copies
            return jax.tree.map(lambda x: x[None], run(keys[index[0]], rates[index[0]]))
        return jax.vmap(run)(keys[index], rates[index])

    # Traced once, for the shapes and for the loop: tracing is most of what a second start takes.
    traced, shapes = jax.make_jaxpr(run_batch, return_shape=True)(jnp.int32(0))

    def add_batch(batch: jax.Array, results: dict[str, jax.Array]) -> dict[str, jax.Array]:
        leaves = jaxpr_as_fun(traced)(jnp.asarray(batch, jnp.int32))
        some = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
        return jax.tree.map(lambda all, one: all.at[batch].set(one), results, some)

    empty = jax.tree.map(lambda s: jnp.zeros((batches, *s.shape), s.dtype), shapes)
    needed = batches if count is None else -(-count // together)
    results = lax.fori_loop(0, needed, add_batch, empty)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:number], results)
