"""Co-activity of a TSAR's synapses, over all pairs of them, in bounded memory.

At full width a layer has 112,896 synapses, 6e9 pairs of them. Which fired in which image is stored
as bits, [images, synapses / 8] bytes; joint counts are products of binary matrices, a block of
synapses against another, and only the histogram of the pairs' information outlives a block.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.systems.episodic.analysis.regulation import histogram

BINS = 2000
"""Bins of a histogram of information, from 0 to 1."""
BLOCK = 2048
"""Largest side of a block of pairs, a power of two: it bounds the memory of joint counts to
16 MiB."""
OFTEN = 0.01
"""Share of the images above which a synapse fires often enough to count."""


def fires_often(fired: np.ndarray, images: int) -> np.ndarray:
    """Return the indices of synapses that fire on more than OFTEN of the images.

    Args:
        fired: number of images in which each synapse fires [S].
        images: number of all images.
    """
    return np.flatnonzero(fired > OFTEN * images)


def normalised_mutual_information(
    joint: jax.Array, first: jax.Array, second: jax.Array, images: int
) -> jax.Array:
    """Return the normalised pointwise mutual information of firing together, clipped at 0.

    It is log(p(x, y) / (p(x) p(y))) / -log p(x, y) (Bouma 2009), 1 where two always fire together.

    Args:
        joint: images in which both of two synapses fire, float [A, B].
        first, second: images in which each fires, float [A] and [B].
        images: number of all images.

    Returns:
        Float [A, B], in [0, 1].
    """
    # One division and one logarithm of counts that float32 holds: differences of logarithms would
    # lose most digits where synapses fire on nearly all images.
    shared = jnp.maximum(joint, 1)
    information = jnp.log(shared * images / jnp.maximum(first[:, None] * second[None], 1))
    value = jnp.where(joint < images, information / jnp.log(images / shared), 1.0)
    return jnp.clip(jnp.where(joint > 0, value, 0.0), 0.0, 1.0)


def fired_in(bits: jax.Array, synapses: jax.Array) -> jax.Array:
    """Return whether synapses [B] fired in each image: float32 [T, B], 0 or 1.

    Args:
        bits: uint8 [T, ceil(S / 8)], as `jnp.packbits` packs [T, S].
        synapses: indices [B].
    """
    return ((bits[:, synapses // 8] >> (7 - synapses % 8).astype(jnp.uint8)) & 1).astype(
        jnp.float32
    )


@functools.partial(jax.jit, static_argnums=4)
def _count_block(
    bits: tuple[jax.Array, jax.Array],
    synapses: tuple[jax.Array, jax.Array],
    valid: tuple[jax.Array, jax.Array],
    places: tuple[jax.Array, jax.Array],
    triangle: bool,
) -> jax.Array:
    """Return the histogram [BINS] of a block of pairs.

    Args:
        bits: of the two layers, as `fired_in` takes them.
        synapses: indices on the two sides [B] each.
        valid: bool [B] each, False for padding.
        places: positions of the synapses in their layers' lists [B] each.
        triangle: whether only pairs whose first position is before the second count.
    """
    first, second = (fired_in(b, s) for b, s in zip(bits, synapses, strict=True))
    information = normalised_mutual_information(
        first.T @ second, first.sum(0), second.sum(0), len(first)
    )
    counted = valid[0][:, None] & valid[1][None]
    if triangle:
        counted &= places[0][:, None] < places[1][None]
    return histogram(information, BINS, counted)


def count_pairs(
    first: tuple[jax.Array, np.ndarray],
    second: tuple[jax.Array, np.ndarray] | None = None,
    *,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> np.ndarray:
    """Count all pairs of synapses by their normalised pointwise mutual information.

    Args:
        first: bits uint8 [T, ceil(S / 8)] and the synapses among them, indices [A].
        second: those of another layer, [B]. None: each two of the first, once.
        report: called with the number of blocks done, and of all.

    Returns:
        Histogram int64 [BINS] over [0, 1]: A * B pairs, or A * (A - 1) / 2.
    """
    groups = (first, first if second is None else second)
    counts = np.zeros(BINS, np.int64)
    blocks = list(_blocks(len(groups[0][1]), len(groups[1][1]), triangle=second is None))
    for done, (size, *starts) in enumerate(blocks, 1):
        places = [start + np.arange(size) for start in starts]
        valid = [place < len(group[1]) for place, group in zip(places, groups, strict=True)]
        synapses = [
            group[1][np.minimum(place, len(group[1]) - 1)]
            for place, group in zip(places, groups, strict=True)
        ]
        bits = tuple(group[0] for group in groups)
        counts += np.asarray(
            _count_block(bits, tuple(synapses), tuple(valid), tuple(places), second is None)
        )
        report(done, len(blocks))
    return counts


def _blocks(rows: int, columns: int, *, triangle: bool) -> Iterator[tuple[int, int, int]]:
    """Yield blocks (size, first row, first column) that cover all pairs, or the upper triangle.

    The size is a power of two, so that few programs are compiled.
    """
    size = min(BLOCK, 1 << max(rows, columns, 1).bit_length())
    for row in range(0, rows, size):
        for column in range(row if triangle else 0, columns, size):
            yield size, row, column
