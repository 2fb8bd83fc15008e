"""How a TSAR regulates its synapses: histograms, avalanches, ranks, co-activity, time lags.

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
Moments = TypeVar("Moments")

TOGETHER = 16
BINS = 1000
AVALANCHE_BINS = 2000
THRESHOLDS = (0.10, 0.25, 0.50)
RANK_BINS = 100
LAG_BINS = 250
BEFORE, AFTER = 5, 10
"""How many classes before and after a class its output weights' regulation is compared with."""


def fold_gates(
    network: TSAR,
    params: Params,
    images: jax.Array,
    labels: jax.Array,
    normalise: Callable[[jax.Array], jax.Array],
    fold: Fold,
    state: Any,
) -> Any:
    """fold(state, gates, label) over images uint8 [T, ...] in order; gates {layer: [*kernel]}.

    Gates are computed for a few images at a time, so that the regulator is read once for them.
    """

    def look(state: Any, moment: tuple[Gates, jax.Array]) -> tuple[Any, None]:
        return fold(state, *moment), None

    def step(state: Any, moments: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        few, their_labels = moments
        _, gates = run_stages(network, params, normalise(few), 0, 2)
        kernels = {name: gate["kernel"] for name, gate in gates.items()}
        return lax.scan(look, state, (kernels, their_labels))

    return lax.scan(step, state, in_batches((images, labels)))[0]


def in_batches(moments: Moments) -> Moments:
    """Split the leading axis [T] of every array into [batches, up to TOGETHER]."""
    size = largest_divisor(jax.tree.leaves(moments)[0].shape[0], TOGETHER)
    return jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), moments)


def histogram(values: jax.Array, bins: int, weights: jax.Array | None = None) -> jax.Array:
    """Counts [bins] of values within 0..1; 1 belongs to the last bin."""
    index = jnp.clip((values * bins).astype(jnp.int32), 0, bins - 1).reshape(-1)
    ones = jnp.ones_like(index) if weights is None else weights.reshape(-1).astype(jnp.int32)
    return jnp.zeros(bins, jnp.int32).at[index].add(ones)


class FirstPass(NamedTuple):
    """What one pass over the images collects of a layer with S synapses.

    regulation [BINS]: histogram of all gates. avalanches [thresholds, AVALANCHE_BINS]: histogram
    of how many synapses, as a share of all, are above a threshold in an image. class_sums
    [classes, S], class_counts [classes]. fired [thresholds, S]: images in which a synapse is
    above a threshold.
    """

    regulation: jax.Array
    avalanches: jax.Array
    class_sums: jax.Array
    class_counts: jax.Array
    fired: jax.Array


def first_pass(classes: int, synapses: int) -> FirstPass:
    """Nothing collected yet."""
    return FirstPass(
        jnp.zeros(BINS, jnp.int32),
        jnp.zeros((len(THRESHOLDS), AVALANCHE_BINS), jnp.int32),
        jnp.zeros((classes, synapses)),
        jnp.zeros(classes, jnp.int32),
        jnp.zeros((len(THRESHOLDS), synapses), jnp.int32),
    )


def collect(state: FirstPass, gates: jax.Array, label: jax.Array) -> FirstPass:
    """Add one image's gates [S]."""
    chex.assert_shape(gates, state.fired.shape[1:])
    above = firing(gates)
    shares = above.mean(1)
    return FirstPass(
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
    """Middles of `bins` equal bins of 0..1."""
    return (np.arange(bins) + 0.5) / bins


def ranks(values: jax.Array) -> jax.Array:
    """Rank of each value, 1 for the largest; the first of equals ranks first."""
    order = jnp.argsort(values, descending=True, stable=True)
    return jnp.zeros(values.size, jnp.int32).at[order].set(jnp.arange(1, values.size + 1))


def rank_rank(class_means: jax.Array) -> jax.Array:
    """Histogram of log10 ranks [RANK_BINS, RANK_BINS]: in one class, against all other classes.

    class_means [classes, S]: mean gate of each synapse in each class. Summed over classes; the
    bins divide 0 .. log10 S equally.
    """
    classes, synapses = class_means.shape
    total = class_means.sum(0)
    span = jnp.log10(jnp.float32(synapses))

    def bins(values: jax.Array) -> jax.Array:
        share = jnp.log10(ranks(values).astype(jnp.float32)) / jnp.maximum(span, 1e-6)
        return jnp.clip((share * RANK_BINS).astype(jnp.int32), 0, RANK_BINS - 1)

    def add(counts: jax.Array, own: jax.Array) -> tuple[jax.Array, None]:
        others = (total - own) / max(classes - 1, 1)
        return counts.at[bins(own), bins(others)].add(1), None

    empty = jnp.zeros((RANK_BINS, RANK_BINS), jnp.int32)
    return lax.scan(add, empty, class_means)[0]


class Lag(NamedTuple):
    """Histogram [LAG_BINS, LAG_BINS] of gates at image t - 1 (rows) and t, and the last gates."""

    counts: jax.Array
    last: jax.Array
    seen: jax.Array


def lag_start(synapses: int) -> Lag:
    """No image yet."""
    return Lag(
        jnp.zeros((LAG_BINS, LAG_BINS), jnp.int32), jnp.zeros(synapses), jnp.zeros((), jnp.int32)
    )


def add_lag(state: Lag, gates: jax.Array, chosen: jax.Array) -> Lag:
    """Add one image's gates [S]; chosen [S]: which synapses count."""

    def index(values: jax.Array) -> jax.Array:
        return jnp.clip((values * LAG_BINS).astype(jnp.int32), 0, LAG_BINS - 1)

    counts = (chosen & (state.seen > 0)).astype(jnp.int32)
    histogram = state.counts.at[index(state.last), index(gates)].add(counts)
    return Lag(histogram, gates, state.seen + 1)


def middling(means: np.ndarray, low: float = 75, high: float = 99) -> np.ndarray:
    """Which synapses' mean gates lie between two percentiles: neither silent nor always open."""
    lower, upper = np.percentile(means, [low, high])
    return (means >= lower) & (means <= upper)


class OutputRegulation(NamedTuple):
    """Mean regulation of each output unit's weights while each class is shown.

    positive, negative: [classes shown, units], over the unit's positive and negative weights;
    classes in the order of learning, unit i being that of class i. NaN where a unit has none.
    """

    positive: np.ndarray
    negative: np.ndarray


def by_sign(class_means: np.ndarray, weights: np.ndarray) -> OutputRegulation:
    """Return the mean regulation of each unit's positive and negative weights.

    Args:
        class_means: mean gates of the output layer [classes, F, classes]: shown, feature, unit.
        weights: [F, classes].
    """

    def mean_over(chosen: np.ndarray) -> np.ndarray:
        total = np.einsum("sfu,fu->su", class_means, chosen, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            return total / chosen.sum(0)

    return OutputRegulation(mean_over(weights > 0), mean_over(weights < 0))


def output_windows(regulation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean regulation of each class's own unit before, during and after it.

    Args:
        regulation: [classes shown, units], as `OutputRegulation` holds it.

    Returns:
        Three arrays [classes - 2], of every class but the first and the last: the mean over the
        BEFORE classes before it, itself, and the mean over the AFTER classes after it. Windows
        are shorter at the ends of the stream.
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
        Relative changes [classes - 2, BEFORE + 1 + AFTER] of every class but the first and the
        last; column BEFORE is the class itself. NaN beyond the ends of the stream.
    """
    classes = len(regulation)
    before, _, _ = output_windows(regulation)
    profile = np.full((max(classes - 2, 0), BEFORE + 1 + AFTER), np.nan)
    for row, unit in enumerate(range(1, classes - 1)):
        first, last = max(unit - BEFORE, 0), min(unit + AFTER, classes - 1)
        shown = slice(first - unit + BEFORE, last - unit + BEFORE + 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            profile[row, shown] = regulation[first : last + 1, unit] / before[row] - 1
    return profile
