"""Published best hyper-parameters, per method, stream and buffer size.

Those of the releases of SYNERgy, CLS-ER and Mammoth, whose buffers of 5,120 stand for those of
1,000 where it has none. Where a stream or a buffer has none of its own it takes those of the
nearest one: the stream that is most alike, the buffer whose size is nearest.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

BUFFERS = (200, 500, 1000)

# Values of a buffer of 200, of 500, of 1,000; or one for all.
Values = Any


class Best(NamedTuple):
    """lr, batch, replay and epochs of a run, and the method's own hyper-parameters."""

    lr: float
    batch: int
    replay: int
    epochs: int
    settings: dict[str, float]


def _synergy(batch: int, lr: float, epochs: int, *rest: Values) -> dict[str, Values]:
    names = ("reg_weight", "ema_alpha", "ema_update_freq", "penalty_weight", "fisher_alpha")
    named = dict(zip((*names, "fisher_update_freq"), rest, strict=True))
    return {"lr": lr, "batch": batch, "replay": batch, "epochs": epochs, **named}


def _clser(
    lr: float, batch: Values, replay: Values, epochs: Values, *rest: Values
) -> dict[str, Values]:
    names = ("reg_weight", "stable_model_alpha", "stable_model_update_freq")
    named = dict(
        zip((*names, "plastic_model_alpha", "plastic_model_update_freq"), rest, strict=True)
    )
    return {"lr": lr, "batch": batch, "replay": replay, "epochs": epochs, **named}


def _row(lr: Values, batch: Values, replay: Values, epochs: int, **rest: Values) -> dict:
    return {"lr": lr, "batch": batch, "replay": replay, "epochs": epochs, **rest}


TABLE: dict[str, dict[str, Mapping[str, Values]]] = {
    "synergy": {
        "rot-mnist": _synergy(128, 0.2, 1, 1.0, 0.99, 1.0, 1.0, 0.99, (0.4, 0.8, 0.4)),
        "mnist-360": _synergy(16, 0.2, 1, (1.0, 1.0, 0.8), 0.99, 1.0, 1.0, 0.99, (0.9, 0.8, 0.8)),
        "seq-cifar10": _synergy(
            32, 0.05, 50, 0.2, 0.999, (0.2, 0.4, 0.9), 5.0, 0.999, (0.01, 0.007, 0.001)
        ),
        "seq-tinyimg": _synergy(32, 0.05, 50, 0.1, 0.999, 0.05, 0.1, 0.999, (5e-4, 4e-4, 4e-4)),
        "gcil": _synergy(32, 0.05, 50, 0.2, 0.999, (0.3, 0.3, 0.4), 1.0, 0.999, 0.005),
        "gcil-longtail": _synergy(32, 0.05, 50, 0.2, 0.999, (0.2, 0.2, 0.4), 1.0, 0.999, 0.005),
    },
    "clser": {
        "rot-mnist": _clser(0.2, 128, 128, 1, 0.75, 0.999, 1.0, 0.99, 1.0),
        "mnist-360": _clser(
            0.2,
            16,
            (16, 32, 128),
            1,
            (0.75, 1.25, 0.75),
            (0.999, 0.99, 0.99),
            (1.0, 0.9, 0.9),
            0.99,
            1.0,
        ),
        "seq-cifar10": _clser(0.1, 32, 32, 50, 0.15, 0.999, (0.1, 0.1, 0.8), 0.999, (0.3, 0.9, 1)),
        "seq-tinyimg": _clser(0.1, 32, 32, 50, 0.1, 0.999, (0.04, 0.05, 0.07), 0.999, 0.08),
        "gcil": _clser(0.1, 32, 32, (200, 100, 100), 0.15, 0.999, 0.6, 0.999, (0.7, 0.9, 0.8)),
        "gcil-longtail": _clser(0.1, 32, 32, 100, 0.1, 0.999, 0.6, 0.999, (0.7, 0.7, 0.8)),
    },
    "derpp": {
        "rot-mnist": _row(
            (0.1, 0.2, 0.2), 128, 128, 1, alpha=(1.0, 0.5, 0.5), beta=(0.5, 1.0, 0.5)
        ),
        "mnist-360": _row(0.2, 16, (16, 16, 128), 1, alpha=(0.5, 0.5, 0.2), beta=1.0),
        "seq-cifar10": _row(0.03, 32, 32, 50, alpha=(0.1, 0.2, 0.1), beta=(0.5, 0.5, 1.0)),
        "seq-tinyimg": _row(0.03, 32, 32, 100, alpha=(0.1, 0.2, 0.1), beta=(1.0, 0.5, 0.5)),
        "gcil": _row(0.1, 32, 32, 100, alpha=(0.2, 0.2, 0.3), beta=(0.5, 0.6, 0.6)),
        "gcil-longtail": _row(0.1, 32, 32, 100, alpha=(0.2, 0.2, 0.3), beta=(0.6, 0.8, 0.9)),
    },
    "er": {
        "rot-mnist": _row(0.2, 128, 128, 1),
        "mnist-360": _row(0.2, (1, 1, 4), 16, 1),
        "seq-cifar10": _row(0.1, 32, 32, 50),
        "seq-tinyimg": _row((0.1, 0.03, 0.1), 32, 32, 100),
        "gcil": _row(0.1, 32, 32, 100),
        "gcil-longtail": _row(0.1, 32, 32, 100),
    },
    "sgd": {
        "rot-mnist": _row(0.2, 128, 1, 1),
        "mnist-360": _row(0.1, 4, 1, 1),
        "seq-cifar10": _row(0.1, 32, 1, 50),
        "seq-tinyimg": _row(0.03, 32, 1, 100),
        "gcil": _row(0.1, 32, 1, 100),
        "gcil-longtail": _row(0.1, 32, 1, 100),
    },
    "ewc_on": {
        "rot-mnist": _row(0.1, 128, 1, 1, e_lambda=0.7, gamma=1.0),
        "seq-mnist": _row(0.03, 10, 1, 1, e_lambda=90.0, gamma=1.0),
        "seq-cifar10": _row(0.03, 32, 1, 50, e_lambda=10.0, gamma=1.0),
        "seq-tinyimg": _row(0.03, 32, 1, 100, e_lambda=25.0, gamma=1.0),
    },
    "si": {
        "rot-mnist": _row(0.1, 128, 1, 1, c=1.0, xi=1.0),
        "seq-mnist": _row(0.1, 10, 1, 1, c=1.0, xi=0.9),
        "seq-cifar10": _row(0.03, 32, 1, 50, c=0.5, xi=1.0),
        "seq-tinyimg": _row(0.03, 32, 1, 100, c=0.5, xi=1.0),
    },
    "lwf": {
        "seq-mnist": _row(0.03, 10, 1, 1, alpha=1.0, softmax_temp=2.0, wd_reg=0.0005),
        "seq-cifar10": _row(0.01, 32, 1, 50, alpha=3.0, softmax_temp=2.0, wd_reg=0.0005),
        "seq-tinyimg": _row(0.01, 32, 1, 100, alpha=1.0, softmax_temp=2.0, wd_reg=0.0005),
    },
    "agem": {
        "rot-mnist": _row((0.1, 0.3, 0.3), 128, 128, 1),
        "seq-mnist": _row(0.1, 10, 128, 1),
        "seq-cifar10": _row(0.03, 32, 32, 50),
        "seq-tinyimg": _row(0.01, 32, 32, 100),
    },
    "agem_r": {
        "rot-mnist": _row((0.1, 0.3, 0.3), 128, 128, 1),
        "seq-mnist": _row(0.1, 10, 128, 1),
        "mnist-360": _row(0.1, (16, 16, 4), 128, 1),
        "seq-cifar10": _row(0.03, 32, 32, 50),
        "seq-tinyimg": _row(0.01, 32, 32, 100),
    },
    "gem": {
        "rot-mnist": _row(0.01, 128, 1, 1, gamma=0.5),
        "seq-mnist": _row((0.01, 0.03, 0.1), 10, 1, 1, gamma=(1.0, 0.5, 1.0)),
        "seq-cifar10": _row(0.03, 32, 1, 50, gamma=0.5),
    },
    # Mammoth lists an alpha that its step does not use.
    "fdr": {
        "rot-mnist": _row(0.2, 128, 128, 1),
        "seq-mnist": _row((0.03, 0.1, 0.1), 128, 128, 1),
        "seq-cifar10": _row(0.03, 32, 32, 50),
        "seq-tinyimg": _row(0.03, 32, 32, 100),
    },
    "gss": {
        "rot-mnist": _row(0.2, 128, (10, 128, 128), 1, gss_minibatch_size=128),
        "seq-mnist": _row(0.1, 128, (10, 10, 128), 1, gss_minibatch_size=10),
        "seq-cifar10": _row(0.03, 32, 32, 50, gss_minibatch_size=32),
    },
    "hal": {
        "rot-mnist": _row(
            0.1, 128, 128, 1, hal_lambda=(0.2, 0.1, 0.1), beta=(0.5, 0.5, 0.3), gamma=0.1
        ),
        "seq-mnist": _row(0.1, 128, 128, 1, hal_lambda=0.1, beta=(0.7, 0.2, 0.7), gamma=0.5),
        "seq-cifar10": _row(
            0.03, 32, 32, 50, hal_lambda=(0.2, 0.1, 0.1), beta=(0.5, 0.3, 0.3), gamma=0.1
        ),
    },
    "icarl": {
        "seq-mnist": _row(0.1, 10, 10, 1, wd_reg=0.0),
        "seq-cifar10": _row((0.1, 0.1, 0.03), 32, 32, 50, wd_reg=0.00001),
        "seq-tinyimg": _row(0.03, 32, 32, 100, wd_reg=0.00001),
    },
    "mer": {
        "seq-mnist": _row(
            (0.1, 0.1, 0.03), 1, 128, 1, beta=1.0, gamma=1.0, batch_num=1, item_num=0
        ),
        "mnist-360": _row((0.2, 0.1, 0.2), 1, 128, 1, beta=1.0, gamma=1.0, batch_num=3, item_num=0),
    },
    "pnn": {
        "seq-mnist": _row(0.1, 10, 1, 1),
        "seq-cifar10": _row(0.03, 32, 1, 50),
        "seq-tinyimg": _row(0.03, 32, 1, 100),
    },
}

# Whose values a method without published ones takes, for its learning rate and batches.
LIKE = {"joint": "sgd", "der": "derpp"}

# Which streams are most like one for which a method has no values of its own.
ALIKE = {
    "rot-mnist": ("seq-mnist",),
    "seq-mnist": ("rot-mnist",),
    "mnist-360": ("rot-mnist", "seq-mnist"),
    "seq-tinyimg": ("seq-cifar10",),
    "gcil": ("seq-cifar10",),
    "gcil-longtail": ("gcil", "seq-cifar10"),
}


def likest_stream(stream: str, colour: bool, large: bool) -> str:
    """The stream of the tables that `stream` is most like.

    colour: its images are. large: they are larger than 32x32, or there are more than 100 classes.
    """
    if stream.startswith("gcil"):
        return "gcil-longtail" if stream.endswith("-longtail") else "gcil"
    if not colour:
        if stream.startswith("seq"):
            return "seq-mnist"
        return "mnist-360" if stream.endswith("-360") else "rot-mnist"
    return "seq-tinyimg" if large else "seq-cifar10"


def _nearest(method: str, like: str) -> Mapping[str, Values]:
    """The row of the stream most like one, of the method or of one that stands for it."""
    rows = (
        TABLE.get(source, {}).get(stream)
        for source in (method, LIKE.get(method, "er"))
        for stream in (like, *ALIKE.get(like, ()))
    )
    return next(row for row in rows if row is not None)


def published(method: str, like: str, buffer: int, fields: Sequence[str]) -> Best:
    """The best values for a method on a stream of the tables.

    fields: the method's hyper-parameters; those without a published value are left to its own
    defaults.
    """
    values = _nearest(method, like)
    nearest = min(range(len(BUFFERS)), key=lambda index: abs(BUFFERS[index] - buffer))
    chosen = {
        name: value[nearest] if isinstance(value, tuple) else value
        for name, value in values.items()
    }
    settings = {name: float(chosen[name]) for name in fields if name in chosen}
    return Best(
        float(chosen["lr"]),
        int(chosen["batch"]),
        int(chosen["replay"]),
        int(chosen["epochs"]),
        settings,
    )
