"""Statistics of a TSAR's regulation: histograms, avalanches, ranks, time lags, output weights.

Beaulieu, Clune and Cheney (2021), arXiv 2108.12056. A layer has as many gates per image as
weights (112,896 at full width), so nothing here holds the gates of all images: each analysis is
a fold over the stream of images, `state, gates -> state`, on the device.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.networks import TSAR, run_stages
from tsar_jax.ops.products import largest_divisor

Params = Any
Gates = dict[str, jax.Array]
Fold = Callable[[Any, Gates, jax.Array], Any]
Stream = TypeVar("Stream")

BATCH = 16
"""Largest number of images whose gates are computed together, so that the regulator is read once
for them."""
BINS = 1000
"""Bins of a histogram of gates, from 0 to 1."""
AVALANCHE_BINS = 2000
"""Bins of a histogram of the share of synapses above a threshold, from 0 to 1."""
THRESHOLDS = (0.10, 0.25, 0.50)
"""Gates above which a synapse fires."""
RANK_BINS = 100
"""Bins of log10 ranks, from 0 to log10 of the number of synapses."""
LAG_BINS = 250
"""Bins of gates at one image and at the next, from 0 to 1."""
BEFORE, AFTER = 5, 10
"""Number of classes before and after a class with which its output weights' regulation is
compared."""


def fold_gates(
    network: TSAR,
    params: Params,
    images: jax.Array,
    labels: jax.Array,
    normalise: Callable[[jax.Array], jax.Array],
    fold: Fold,
    state: Any,
) -> Any:
    """Return the state after folding the gates of every image in order.

    Gates are computed for a few images at a time, so that the regulator is read once for them.

    Args:
        images: uint8 [T, ...].
        labels: [T].
        normalise: maps images to the network's input.
        fold: (state, gates {layer: [*kernel]}, label []) -> state.
        state: the state before the first image.
    """

    def fold_one(state: Any, example: tuple[Gates, jax.Array]) -> tuple[Any, None]:
        return fold(state, *example), None

    def fold_batch(state: Any, batch: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        batch_images, batch_labels = batch
        _, gates = run_stages(network, params, normalise(batch_images), 0, 2)
        kernels = {name: gate["kernel"] for name, gate in gates.items()}
        return lax.scan(fold_one, state, (kernels, batch_labels))

    return lax.scan(fold_batch, state, in_batches((images, labels)))[0]


def in_batches(stream: Stream) -> Stream:
    """Split the leading axis [T] of every array into [batches, up to BATCH]."""
    size = largest_divisor(jax.tree.leaves(stream)[0].shape[0], BATCH)
    return jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), stream)


def histogram(values: jax.Array, bins: int, weights: jax.Array | None = None) -> jax.Array:
    """Return the counts int32 [bins] of values in [0, 1]; 1 belongs to the last bin.

    Args:
        weights: number of times that each value counts, of the same shape. None: once.
    """
    index = jnp.clip((values * bins).astype(jnp.int32), 0, bins - 1).reshape(-1)
    ones = jnp.ones_like(index) if weights is None else weights.reshape(-1).astype(jnp.int32)
    return jnp.zeros(bins, jnp.int32).at[index].add(ones)


class LayerStatistics(NamedTuple):
    """Statistics of a layer's S gates over images.

    regulation: histogram of all gates [BINS].
    avalanches: histogram of the share of synapses above a threshold in an image [thresholds,
        AVALANCHE_BINS].
    class_sums: sum of each gate over a class's images [classes, S].
    class_counts: images of a class [classes].
    fired: images in which a synapse is above a threshold [thresholds, S].
    """

    regulation: jax.Array
    avalanches: jax.Array
    class_sums: jax.Array
    class_counts: jax.Array
    fired: jax.Array


def init_statistics(classes: int, synapses: int) -> LayerStatistics:
    """Return the statistics before the first image."""
    return LayerStatistics(
        jnp.zeros(BINS, jnp.int32),
        jnp.zeros((len(THRESHOLDS), AVALANCHE_BINS), jnp.int32),
        jnp.zeros((classes, synapses)),
        jnp.zeros(classes, jnp.int32),
        jnp.zeros((len(THRESHOLDS), synapses), jnp.int32),
    )


def add_gates(state: LayerStatistics, gates: jax.Array, label: jax.Array) -> LayerStatistics:
    """Return the statistics with one image's gates [S] added."""
    chex.assert_shape(gates, state.fired.shape[1:])
    above = firing(gates)
    shares = above.mean(1)
    return LayerStatistics(
        state.regulation + histogram(gates, BINS),
        state.avalanches + jax.vmap(lambda s: histogram(s[None], AVALANCHE_BINS))(shares),
        state.class_sums.at[label].add(gates),
        state.class_counts.at[label].add(1),
        state.fired + above,
    )


def firing(gates: jax.Array) -> jax.Array:
    """Return which gates [S] are above each threshold: bool [thresholds, S]."""
    return gates > jnp.array(THRESHOLDS)[:, None]


def bin_centres(bins: int) -> np.ndarray:
    """Return the centres of equal bins of [0, 1]."""
    return (np.arange(bins) + 0.5) / bins


def ranks(values: jax.Array) -> jax.Array:
    """Return the rank of each value, 1 for the largest; the first of equals ranks first."""
    order = jnp.argsort(values, descending=True, stable=True)
    return jnp.zeros(values.size, jnp.int32).at[order].set(jnp.arange(1, values.size + 1))


def rank_rank(class_means: jax.Array) -> jax.Array:
    """Return a histogram of synapses' log10 ranks in one class, against those over the others.

    Args:
        class_means: mean gate of each synapse in each class [classes, S].

    Returns:
        Counts [RANK_BINS, RANK_BINS], summed over classes: rows are ranks in the class, columns
        those of the mean over all others; bins divide 0 .. log10 S equally.
    """
    classes, synapses = class_means.shape
    total = class_means.sum(0)
    span = jnp.log10(jnp.float32(synapses))

    def bins(values: jax.Array) -> jax.Array:
        scaled = jnp.log10(ranks(values).astype(jnp.float32)) / jnp.maximum(span, 1e-6)
        return jnp.clip((scaled * RANK_BINS).astype(jnp.int32), 0, RANK_BINS - 1)

    def add(counts: jax.Array, own: jax.Array) -> tuple[jax.Array, None]:
        others = (total - own) / max(classes - 1, 1)
        return counts.at[bins(own), bins(others)].add(1), None

    empty = jnp.zeros((RANK_BINS, RANK_BINS), jnp.int32)
    return lax.scan(add, empty, class_means)[0]


class LagHistogram(NamedTuple):
    """Histogram of gates at one image and at the next.

    counts: [LAG_BINS, LAG_BINS], rows being gates at image t - 1 and columns those at t.
    last: gates at the last image [S].
    images: images so far, int32 [].
    """

    counts: jax.Array
    last: jax.Array
    images: jax.Array


def init_lag(synapses: int) -> LagHistogram:
    """Return the histogram before the first image."""
    return LagHistogram(
        jnp.zeros((LAG_BINS, LAG_BINS), jnp.int32), jnp.zeros(synapses), jnp.zeros((), jnp.int32)
    )


def add_lag(state: LagHistogram, gates: jax.Array, counted: jax.Array) -> LagHistogram:
    """Return the histogram with one image's gates [S] added.

    Args:
        counted: bool [S], the synapses that count.
    """

    def index(values: jax.Array) -> jax.Array:
        return jnp.clip((values * LAG_BINS).astype(jnp.int32), 0, LAG_BINS - 1)

    increments = (counted & (state.images > 0)).astype(jnp.int32)
    counts = state.counts.at[index(state.last), index(gates)].add(increments)
    return LagHistogram(counts, gates, state.images + 1)


def between_percentiles(means: np.ndarray, low: float = 75, high: float = 99) -> np.ndarray:
    """Return which synapses' mean gates lie between two percentiles, bool [S].

    By default these synapses are neither silent nor always open.

    Args:
        means: mean gates [S].
    """
    lower, upper = np.percentile(means, [low, high])
    return (means >= lower) & (means <= upper)


class OutputRegulation(NamedTuple):
    """Mean regulation of each output unit's weights while each class is shown.

    Classes are in the order of learning, unit i being that of class i.

    positive, negative: mean over the unit's positive and negative weights [classes shown, units];
        NaN where a unit has none.
    """

    positive: np.ndarray
    negative: np.ndarray


def regulation_by_sign(class_means: np.ndarray, weights: np.ndarray) -> OutputRegulation:
    """Return the mean regulation of each unit's positive and negative weights.

    Args:
        class_means: mean gates of the output layer [classes shown, F, units].
        weights: the output layer's [F, units].
    """

    def mean_over(counted: np.ndarray) -> np.ndarray:
        total = np.einsum("sfu,fu->su", class_means, counted, dtype=np.float64)
        with np.errstate(invalid="ignore"):  # 0 / 0 where a unit has no such weight
            return total / counted.sum(0)

    return OutputRegulation(mean_over(weights > 0), mean_over(weights < 0))


def output_windows(regulation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean regulation of each class's own unit before, during and after the class.

    Args:
        regulation: [classes shown, units], as `OutputRegulation` holds it.

    Returns:
        Three arrays [classes - 2], for every class but the first and the last: the mean over the
        BEFORE classes before it, the value during it, and the mean over the AFTER classes after it.
        Windows are shorter at the ends of the stream.
    """
    units = range(1, len(regulation) - 1)
    before = [regulation[max(unit - BEFORE, 0) : unit, unit].mean() for unit in units]
    during = [regulation[unit, unit] for unit in units]
    after = [regulation[unit + 1 : unit + 1 + AFTER, unit].mean() for unit in units]
    return np.array(before), np.array(during), np.array(after)


def output_changes(regulation: OutputRegulation) -> dict[str, np.ndarray]:
    """Return how the regulation of a class's own output weights changes while it is shown.

    Returns:
        Relative changes during / before - 1 and during / after - 1 of `output_windows`:
        {"before, positive": [classes - 2], ...}.
    """
    changes = {}
    for sign, values in regulation._asdict().items():
        before, during, after = output_windows(values)
        with np.errstate(divide="ignore", invalid="ignore"):
            changes[f"before, {sign}"] = during / before - 1
            changes[f"after, {sign}"] = during / after - 1
    return changes


def output_profile(regulation: np.ndarray) -> np.ndarray:
    """Return each unit's regulation around its class, relative to the BEFORE classes before it.

    Args:
        regulation: [classes shown, units], as `OutputRegulation` holds it.

    Returns:
        Relative changes [classes - 2, BEFORE + 1 + AFTER] for every class but the first and the
        last; column BEFORE is the class itself. NaN beyond the ends of the stream.
    """
    classes = len(regulation)
    before, _, _ = output_windows(regulation)
    profile = np.full((max(classes - 2, 0), BEFORE + 1 + AFTER), np.nan)
    for row, unit in enumerate(range(1, classes - 1)):
        first, last = max(unit - BEFORE, 0), min(unit + AFTER, classes - 1)
        columns = slice(first - unit + BEFORE, last - unit + BEFORE + 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            profile[row, columns] = regulation[first : last + 1, unit] / before[row] - 1
    return profile
