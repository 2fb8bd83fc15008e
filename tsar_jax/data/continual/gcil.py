"""Generalised class-incremental learning: the classes of a phase, and how many images each has.

Mi et al. (2020), arXiv 2004.08513, as the releases of CLS-ER and SYNERgy draw it: 20 phases of
1,000 images; the classes of a phase, 1 to 50 of them, come back in others; an image does not.

Here the schedule has a generator of its own, so that all methods see the same one. The releases
draw from numpy's global state, which their buffers use too: there the first phase is this one, and
the later phases are others for every method and size of buffer.
"""

from typing import NamedTuple

import numpy as np

from tsar_jax.errors import UserError, checked_seed

PHASES, PHASE_SIZE, MOST_CLASSES, SEED = 20, 1000, 50, 1993
LONGTAIL_DECAY = 0.984
NOISE_DEVIATION, LEAST_NOISE = 0.2, -0.99  # of a class's weight
MOST_DRAWS = 10_000
"""Most draws of a phase's labels until each of its classes occurs."""


class Phase(NamedTuple):
    """A phase: classes [k], as drawn; sizes [k]: images of each; indices: of the images, class
    by class.
    """

    classes: np.ndarray
    sizes: np.ndarray
    indices: np.ndarray


def class_weights(classes: int, longtail: bool) -> np.ndarray:
    """Return how often a class is drawn, up to a factor: all alike, or 0.984 ** class."""
    return LONGTAIL_DECAY ** np.arange(classes) if longtail else np.ones(classes)


def draw_phases(
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    phases: int = PHASES,
    size: int = PHASE_SIZE,
    max_classes: int = MOST_CLASSES,
    seed: int = SEED,
    noise: bool = False,
    pretrain: int | None = None,
) -> list[Phase]:
    """Return the schedule of a stream over images, drawn by numpy's legacy generator.

    Args:
        labels: classes of the images [N].
        weights: how often a class is drawn, up to a factor [classes].
        phases: number of phases, that of pretraining included.
        size: images of a phase; fewer where a class is used up.
        most: largest number of classes of a phase.
        seed: of the schedule.
        noise: in every phase the weight of each of its classes is moved by Gaussian noise of
            deviation 0.2, no less than -0.99.
        pretrain: number of classes of which the first phase has all images; None: no such phase.

    Returns:
        The phases, in order.

    Raises:
        UserError: the images do not last for so many phases, or a phase is too small for its
            classes.
    """
    rng = np.random.RandomState(checked_seed("the schedule's seed", seed))
    _, first = np.unique(labels, return_index=True)
    remaining = {
        int(labels[index]): np.flatnonzero(labels == labels[index]) for index in sorted(first)
    }
    schedule: list[Phase] = []
    if pretrain is not None:
        schedule.append(_draw_pretraining(rng, remaining, pretrain))
    while len(schedule) < phases:
        usable = [label for label, indices in remaining.items() if len(indices)]
        if not usable:
            raise UserError(
                f"After {len(schedule)} of {phases} phases of {size} images all {len(labels)} are "
                "used up: ask for fewer or smaller phases (tasks, phase_size, pretrain_classes)."
            )
        schedule.append(_draw_phase(rng, remaining, usable, weights, size, max_classes, noise))
    return schedule


def _draw_phase(
    rng: np.random.RandomState,
    remaining: dict[int, np.ndarray],
    usable: list[int],
    weights: np.ndarray,
    size: int,
    max_classes: int,
    noise: bool,
) -> Phase:
    """Draw one phase and remove its images from the remaining ones."""
    count = rng.choice(min(len(usable), max_classes), size=1)[0] + 1
    classes = rng.choice(usable, size=count, replace=False)
    phase_weights = weights[classes]
    if noise:
        noises = np.maximum(rng.normal(0, NOISE_DEVIATION, count), LEAST_NOISE)
        phase_weights = phase_weights + noises
    probabilities = phase_weights / phase_weights.sum()
    for _ in range(MOST_DRAWS):
        drawn = rng.choice(classes, size=size, replace=True, p=probabilities)
        if len(np.unique(drawn)) == count:
            return _take(rng, remaining, classes, [(drawn == label).sum() for label in classes])
    raise UserError(
        f"In {MOST_DRAWS:,} draws no {size} images were of all {count} classes of a phase: raise "
        "phase_size or lower phase_classes."
    )


def _draw_pretraining(
    rng: np.random.RandomState, remaining: dict[int, np.ndarray], count: int
) -> Phase:
    """Draw the classes of pretraining and remove all of their images from the remaining ones."""
    classes = rng.choice(list(remaining), size=count, replace=False)
    return _take(rng, remaining, classes, [len(remaining[label]) for label in classes])


def _take(
    rng: np.random.RandomState,
    remaining: dict[int, np.ndarray],
    classes: np.ndarray,
    wanted: list[int],
) -> Phase:
    """Draw images of each class, as far as they last, and remove them from the remaining ones."""
    sizes, indices = [], []
    for label, count in zip(classes, wanted, strict=True):
        of_class = remaining[label]
        drawn = rng.choice(of_class, min(len(of_class), count), replace=False)
        # Later draws depend on the order of the rest: the release's is that of CPython's set.
        rest = set(of_class.tolist()) - set(drawn.tolist())
        remaining[label] = np.array(list(rest), of_class.dtype)
        sizes.append(len(drawn))
        indices.append(drawn)
    return Phase(classes, np.array(sizes), np.concatenate(indices))


def class_order(schedule: list[Phase]) -> np.ndarray:
    """Return the classes that occur, in the order of their first occurrence."""
    drawn = np.concatenate([phase.classes for phase in schedule])
    _, first = np.unique(drawn, return_index=True)
    return drawn[np.sort(first)]
