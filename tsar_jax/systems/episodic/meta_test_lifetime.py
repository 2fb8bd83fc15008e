"""One lifetime of a meta-test, and many of them side by side.

Beaulieu et al. (2020), arXiv 2002.09571: a lifetime draws classes that meta-training has not seen,
re-initialises the output layer, learns 15 images of each class in one pass, one image at a time,
and is scored on those (train) and on the class's five others (test).
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
from tsar_jax.devices import on_shares, spread_devices
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

CPU_MEMORY_BUDGET = 2**24
"""Bytes of lifetimes side by side on a CPU: 16 MiB, which its cache holds."""
ACCELERATOR_MEMORY_BUDGET = 2**33
"""Bytes of lifetimes side by side on an accelerator: 8 GiB, which leave room for all else."""

COPIES_PER_WEIGHT = 4
"""Arrays of the size of the weights in a lifetime: weights, Adam's two moments, and gradient."""


class LifetimeSpec(NamedTuple):
    """The static description of a meta-test's lifetime.

    classes: number of classes that are drawn, among the first `population`.
    learn: images of a class that are learned; the rest are held out.
    class_order: see `ClassOrder`.
    iid: whether images are learned shuffled, not class after class.
    epochs: passes over the images.
    reset: whether everything plastic is re-initialised at first, not only the output layer.
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

    An example is one row of the activations that enter the first stage that learns (or, where these
    are large, a stage before it: `networks.stored_stages`), and its label.

    Args:
        plastic: tree of booleans like the parameters, True where they learn.
        learning_rate: Adam's.
    """
    depth = stored_stages(network, plastic)
    return network_learner(network, plastic, depth, optax.adam(learning_rate))


def learn_stream(
    network: Network,
    params: Params,
    plastic: Params,
    activations: Activations,
    labels: jax.Array,
    *,
    learning_rate: jax.Array | float,
    index: jax.Array | None = None,
) -> tuple[Params, jax.Array]:
    """Learn by Adam, one example at a time.

    Args:
        plastic: tree of booleans like params, True where they learn.
        activations: activations of the stages that do not learn [T, ...], a row per example; or any
            rows, of which index [T] names one for each example.
        labels: classes [T].
        learning_rate: Adam's.

    Returns:
        The parameters after the last example, and the loss [T] on each example before its update.
    """
    learner = adam_learner(network, plastic, learning_rate)
    rows = jnp.arange(labels.size) if index is None else index

    def update(
        theta: Params, state: GradientState, example: tuple[jax.Array, jax.Array], key: Any
    ) -> tuple[GradientState, jax.Array]:
        # The row is read here: a stream of activations would copy each row that it repeats.
        row, label = example
        row_activations = jax.tree.map(lambda a: a[row], activations)
        return learner.update(theta, state, (row_activations, label), key)

    by_row = learner._replace(update=update)
    state, losses = unroll(by_row, params, learner.init(params, None), (rows, labels))
    return current_params(params, plastic, state), losses


def frozen_activations(
    network: Network, params: Params, plastic: Params, images: jax.Array, *, pixels: Pixels
) -> Activations:
    """Return the activations of the stages that do not learn.

    Args:
        plastic: tree of booleans like params, True where they learn.
        images: uint8 [classes, per_class, H, W].
        pixels: the scale that the network was trained with.

    Returns:
        Rows [classes * per_class, ...], class after class.
    """
    depth = stored_stages(network, plastic)

    def class_activations(images: jax.Array) -> Activations:
        return run_stages(network, params, scale_omniglot(images, pixels), 0, depth)

    activations = lax.map(class_activations, images)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), activations)


def run_lifetime(
    network: Network,
    params: Params,
    plastic: Params,
    activations: Activations,
    spec: LifetimeSpec,
    per_class: int,
    key: jax.Array,
    learning_rate: jax.Array,
) -> dict[str, jax.Array]:
    """Run one lifetime of a meta-test.

    Args:
        plastic: tree of booleans like params, True where they learn.
        activations: rows as `frozen_activations` gives them.
        per_class: images of a class among them.
        key: key of the draws.
        learning_rate: Adam's, float [].

    Returns:
        "train" [] and "test" [], accuracy on the images learned and held out, and "per_class"
        [classes], that on the held-out images of each class in the order of learning.
    """
    stream_key, reset_key = jax.random.split(key)
    stream = draw_stream(
        stream_key,
        population=spec.population,
        classes=spec.classes,
        learn=spec.learn,
        per_class=per_class,
        class_order=spec.class_order,
        iid=spec.iid,
        epochs=spec.epochs,
    )
    initial = reinitialise(network, params, plastic, reset_key, everything=spec.reset)
    rows = stream.learn_index @ jnp.array([per_class, 1])
    learned, _ = learn_stream(
        network,
        initial,
        plastic,
        activations,
        stream.learn_labels,
        learning_rate=learning_rate,
        index=rows,
    )
    depth = stored_stages(network, plastic)

    def correct(index: jax.Array, labels: jax.Array) -> jax.Array:
        rows = index @ jnp.array([per_class, 1])
        tested = jax.tree.map(lambda a: a[rows], activations)
        logits = run_stages(network, learned, tested, depth)
        return logits.argmax(-1) == labels

    held_out = correct(stream.test_index, stream.test_labels)
    first_pass = slice(0, spec.classes * spec.learn)
    return {
        "train": correct(stream.learn_index[first_pass], stream.learn_labels[first_pass]).mean(),
        "test": held_out.mean(),
        "per_class": held_out.reshape(spec.classes, -1).mean(1),
    }


def reinitialise(
    network: Network, params: Params, plastic: Params, key: jax.Array, *, everything: bool
) -> Params:
    """Return the parameters with the output layer drawn anew, or everything plastic."""
    drawn = init_params(network, key)
    if everything:
        return combine(partition(drawn, plastic)[0], partition(params, plastic)[1])
    return {**params, "head": drawn["head"]}


def bytes_per_lifetime(params: Params, plastic: Params) -> int:
    """Return the bytes that one of several lifetimes side by side takes."""
    learned = partition(params, plastic)[0]
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(learned))
    return COPIES_PER_WEIGHT * weights


def default_memory_budget() -> int:
    """Return the bytes of lifetimes side by side that suit the device."""
    on_cpu = jax.default_backend() == "cpu"
    return CPU_MEMORY_BUDGET if on_cpu else ACCELERATOR_MEMORY_BUDGET


def run_lifetimes(
    network: Network,
    params: Params,
    plastic: Params,
    activations: Activations,
    spec: LifetimeSpec,
    per_class: int,
    keys: jax.Array,
    learning_rates: jax.Array,
    *,
    memory_budget: int,
    count: jax.Array | int | None = None,
) -> dict[str, jax.Array]:
    """Run lifetimes, as many at a time as fit into the memory budget.

    Args:
        plastic, activations, spec, per_class: see `run_lifetime`.
        keys: one for each lifetime [n].
        learning_rates: Adam's in each lifetime [n].
        memory_budget: bytes of lifetimes side by side.
        count: how many are run, see `map_in_batches`.

    Returns:
        The arrays of `run_lifetime` [n, ...].
    """

    def run(shared: Any, key: jax.Array, learning_rate: jax.Array) -> dict[str, jax.Array]:
        params, activations = shared
        return run_lifetime(
            network, params, plastic, activations, spec, per_class, key, learning_rate
        )

    return map_in_batches(
        run,
        (params, activations),
        keys,
        learning_rates,
        lifetime_bytes=bytes_per_lifetime(params, plastic),
        memory_budget=memory_budget,
        count=count,
        # Each device would need a divided network whole.
        spread=not network.is_divided,
    )


Lifetime = Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]
"""(what all lifetimes share, key, learning rate) -> arrays by name."""


def map_in_batches(
    run: Lifetime,
    shared: Any,
    keys: jax.Array,
    learning_rates: jax.Array,
    *,
    lifetime_bytes: int,
    memory_budget: int,
    count: jax.Array | int | None = None,
    spread: bool = True,
) -> dict[str, jax.Array]:
    """Map run over keys and learning rates, as many at a time as fit into the memory budget.

    Args:
        run: one lifetime.
        shared: tree of arrays that all lifetimes need.
        keys: one for each lifetime [n].
        learning_rates: one for each lifetime [n].
        lifetime_bytes: bytes that one lifetime takes.
        memory_budget: bytes of lifetimes side by side on a device; one is run even where it takes
            more.
        count: number of lifetimes that are run, the first ones, so that searches and runs of
            different numbers share one compiled program. None: all.
        spread: whether several devices take a share of the lifetimes each.

    Returns:
        The arrays of each lifetime [n, ...]; zeros of those that are not run, but for some that
        complete a batch.
    """
    total, shares = learning_rates.size, spread_devices() if spread else 1
    size = -(-total // shares)
    batch_size = min(size, max(1, memory_budget // lifetime_bytes))
    in_turn = functools.partial(_run_batches, run, batch_size)
    needed = jnp.asarray(total if count is None else count, jnp.int32)
    if shares == 1:
        return in_turn((keys, learning_rates, needed), shared)
    # A share is every so-many-th lifetime, so that the first ones are spread evenly.
    index = jnp.minimum(jnp.arange(size * shares), total - 1).reshape(size, shares).T
    counts = (needed - jnp.arange(shares) + shares - 1) // shares
    items = keys[index], learning_rates[index], counts
    results = on_shares(in_turn)(items, shared)
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:total], results)


def _run_batches(
    run: Lifetime, batch_size: int, items: tuple[jax.Array, jax.Array, jax.Array], shared: Any
) -> dict[str, jax.Array]:
    """Run lifetimes on one device, batch after batch.

    Args:
        run: one lifetime.
        batch_size: number of lifetimes side by side.
        items: keys [n], learning rates [n] and the number of lifetimes that are needed, [].
        shared: see `map_in_batches`.
    """
    keys, learning_rates, count = items
    total = learning_rates.size
    batches = -(-total // batch_size)
    padded = jnp.minimum(jnp.arange(batches * batch_size), total - 1).reshape(batches, batch_size)

    def run_batch(batch: jax.Array) -> dict[str, jax.Array]:
        index = padded[batch]
        if batch_size == 1:  # vmap would turn conditions into selections, and cost copies
            arrays = run(shared, keys[index[0]], learning_rates[index[0]])
            return jax.tree.map(lambda x: x[None], arrays)
        return jax.vmap(run, (None, 0, 0))(shared, keys[index], learning_rates[index])

    # Traced once, for the shapes and for the loop: tracing is most of what a second start takes.
    traced, shapes = jax.make_jaxpr(run_batch, return_shape=True)(jnp.int32(0))

    def add_batch(batch: jax.Array, results: dict[str, jax.Array]) -> dict[str, jax.Array]:
        leaves = jaxpr_as_fun(traced)(jnp.asarray(batch, jnp.int32))
        batch_results = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
        return jax.tree.map(lambda filled, new: filled.at[batch].set(new), results, batch_results)

    empty = jax.tree.map(lambda s: jnp.zeros((batches, *s.shape), s.dtype), shapes)
    results = lax.fori_loop(0, -(-count // batch_size), add_batch, empty)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:total], results)
