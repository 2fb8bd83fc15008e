"""Passes over the images of a transfer that collect what the analyses of a TSAR show.

Regulation is watched while the network learns the images, as the release does, or of a network
that stays as it is. Each is one compiled program: a scan over the images, whatever their number,
that holds counts, sums and bits alone. What depends on the whole stream (the synapses whose time
lag counts) comes from a first run of that program, and is counted in a second run of the same
program, which learns the same weights bit for bit.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.data.episodes import draw_without_replacement
from tsar_jax.errors import UserError
from tsar_jax.networks import TSAR, run_stages, stored_stages
from tsar_jax.plasticity.gradient_learner import current_params
from tsar_jax.plasticity.learner import unroll
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.episodic.analysis import regulation as analysis
from tsar_jax.systems.episodic.meta_test_lifetime import adam_learner
from tsar_jax.systems.episodic.transfer import TransferConfig, select_images
from tsar_jax.systems.episodic.tsar import TRANSFERRED

Normalise = Callable[[jax.Array], jax.Array]

CO_ACTIVE = ("block_1", "block_2")
"""Layers whose synapses are compared: the second and third convolution."""

COUNTABLE = 2**31 - 1


class Shown(NamedTuple):
    """Images uint8 [T, H, W (, 3)] in the order of a transfer, and labels [T] in that order."""

    images: jax.Array
    labels: jax.Array


class Subject(NamedTuple):
    """A network's parameters before the first image, and Adam's learning rate in the transfer."""

    params: Any
    rate: jax.Array


class Plan(NamedTuple):
    """What is watched.

    network: the TSAR. normalise: its images. layers: those collected. lagged: the layer whose
    time lag is counted. classes: of the transfer.
    """

    network: TSAR
    normalise: Normalise
    layers: tuple[str, ...]
    lagged: str
    classes: int

    @property
    def co_active(self) -> tuple[str, ...]:
        """The layers whose firing is kept for their co-activity."""
        return tuple(layer for layer in CO_ACTIVE if layer in self.layers)


class Collected(NamedTuple):
    """What one pass collects.

    layers: by layer. lag: of chosen synapses of the lagged layer. bits: of each co-active layer,
    which of its S synapses fire in each image, uint8 [T, thresholds, ceil(S / 8)].
    """

    layers: dict[str, analysis.FirstPass]
    lag: analysis.Lag
    bits: dict[str, jax.Array]


class OutputLayer(NamedTuple):
    """The output layer over a transfer.

    means [classes shown, F, classes]: mean gates. weights [F, classes], and accuracy on the
    images learned: at the end.
    """

    means: jax.Array
    weights: jax.Array
    accuracy: jax.Array


def draw_images(images: jax.Array, protocol: TransferConfig, key: jax.Array) -> Shown:
    """Classes in random order, images of each in random order, as a transfer learns them."""
    class_key, image_key = jax.random.split(key)
    order = draw_without_replacement(class_key, images.shape[0], protocol.classes)
    rows = select_images(image_key, images.shape[:2], protocol, None).learn[order]
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


def learn_and_fold(
    network: TSAR,
    normalise: Normalise,
    subject: Subject,
    shown: Shown,
    fold: analysis.Fold,
    state: Any,
) -> tuple[Any, Any]:
    """Learn the images one after another, as a transfer does, and fold their gates.

    fold(state, gates, label) sees an image's gates {layer: [*kernel]} in the forward pass that
    the image's own update follows.

    Returns:
        The parameters after the last update, and the state.
    """
    start, rate = subject
    plastic = mask(start, TRANSFERRED["tsar"])
    depth = stored_stages(network, plastic)
    learner = adam_learner(network, plastic, rate)

    def update(theta: Any, carry: Any, example: tuple[Any, jax.Array], key: Any) -> tuple[Any, Any]:
        """Fold an image's gates, then learn it."""
        learned, state = carry
        signal = jax.tree.map(lambda s: s[None], example[0])
        params = current_params(theta, plastic, learned)
        _, gates = run_stages(network, params, signal, depth, 2)
        state = fold(state, {name: gate["kernel"][0] for name, gate in gates.items()}, example[1])
        return (learner.update(theta, learned, example, key)[0], state), ()

    watched = learner._replace(update=update)

    def see_batch(carry: Any, batch: Shown) -> tuple[Any, None]:
        signals = run_stages(network, start, normalise(batch.images), 0, depth)
        return unroll(watched, start, carry, (signals, batch.labels))[0], None

    first = learner.init(start, None)
    (learned, state), _ = lax.scan(see_batch, (first, state), analysis.in_batches(shown))
    return current_params(start, plastic, learned), state


def _collector(
    plan: Plan, params: Any, images: int, chosen: jax.Array
) -> tuple[analysis.Fold, Collected]:
    """A fold that collects all that Collected holds, and the state it begins with."""
    sizes = {layer: params["regulator"][layer]["bias"].size for layer in plan.layers}

    def fold(state: Collected, gates: analysis.Gates, label: jax.Array) -> Collected:
        flat = {layer: gates[layer].reshape(-1) for layer in plan.layers}
        bits = {
            layer: kept.at[state.lag.seen].set(jnp.packbits(analysis.firing(flat[layer]), axis=-1))
            for layer, kept in state.bits.items()
        }
        layers = {
            layer: analysis.collect(state.layers[layer], flat[layer], label)
            for layer in plan.layers
        }
        return Collected(layers, analysis.add_lag(state.lag, flat[plan.lagged], chosen), bits)

    start = Collected(
        {layer: analysis.first_pass(plan.classes, sizes[layer]) for layer in plan.layers},
        analysis.lag_start(sizes[plan.lagged]),
        {
            layer: jnp.zeros((images, len(analysis.THRESHOLDS), -(-sizes[layer] // 8)), jnp.uint8)
            for layer in plan.co_active
        },
    )
    return fold, start


@functools.partial(jax.jit, static_argnums=0)
def collect_frozen(
    plan: Plan, subject: Subject, shown: Shown, chosen: jax.Array
) -> tuple[Collected, None]:
    """Collect the regulation of the network as it is; chosen [S]: whose time lag counts."""
    fold, start = _collector(plan, subject.params, shown.labels.size, chosen)
    network, params = plan.network, subject.params
    return analysis.fold_gates(network, params, *shown, plan.normalise, fold, start), None


@functools.partial(jax.jit, static_argnums=0)
def collect_learning(
    plan: Plan, subject: Subject, shown: Shown, chosen: jax.Array
) -> tuple[Collected, OutputLayer | None]:
    """Collect regulation while the network learns; also its output layer, where regulated."""
    fold, start = _collector(plan, subject.params, shown.labels.size, chosen)
    after, found = learn_and_fold(plan.network, plan.normalise, subject, shown, fold, start)
    if "head" not in plan.layers:
        return found, None
    means = class_means(found.layers["head"]).reshape(plan.classes, *after["head"]["kernel"].shape)
    return found, _output_layer(plan, after, shown, means[..., : plan.classes])


@functools.partial(jax.jit, static_argnums=0)
def learn_and_look(plan: Plan, subject: Subject, shown: Shown) -> OutputLayer:
    """Learn the images, then show them again and look at the output layer as it has become."""

    def fold(sums: jax.Array, gates: analysis.Gates, label: jax.Array) -> jax.Array:
        return sums.at[label].add(gates["head"][:, : plan.classes])

    def unseen(state: Any, gates: analysis.Gates, label: jax.Array) -> Any:
        return state

    network, normalise = plan.network, plan.normalise
    after, _ = learn_and_fold(network, normalise, subject, shown, unseen, ())
    features = after["head"]["kernel"].shape[0]
    sums = jnp.zeros((plan.classes, features, plan.classes))
    sums = analysis.fold_gates(network, after, *shown, normalise, fold, sums)
    return _output_layer(plan, after, shown, sums * plan.classes / shown.labels.size)


def _output_layer(plan: Plan, after: Any, shown: Shown, means: jax.Array) -> OutputLayer:
    def correct(moment: Shown) -> jax.Array:
        logits = run_stages(plan.network, after, plan.normalise(moment.images[None]))
        return logits[0].argmax() == moment.labels

    weights = after["head"]["kernel"][:, : plan.classes]
    return OutputLayer(means, weights, lax.map(correct, shown).mean())


def class_means(found: analysis.FirstPass) -> jax.Array:
    """Mean gate of each synapse in each class: [classes, S]."""
    return found.class_sums / found.class_counts[:, None]


Collect = Callable[[Plan, Subject, Shown, jax.Array], tuple[Collected, OutputLayer | None]]


def collect_twice(
    collect: Collect, plan: Plan, subject: Subject, shown: Shown
) -> tuple[Collected, OutputLayer | None, np.ndarray]:
    """Run `collect_frozen` or `collect_learning` without a time lag, then with it.

    Returns:
        What the second run collected, and which synapses [S] of the lagged layer its time lag
        counts: those of middling mean regulation in the first run.
    """
    synapses = subject.params["regulator"][plan.lagged]["bias"].size
    first, _ = collect(plan, subject, shown, jnp.zeros(synapses, bool))
    chosen = analysis.middling(np.asarray(class_means(first.layers[plan.lagged]).mean(0)))
    del first  # 140 MB at full width
    found, output = collect(plan, subject, shown, jnp.asarray(chosen))
    return found, output, chosen
