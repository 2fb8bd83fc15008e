"""Generalised class-incremental learning: which classes a phase has, and how many images of each.

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
NOISE_DEVIATION, LEAST_NOISE = 0.2, -0.99
MOST_DRAWS = 10_000
"""Times that the labels of a phase are drawn until each of its classes occurs."""


class Phase(NamedTuple):
    """classes [k], as drawn; sizes [k]: images of each; indices: of the images, class by class."""

    classes: np.ndarray
    sizes: np.ndarray
    indices: np.ndarray


def class_weights(classes: int, longtail: bool) -> np.ndarray:
    """How often a class is drawn, up to a factor: all alike, or 0.984 ** class."""
    return LONGTAIL_DECAY ** np.arange(classes) if longtail else np.ones(classes)


def draw_phases(
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    phases: int = PHASES,
    size: int = PHASE_SIZE,
    most: int = MOST_CLASSES,
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
    random = np.random.RandomState(checked_seed("the schedule's seed", seed))
    _, first = np.unique(labels, return_index=True)
    left = {int(labels[index]): np.flatnonzero(labels == labels[index]) for index in sorted(first)}
    schedule: list[Phase] = []
    if pretrain is not None:
        schedule.append(_draw_pretraining(random, left, pretrain))
    while len(schedule) < phases:
        usable = [label for label, indices in left.items() if len(indices)]
        if not usable:
            raise UserError(
                f"After {len(schedule)} of {phases} phases of {size} images all {len(labels)} are "
                "used up: ask for fewer or smaller phases (tasks, phase_size, pretrain_classes)."
            )
        schedule.append(_draw_phase(random, left, usable, weights, size, most, noise))
    return schedule


def _draw_phase(
    random: np.random.RandomState,
    left: dict[int, np.ndarray],
    usable: list[int],
    weights: np.ndarray,
    size: int,
    most: int,
    noise: bool,
) -> Phase:
    """Draws one phase and takes its images out of what is left."""
    count = random.choice(min(len(usable), most), size=1)[0] + 1
    classes = random.choice(usable, size=count, replace=False)
    of_phase = weights[classes]
    if noise:
        of_phase = of_phase + np.maximum(random.normal(0, NOISE_DEVIATION, count), LEAST_NOISE)
    probabilities = of_phase / of_phase.sum()
    for _ in range(MOST_DRAWS):
        drawn = random.choice(classes, size=size, replace=True, p=probabilities)
        if len(np.unique(drawn)) == count:
            return _take(random, left, classes, [(drawn == label).sum() for label in classes])
    raise UserError(
        f"In {MOST_DRAWS:,} draws no {size} images were of all {count} classes of a phase: raise "
        "phase_size or lower phase_classes."
    )


def _draw_pretraining(
    random: np.random.RandomState, left: dict[int, np.ndarray], count: int
) -> Phase:
    """Draws the classes of pretraining and takes all of their images out of what is left."""
    classes = random.choice(list(left), size=count, replace=False)
    return _take(random, left, classes, [len(left[label]) for label in classes])


def _take(
    random: np.random.RandomState,
    left: dict[int, np.ndarray],
    classes: np.ndarray,
    wanted: list[int],
) -> Phase:
    """Draws so many images of each class, as far as they last, and takes them out of the rest."""
    sizes, indices = [], []
    for label, count in zip(classes, wanted, strict=True):
        found = left[label]
        taken = random.choice(found, min(len(found), count), replace=False)
        # Later draws depend on the order of what remains: the release's is that of CPython's set.
        left[label] = np.array(list(set(found.tolist()) - set(taken.tolist())), found.dtype)
        sizes.append(len(taken))
        indices.append(taken)
    return Phase(classes, np.array(sizes), np.concatenate(indices))


def class_order(schedule: list[Phase]) -> np.ndarray:
    """The classes that occur, in the order in which they first do."""
    drawn = np.concatenate([phase.classes for phase in schedule])
    _, first = np.unique(drawn, return_index=True)
    return drawn[np.sort(first)]
