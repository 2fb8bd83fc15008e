"""Passes over the images of a transfer that collect what the analyses of a TSAR show.

Each is one compiled program: a scan over the images, whatever their number, that holds counts and
sums alone.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.analysis import regulation as analysis
from tsar_jax.data.episodes import draw_without_replacement
from tsar_jax.errors import UserError
from tsar_jax.evaluation.meta_test import learner
from tsar_jax.evaluation.transfer import TransferConfig, fresh_output, select
from tsar_jax.models import TSAR, run_levels, stored_levels
from tsar_jax.plasticity.masks import combine, mask, partition
from tsar_jax.systems.tsar import TRANSFERRED

Normalise = Callable[[jax.Array], jax.Array]

CO_ACTIVE = ("block_1", "block_2")
"""Layers whose synapses are compared: the second and third convolution."""

FIRING = analysis.THRESHOLDS[1]
"""A synapse fires where its regulation is higher."""

COUNTABLE = 2**31 - 1


class Shown(NamedTuple):
    """Images uint8 [T, H, W (, 3)] in the order of a transfer, and labels [T] in that order."""

    images: jax.Array
    labels: jax.Array


def draw_images(images: jax.Array, protocol: TransferConfig, key: jax.Array) -> Shown:
    """Classes in random order, images of each in random order, as a transfer learns them."""
    class_key, image_key = jax.random.split(key)
    order = draw_without_replacement(class_key, images.shape[0], protocol.classes)
    rows = select(image_key, images.shape[:2], protocol, None).learn[order]
    chosen = images[order[:, None], rows]
    labels = jnp.repeat(jnp.arange(protocol.classes), protocol.learn)
    return Shown(chosen.reshape(-1, *images.shape[2:]), labels)


def check_countable(params: Any, layers: tuple[str, ...], shown: Shown) -> None:
    """Raises UserError where a histogram of all gates could pass its 32 bits."""
    synapses = max(params["regulator"][layer]["bias"].size for layer in layers)
    if synapses * shown.labels.size > COUNTABLE:
        raise UserError(
            f"classes x learn is {shown.labels.size} images, but a layer of {synapses} synapses "
            f"can be counted over at most {COUNTABLE // synapses}: lower classes or learn."
        )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def collect_layers(
    network: TSAR,
    normalise: Normalise,
    layers: tuple[str, ...],
    classes: int,
    params: Any,
    shown: Shown,
) -> dict[str, analysis.FirstPass]:
    """The first pass over the images, by layer."""

    def fold(state: Any, gates: analysis.Gates, label: jax.Array) -> Any:
        return {
            layer: analysis.collect(state[layer], gates[layer].reshape(-1), label)
            for layer in layers
        }

    start = {
        layer: analysis.first_pass(classes, params["regulator"][layer]["bias"].size)
        for layer in layers
    }
    return analysis.fold_gates(network, params, *shown, normalise, fold, start)


def class_means(found: analysis.FirstPass) -> jax.Array:
    """Mean gate of each synapse in each class: [classes, S]."""
    return found.class_sums / found.class_counts[:, None]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def count_lag(
    network: TSAR, normalise: Normalise, layer: str, params: Any, shown: Shown, chosen: jax.Array
) -> jax.Array:
    """A second pass: regulation of chosen synapses [S] at image t - 1 and t, [bins, bins]."""

    def fold(state: analysis.Lag, gates: analysis.Gates, label: jax.Array) -> analysis.Lag:
        return analysis.add_lag(state, gates[layer].reshape(-1), chosen)

    start = analysis.lag_start(chosen.size)
    return analysis.fold_gates(network, params, *shown, normalise, fold, start).counts


@functools.partial(jax.jit, static_argnums=(0, 1))
def count_co_activity(
    network: TSAR,
    normalise: Normalise,
    params: Any,
    shown: Shown,
    first: jax.Array,
    second: jax.Array,
) -> jax.Array:
    """A second pass: images in which two synapses fire, [A, B]. first [A], second [B]: indices."""

    def fold(counts: jax.Array, gates: analysis.Gates, label: jax.Array) -> jax.Array:
        one, two = (gates[layer].reshape(-1) for layer in CO_ACTIVE)
        return analysis.count_together(counts, one[first], two[second], FIRING)

    start = jnp.zeros((first.size, second.size))
    return analysis.fold_gates(network, params, *shown, normalise, fold, start)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def learn_and_look(
    network: TSAR,
    normalise: Normalise,
    protocol: TransferConfig,
    params: Any,
    shown: Shown,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Transfer, then look at the output layer once more.

    Returns its mean gates [classes shown, F, classes], its weights [F, classes], and the accuracy
    on the images learned.
    """
    start = fresh_output(network, params, protocol.head_bias, key)
    plastic = mask(start, TRANSFERRED["tsar"])
    depth = stored_levels(network, plastic)
    first, learn = learner(network, start, plastic, protocol.rates[0])

    def learn_image(learned: Any, moment: Shown) -> tuple[Any, jax.Array]:
        signals = run_levels(network, start, normalise(moment.images[None]), 0, depth)
        return learn(learned, (jax.tree.map(lambda s: s[0], signals), moment.labels))

    def correct(moment: Shown) -> jax.Array:
        logits = run_levels(network, after, normalise(moment.images[None]))
        return logits[0].argmax() == moment.labels

    def fold(sums: jax.Array, gates: analysis.Gates, label: jax.Array) -> jax.Array:
        return sums.at[label].add(gates["head"][:, : protocol.classes])

    learned, _ = lax.scan(learn_image, first, shown)
    after = combine(learned.params, partition(start, plastic)[1])
    weights = after["head"]["kernel"][:, : protocol.classes]
    sums = jnp.zeros((protocol.classes, *weights.shape))
    sums = analysis.fold_gates(network, after, *shown, normalise, fold, sums)
    return sums / protocol.learn, weights, lax.map(correct, shown).mean()
