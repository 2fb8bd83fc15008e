"""Streams by name: a kind and a data set, "rot-mnist", "seq-cifar10", "gcil-cifar100-longtail"."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.data.continual.digits_360 import DIGITS, VISITS, digits_360
from tsar_jax.data.continual.epochs import Plan, epoch_stream
from tsar_jax.data.continual.gcil import (
    MOST_CLASSES,
    PHASE_SIZE,
    PHASES,
    SEED,
    class_order,
    class_weights,
    draw_phases,
)
from tsar_jax.data.continual.normalise import statistics_of
from tsar_jax.data.continual.pixels import permutation_map, rotation_map
from tsar_jax.data.continual.types import Stream
from tsar_jax.data.registry import ALIASES as SHORT_NAMES
from tsar_jax.data.types import LabelledDataset, LabelledImages
from tsar_jax.errors import UserError, check_limits, nearest_hint

ALIASES = SHORT_NAMES | {"emnist": "emnist_digits"}
DOMAIN_TASKS = 20
LARGEST_ANGLE = 180
# Tasks of a class-incremental stream by its number of classes; for others, the largest divisor
# up to 10.
CLASS_TASKS = {10: 5, 100: 10, 200: 10}
STREAMS = (
    *("rot-mnist", "perm-mnist", "mnist-360", "rot-emnist", "seq-cifar10", "seq-cifar100"),
    *("seq-tinyimg", "gcil-cifar100", "gcil-cifar100-longtail", "gcil-cifar100-noise"),
)
"""Streams of publications and of the packaged data; any other of a kind and a data set also
works.
"""
GCIL_WEIGHTS = ("longtail", "noise")
GCIL_SETTINGS = ("phase_size", "phase_classes", "pretrain_classes", "schedule_seed")


@dataclasses.dataclass(frozen=True)
class StreamSettings:
    """Settings of a stream; None: as published. joint: all tasks as one.

    For GCIL only: phase_size, images of a phase; phase_classes, most classes of a phase;
    pretrain_classes, classes whose images are all learned in the first phase; schedule_seed.
    """

    batch: int
    epochs: int = 1
    tasks: int | None = None
    phase_size: int | None = None
    joint: bool = False
    phase_classes: int | None = None
    pretrain_classes: int | None = None
    schedule_seed: int | None = None


def split_name(name: str) -> tuple[str, str]:
    """Return kind and data set of a stream's name.

    Kinds: "rot", "perm", "seq", "gcil", "gcil-longtail", "gcil-noise", "360".

    Raises:
        UserError: the name is no stream's.
    """
    kind, _, dataset = name.partition("-")
    if dataset == "360":
        kind, dataset = "360", kind
    for weights in GCIL_WEIGHTS:
        if kind == "gcil" and dataset.endswith(f"-{weights}"):
            kind, dataset = f"gcil-{weights}", dataset.removesuffix(f"-{weights}")
    if kind.partition("-")[0] not in ("rot", "perm", "seq", "gcil", "360") or not dataset:
        raise UserError(
            f"There is no stream {name!r}: write rot-, perm-, seq- or gcil- and a data set, as in "
            "rot-mnist, seq-cifar10, gcil-cifar100, gcil-cifar100-longtail or gcil-cifar100-noise; "
            f"or mnist-360{nearest_hint(name, STREAMS)}."
        )
    return kind, ALIASES.get(dataset, dataset.replace("-", "_"))


def make_stream(name: str, dataset: LabelledDataset, settings: StreamSettings) -> Stream:
    """Return the stream `name` over its data set.

    Raises:
        UserError: the settings or the data set do not fit the stream.
    """
    kind, _ = split_name(name)
    check_classes(dataset)
    if not kind.startswith("gcil"):
        _check_no_gcil(name, settings)
    if kind in ("rot", "perm", "360") and dataset.train.images.ndim != 3:
        raise UserError(f"{name} wants grey images, but {dataset.name} is in colour: use seq-.")
    if kind == "360":
        _check_360(name, dataset, settings)
        return digits_360(dataset, name, settings.batch, settings.joint)
    if kind in ("rot", "perm"):
        plan = _domain_plan(name, kind, dataset, settings)
    elif kind == "seq":
        plan = _class_plan(name, dataset, settings)
    else:
        plan, dataset = _gcil_plan(name, kind, dataset, settings)
    return epoch_stream(plan, dataset)


def check_classes(dataset: LabelledDataset) -> None:
    """Check that every class has images to learn and to be tested on.

    Raises:
        UserError: one has none.
    """
    for split, images in (("training", dataset.train), ("test", dataset.test)):
        counts = np.bincount(images.labels, minlength=len(images.names))
        if not counts.all():
            empty = images.names[int(np.argmin(counts))]
            raise UserError(
                f"Class {empty!r} of {dataset.name} has no {split} image: prepare the data anew."
            )


def _check_no_gcil(name: str, settings: StreamSettings) -> None:
    for field in dataclasses.fields(settings):
        if field.name in GCIL_SETTINGS and getattr(settings, field.name) != field.default:
            raise UserError(f"{name} has no {field.name}: only gcil- streams do; leave it out.")


def _check_360(name: str, dataset: LabelledDataset, settings: StreamSettings) -> None:
    if settings.tasks or settings.epochs != 1:
        raise UserError(f"{name} has no task boundaries: leave out tasks and epochs.")
    if len(dataset.train.names) < DIGITS:
        raise UserError(f"{name} wants {DIGITS} classes, but {dataset.name} has fewer.")
    fewest = np.bincount(dataset.train.labels)[:DIGITS].min()
    if fewest < VISITS**2:
        raise UserError(
            f"{name} wants {VISITS**2} training images of each class, but one of {dataset.name} "
            f"has {fewest}: prepare the data in full."
        )


def _domain_plan(name: str, kind: str, dataset: LabelledDataset, settings: StreamSettings) -> Plan:
    """Return a plan of all classes in every task, the images rotated or their pixels permuted."""
    tasks = settings.tasks or DOMAIN_TASKS
    classes = len(dataset.train.names)

    def angles(key: jax.Array, tasks: int, side: int) -> jax.Array:
        degrees = jax.random.uniform(key, (tasks,), maxval=LARGEST_ANGLE)
        return jax.vmap(lambda angle: rotation_map(angle, side))(degrees)

    def permutations(key: jax.Array, tasks: int, side: int) -> jax.Array:
        keys = jax.random.split(key, tasks)
        return jnp.stack([permutation_map(keys[task], side * side) for task in range(tasks)])

    return Plan(
        name,
        "domain",
        members=[np.arange(len(dataset.train.labels))] * tasks,
        tests=[np.arange(len(dataset.test.labels))] * tasks,
        task_classes=np.ones((tasks, classes), bool),
        epochs=settings.epochs,
        batch=settings.batch,
        drop_last=False,
        statistics=statistics_of(kind, dataset.name),
        joint=settings.joint,
        make_maps=angles if kind == "rot" else permutations,
    )


def _class_plan(name: str, dataset: LabelledDataset, settings: StreamSettings) -> Plan:
    """Return a plan of a few classes per task, in the order of their labels."""
    classes = len(dataset.train.names)
    default = CLASS_TASKS.get(classes) or max(n for n in range(1, 11) if classes % n == 0)
    tasks = settings.tasks or default
    if classes % tasks:
        raise UserError(
            f"tasks is {tasks}, which does not divide the {classes} classes of {dataset.name}: "
            "choose a divisor."
        )
    of_class = np.arange(classes) // (classes // tasks)
    return Plan(
        name,
        "class",
        members=[np.flatnonzero(of_class[dataset.train.labels] == task) for task in range(tasks)],
        tests=[np.flatnonzero(of_class[dataset.test.labels] == task) for task in range(tasks)],
        task_classes=of_class == np.arange(tasks)[:, None],
        epochs=settings.epochs,
        batch=settings.batch,
        drop_last=dataset.train.images.ndim == 4,
        statistics=statistics_of("seq", dataset.name),
        joint=settings.joint,
    )


def _check_gcil(
    settings: StreamSettings, dataset: LabelledDataset, size: int, max_classes: int
) -> None:
    classes = len(dataset.train.names)
    check_limits(
        ("phase_classes", max_classes, classes, f"classes of {dataset.name}"),
        ("pretrain_classes", settings.pretrain_classes or 0, classes, f"classes of {dataset.name}"),
    )
    if size < max_classes:
        raise UserError(
            f"phase_size is {size}, but a phase can have {max_classes} classes: raise phase_size "
            "or lower phase_classes."
        )


def _gcil_plan(
    name: str, kind: str, dataset: LabelledDataset, settings: StreamSettings
) -> tuple[Plan, LabelledDataset]:
    """Return a plan of phases whose classes come back; labels are numbered as they first appear."""
    classes = len(dataset.train.names)
    size = settings.phase_size or PHASE_SIZE
    max_classes = settings.phase_classes or min(MOST_CLASSES, classes)
    _check_gcil(settings, dataset, size, max_classes)
    schedule = draw_phases(
        dataset.train.labels,
        class_weights(classes, kind == "gcil-longtail"),
        phases=settings.tasks or PHASES,
        size=size,
        max_classes=max_classes,
        seed=SEED if settings.schedule_seed is None else settings.schedule_seed,
        noise=kind == "gcil-noise",
        pretrain=settings.pretrain_classes,
    )
    order = class_order(schedule)
    new_label = np.full(classes, len(order), np.int32)
    new_label[order] = np.arange(len(order))
    relabelled = _relabelled(dataset, new_label, classes)
    seen = np.zeros((len(schedule), classes), bool)
    for number, phase in enumerate(schedule):
        seen[number:, new_label[phase.classes]] = True
    test_labels = relabelled.test.labels
    return (
        Plan(
            name,
            "class",
            members=[phase.indices for phase in schedule],
            tests=[np.flatnonzero(row[test_labels]) for row in seen],
            task_classes=seen,
            epochs=settings.epochs,
            batch=settings.batch,
            drop_last=dataset.train.images.ndim == 4,
            statistics=statistics_of(kind, dataset.name),
            joint=settings.joint,
            cumulative=True,
        ),
        relabelled,
    )


def _relabelled(dataset: LabelledDataset, new: np.ndarray, classes: int) -> LabelledDataset:
    """Return the same images with new labels."""

    def relabel(images: LabelledImages) -> LabelledImages:
        names = [""] * classes
        for old, label in enumerate(new):
            names[label] = images.names[old]
        return LabelledImages(images.images, new[images.labels].astype(np.int32), tuple(names))

    return dataclasses.replace(dataset, train=relabel(dataset.train), test=relabel(dataset.test))
