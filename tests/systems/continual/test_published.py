"""Every row of both releases' tables against what a run takes, and whose values it takes else."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tsar_jax.data.types import LabelledDataset, LabelledImages
from tsar_jax.plasticity.methods import METHODS, make_method, method_settings
from tsar_jax.plasticity.methods.published import NOT_APPLIED, alike_streams, nearest_row
from tsar_jax.plasticity.methods.settings import given_settings
from tsar_jax.systems.continual.experiment import with_published
from tsar_jax.systems.continual.system import ContinualConfig

TABLES = json.loads(Path(__file__).with_name("published_hyperparameters.json").read_text())
RENAMED = {"batch_size": "batch", "minibatch_size": "replay", "n_epochs": "epochs"}
STREAMS = (
    *("rot-mnist", "perm-mnist", "seq-mnist", "mnist-360", "seq-cifar10", "seq-tinyimg"),
    *("gcil-cifar100", "gcil-cifar100-longtail"),
)


def rows(release: str):
    """Stream, method, buffer and values of a release's rows."""
    for stream, methods in TABLES[f"{release}_release"].items():
        for method, found in methods.items():
            if stream == "gcil-cifar100":
                for suffix, part in (("", "unif"), ("-longtail", "longtail")):
                    for buffer, values in found[part].items():
                        yield stream + suffix, method, int(buffer), values
            else:
                for buffer, values in found.items():
                    yield stream, method, int(buffer), values


def dataset_of(stream: str) -> LabelledDataset:
    """One image of the size and the colours that a stream's data set has."""
    side = 64 if "tiny" in stream else 28 if "mnist" in stream else 32
    shape = (1, side, side) if "mnist" in stream else (1, side, side, 3)
    names = tuple(map(str, range(200 if "tiny" in stream else 100 if "gcil" in stream else 10)))
    images = LabelledImages(np.zeros(shape, np.uint8), np.zeros(1, np.int32), names)
    return LabelledDataset(stream, images, images, "made up")


def taken(stream: str, method: str, buffer: int, **given) -> tuple[dict[str, float], str]:
    """What a run takes, by name, and what it says of it."""
    config = ContinualConfig(stream=stream, method=method, buffer=buffer, **given)
    config, _, line = with_published(config, dataset_of(stream))
    general = {name: getattr(config, name) for name in ("lr", "batch", "replay", "epochs")}
    made = make_method(method, **given_settings(config.settings))
    return general | dataclasses.asdict(made), line


@pytest.mark.parametrize("release", ["synergy", "clser"])
def test_every_row_is_what_a_run_takes(release) -> None:
    """Of the release that is asked for; the other's differ in CLS-ER on seq-tinyimg alone."""
    for stream, method, buffer, values in rows(release):
        # A method without a buffer takes the same values whatever its size.
        size = 500 if buffer == -1 else buffer
        found, line = taken(stream, method, size, published=release)
        cell = (stream, method, buffer)
        assert "nothing is published" not in line, cell
        assert "has none" not in line, cell
        for name, value in values.items():
            name = RENAMED.get(name, name)
            if method == "icarl" and name == "replay" and value == 0:
                value = values["batch_size"]
            if name in NOT_APPLIED.get(method, ()):
                default = getattr(METHODS[method](), name, None)
                assert found.get(name) == default, cell
            else:
                assert found[name] == value, (*cell, name)
        assert found["batch"] == values.get("batch_size", 1), cell
        assert found["epochs"] == values.get("n_epochs", 1), cell
        assert found["replay"] == (values.get("minibatch_size", 1) or values["batch_size"]), cell


def test_there_are_as_many_rows_as_the_releases_have() -> None:
    assert [sum(1 for _ in rows(release)) for release in ("synergy", "clser")] == [157, 213]
    streams = {row[0] for release in ("synergy", "clser") for row in rows(release)}
    assert streams == set(STREAMS)


def test_where_both_releases_have_a_row_synergys_is_the_default() -> None:
    assert taken("seq-tinyimg", "clser", 200)[0]["lr"] == 0.1
    assert taken("seq-tinyimg", "clser", 200, published="clser")[0]["lr"] == 0.05


def test_der_has_values_of_its_own() -> None:
    found = {
        cell: taken(cell[0], "der", cell[1])[0]
        for cell in (
            ("rot-mnist", 200),
            ("seq-cifar10", 500),
            ("seq-tinyimg", 500),
            ("mnist-360", 1000),
        )
    }
    assert [values["lr"] for values in found.values()] == [0.2, 0.03, 0.03, 0.1]
    assert [values["alpha"] for values in found.values()] == [1.0, 0.3, 0.1, 0.5]
    assert (found["mnist-360", 1000]["batch"], found["mnist-360", 1000]["replay"]) == (8, 16)


@pytest.mark.parametrize(
    ("stream", "method", "buffer", "prefer", "line"),
    [
        (
            "rot-mnist",
            "der",
            200,
            "synergy",
            "der on rot-mnist, buffer 200 in the release of SYNERgy",
        ),
        ("seq-tiny-imagenet", "sgd", 9, "synergy", "sgd on seq-tinyimg in the release of SYNERgy"),
        (
            *("perm-mnist", "er", 200, "synergy"),
            "er on perm-mnist, buffer 200 in the release of CLS-ER: SYNERgy's has none",
        ),
        (
            *("rot-mnist", "synergy", 200, "clser"),
            "synergy on rot-mnist, buffer 200 in the release of SYNERgy: CLS-ER's has none",
        ),
        (
            *("rot-emnist", "der", 500, "synergy"),
            "der on rot-mnist, buffer 500 in the release of SYNERgy: nothing is published for der "
            "on rot-emnist, buffer 500",
        ),
        (
            *("perm-mnist", "synergy", 1000, "synergy"),
            "synergy on rot-mnist, buffer 1000 in the release of SYNERgy: nothing is published for "
            "synergy on perm-mnist, buffer 1000",
        ),
        (
            *("perm-mnist", "der", 1000, "synergy"),
            "der on perm-mnist, buffer 5120 in the release of CLS-ER: nothing is published for der "
            "on perm-mnist, buffer 1000",
        ),
        (
            *("rot-mnist", "derpp", 5120, "synergy"),
            "derpp on rot-mnist, buffer 5120 in the release of CLS-ER: SYNERgy's has none",
        ),
        (
            *("rot-mnist", "joint", 500, "synergy"),
            "sgd on rot-mnist in the release of SYNERgy: nothing is published for joint on "
            "rot-mnist",
        ),
        (
            *("seq-cifar10", "mer", 64, "synergy"),
            "er on seq-cifar10, buffer 200 in the release of SYNERgy: nothing is published for mer "
            "on seq-cifar10, buffer 64; beta, gamma, batch_num: the method's own default",
        ),
    ],
)
def test_a_run_says_whose_values_it_takes(stream, method, buffer, prefer, line) -> None:
    assert taken(stream, method, buffer, published=prefer)[1] == f"values of {line}"


def test_nothing_is_said_where_all_is_given() -> None:
    given = {"lr": 0.3, "batch": 2, "replay": 3, "epochs": 1}
    settings = method_settings("der", alpha=0.7)
    found, line = taken("rot-mnist", "der", 200, **given, settings=settings)
    assert line == ""
    assert found == {"lr": 0.3, "batch": 2, "replay": 3, "epochs": 1, "alpha": 0.7}


def test_what_stands_in_gives_no_hyper_parameter_of_its_own() -> None:
    """ER's rows on GCIL's longtail distribution carry a beta, which is not MER's."""
    assert nearest_row("mer", ["gcil-cifar100-longtail"], 200, "synergy").values["beta"] == 0.6
    assert taken("gcil-cifar100-longtail", "mer", 200)[0]["beta"] == METHODS["mer"]().beta


@pytest.mark.parametrize("name", METHODS)
def test_every_method_finds_values_on_every_stream(name) -> None:
    for stream in (*STREAMS, "rot-emnist", "seq-emnist", "gcil-mini-imagenet"):
        for buffer in (1, 200, 5120):
            found, _ = taken(stream, name, buffer)
            assert min(found[key] for key in ("lr", "batch", "replay", "epochs")) > 0


def test_the_nearest_buffer_counts() -> None:
    streams = alike_streams("perm-mnist", colour=False, large=False)
    sizes = {
        size: nearest_row("er", streams, size, "synergy").buffer
        for size in (1, 349, 351, 740, 760, 1000, 3000, 6000)
    }
    assert sizes == {
        1: 200,
        349: 200,
        351: 500,
        740: 500,
        760: 5120,
        1000: 5120,
        3000: 5120,
        6000: 5120,
    }
