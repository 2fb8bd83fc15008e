"""Passes over the images of a transfer that collect the statistics of a TSAR's regulation.

Regulation is collected while the network learns the images, as the release does, or of a network
whose weights are constant. Each pass is one compiled program: a scan over the images, whatever
their number, that holds counts, sums and bits alone. The synapses whose time lag counts depend on
the whole stream: they come from a first run of that program, and are counted in a second run of the
same program, which learns the same weights bit for bit.
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

MAX_COUNT = 2**31 - 1
"""Largest count that a histogram of int32 holds."""


class ImageStream(NamedTuple):
    """Images uint8 [T, H, W (, 3)] in the order of a transfer, and their labels [T]."""

    images: jax.Array
    labels: jax.Array


class LearnerSetup(NamedTuple):
    """A network's parameters before the first image, and Adam's learning rate in the transfer."""

    params: Any
    learning_rate: jax.Array


class PassSpec(NamedTuple):
    """The static description of a pass.

    network: the TSAR.
    normalise: maps images to its input.
    layers: the layers whose regulation is collected.
    lagged: the layer whose time lag is counted.
    classes: number of classes of the transfer.
    """

    network: TSAR
    normalise: Normalise
    layers: tuple[str, ...]
    lagged: str
    classes: int

    @property
    def co_active(self) -> tuple[str, ...]:
        """Layers whose firing is recorded, for their co-activity."""
        return tuple(layer for layer in CO_ACTIVE if layer in self.layers)


class Collected(NamedTuple):
    """Statistics that one pass collects.

    layers: statistics of every layer.
    lag: time lag of the lagged layer's synapses that count.
    bits: which synapses of a co-active layer fire in each image, uint8 [T, thresholds,
        ceil(S / 8)].
    """

    layers: dict[str, analysis.LayerStatistics]
    lag: analysis.LagHistogram
    bits: dict[str, jax.Array]


class OutputLayer(NamedTuple):
    """The output layer over a transfer.

    means: mean gates while each class is shown [classes shown, F, classes].
    weights: weights at the end [F, classes].
    accuracy: accuracy on the learned images at the end, in [0, 1].
    """

    means: jax.Array
    weights: jax.Array
    accuracy: jax.Array


def draw_image_stream(images: jax.Array, config: TransferConfig, key: jax.Array) -> ImageStream:
    """Draw classes in random order, and images of each in random order, as a transfer does.

    Args:
        images: uint8 [classes, per_class, H, W (, 3)].
        config: settings of the transfer.
    """
    class_key, image_key = jax.random.split(key)
    order = draw_without_replacement(class_key, images.shape[0], config.classes)
    rows = select_images(image_key, images.shape[:2], config, None).learn[order]
    drawn = images[order[:, None], rows]
    labels = jnp.repeat(jnp.arange(config.classes), config.learn)
    return ImageStream(drawn.reshape(-1, *images.shape[2:]), labels)


def check_countable(params: Any, layers: tuple[str, ...], stream: ImageStream) -> None:
    """Raise UserError where a histogram of all gates could pass its 32 bits."""
    synapses = max(params["regulator"][layer]["bias"].size for layer in layers)
    if synapses * stream.labels.size > MAX_COUNT:
        raise UserError(
            f"classes x learn is {stream.labels.size} images, but a layer of {synapses} synapses "
            f"can be counted over at most {MAX_COUNT // synapses}: lower classes or learn."
        )


def learn_and_fold(
    network: TSAR,
    normalise: Normalise,
    setup: LearnerSetup,
    stream: ImageStream,
    fold: analysis.Fold,
    state: Any,
) -> tuple[Any, Any]:
    """Learn the images one after another, as a transfer does, and fold their gates.

    Args:
        normalise: maps images to the network's input.
        fold: (state, gates {layer: [*kernel]}, label []) -> state, of the gates in the forward pass
            that the image's own update follows.
        state: the state before the first image.

    Returns:
        The parameters after the last update, and the state.
    """
    initial, learning_rate = setup
    plastic = mask(initial, TRANSFERRED["tsar"])
    depth = stored_stages(network, plastic)
    learner = adam_learner(network, plastic, learning_rate)

    def update(theta: Any, carry: Any, example: tuple[Any, jax.Array], key: Any) -> tuple[Any, Any]:
        """Fold an image's gates, then learn it."""
        learned, state = carry
        activations = jax.tree.map(lambda a: a[None], example[0])
        params = current_params(theta, plastic, learned)
        _, gates = run_stages(network, params, activations, depth, 2)
        state = fold(state, {name: gate["kernel"][0] for name, gate in gates.items()}, example[1])
        return (learner.update(theta, learned, example, key)[0], state), ()

    folding_learner = learner._replace(update=update)

    def learn_batch(carry: Any, batch: ImageStream) -> tuple[Any, None]:
        activations = run_stages(network, initial, normalise(batch.images), 0, depth)
        return unroll(folding_learner, initial, carry, (activations, batch.labels))[0], None

    first = learner.init(initial, None)
    (learned, state), _ = lax.scan(learn_batch, (first, state), analysis.in_batches(stream))
    return current_params(initial, plastic, learned), state


def _collector(
    spec: PassSpec, params: Any, images: int, counted: jax.Array
) -> tuple[analysis.Fold, Collected]:
    """Return a fold that collects what Collected holds, and its initial state.

    Args:
        images: number of images in the stream.
        counted: bool [S], the lagged layer's synapses whose time lag counts.
    """
    sizes = {layer: params["regulator"][layer]["bias"].size for layer in spec.layers}

    def fold(state: Collected, gates: analysis.Gates, label: jax.Array) -> Collected:
        flat = {layer: gates[layer].reshape(-1) for layer in spec.layers}
        row = state.lag.images
        bits = {
            layer: rows.at[row].set(jnp.packbits(analysis.firing(flat[layer]), axis=-1))
            for layer, rows in state.bits.items()
        }
        layers = {
            layer: analysis.add_gates(state.layers[layer], flat[layer], label)
            for layer in spec.layers
        }
        return Collected(layers, analysis.add_lag(state.lag, flat[spec.lagged], counted), bits)

    initial = Collected(
        {layer: analysis.init_statistics(spec.classes, sizes[layer]) for layer in spec.layers},
        analysis.init_lag(sizes[spec.lagged]),
        {
            layer: jnp.zeros((images, len(analysis.THRESHOLDS), -(-sizes[layer] // 8)), jnp.uint8)
            for layer in spec.co_active
        },
    )
    return fold, initial


@functools.partial(jax.jit, static_argnums=0)
def collect_frozen(
    spec: PassSpec, setup: LearnerSetup, stream: ImageStream, counted: jax.Array
) -> tuple[Collected, None]:
    """Collect the regulation of the network while its weights are constant.

    Args:
        counted: bool [S], the lagged layer's synapses whose time lag counts.
    """
    fold, initial = _collector(spec, setup.params, stream.labels.size, counted)
    network, params = spec.network, setup.params
    return analysis.fold_gates(network, params, *stream, spec.normalise, fold, initial), None


@functools.partial(jax.jit, static_argnums=0)
def collect_learning(
    spec: PassSpec, setup: LearnerSetup, stream: ImageStream, counted: jax.Array
) -> tuple[Collected, OutputLayer | None]:
    """Collect the regulation of the network while it learns.

    Args:
        counted: bool [S], the lagged layer's synapses whose time lag counts.

    Returns:
        The statistics, and the output layer; None where that is not regulated.
    """
    fold, initial = _collector(spec, setup.params, stream.labels.size, counted)
    after, collected = learn_and_fold(spec.network, spec.normalise, setup, stream, fold, initial)
    if "head" not in spec.layers:
        return collected, None
    means = class_means(collected.layers["head"])
    means = means.reshape(spec.classes, *after["head"]["kernel"].shape)
    return collected, _output_layer(spec, after, stream, means[..., : spec.classes])


@functools.partial(jax.jit, static_argnums=0)
def learn_then_show(spec: PassSpec, setup: LearnerSetup, stream: ImageStream) -> OutputLayer:
    """Learn the images, then show them again; return the output layer as it was the second time."""

    def fold(sums: jax.Array, gates: analysis.Gates, label: jax.Array) -> jax.Array:
        return sums.at[label].add(gates["head"][:, : spec.classes])

    def ignore(state: Any, gates: analysis.Gates, label: jax.Array) -> Any:
        return state

    network, normalise = spec.network, spec.normalise
    after, _ = learn_and_fold(network, normalise, setup, stream, ignore, ())
    features = after["head"]["kernel"].shape[0]
    sums = jnp.zeros((spec.classes, features, spec.classes))
    sums = analysis.fold_gates(network, after, *stream, normalise, fold, sums)
    return _output_layer(spec, after, stream, sums * spec.classes / stream.labels.size)


def _output_layer(spec: PassSpec, after: Any, stream: ImageStream, means: jax.Array) -> OutputLayer:
    """Return the output layer with its accuracy on the stream; after: the last parameters."""

    def correct(example: ImageStream) -> jax.Array:
        logits = run_stages(spec.network, after, spec.normalise(example.images[None]))
        return logits[0].argmax() == example.labels

    weights = after["head"]["kernel"][:, : spec.classes]
    return OutputLayer(means, weights, lax.map(correct, stream).mean())


def class_means(statistics: analysis.LayerStatistics) -> jax.Array:
    """Return the mean gate of each synapse in each class [classes, S]."""
    return statistics.class_sums / statistics.class_counts[:, None]


Collect = Callable[
    [PassSpec, LearnerSetup, ImageStream, jax.Array], tuple[Collected, OutputLayer | None]
]


def collect_twice(
    collect: Collect, spec: PassSpec, setup: LearnerSetup, stream: ImageStream
) -> tuple[Collected, OutputLayer | None, np.ndarray]:
    """Run `collect_frozen` or `collect_learning` without a time lag, then with it.

    Returns:
        The statistics and the output layer of the second run, and the lagged layer's synapses
        whose time lag it counts, bool [S]: those `between_percentiles` by their mean regulation in
        the first run.
    """
    synapses = setup.params["regulator"][spec.lagged]["bias"].size
    first, _ = collect(spec, setup, stream, jnp.zeros(synapses, bool))
    means = np.asarray(class_means(first.layers[spec.lagged]).mean(0))
    counted = analysis.between_percentiles(means)
    del first  # 140 MB at full width
    collected, output = collect(spec, setup, stream, jnp.asarray(counted))
    return collected, output, counted
