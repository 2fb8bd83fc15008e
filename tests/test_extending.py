"""A module of the user's own adds networks, terms, methods, environments and data sets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from compilers import compiled_quickly

from tsar_jax.errors import UserError
from tsar_jax.registry import Registry

ROOT = Path(__file__).parents[1]

MINE = '''
import dataclasses

import numpy as np

import tsar_jax
from tsar_jax.data.registry import LABELLED_LOADERS
from tsar_jax.data.types import LabelledDataset, LabelledImages
from tsar_jax.environments.classic import pendulum
from tsar_jax.environments.own import COMPILED
from tsar_jax.networks import Ungated
from tsar_jax.plasticity.rules import Decay, term
from tsar_jax.plasticity.methods import METHODS
from tsar_jax.plasticity.methods.er import ER
from tsar_jax.systems.episodic.anml import register_model


@term("fading")
def fading(s):
    return Decay(1e-3)


@register_model("head_only", plastic=("head",))
def make(config):
    return Ungated(config.microbatch, config.channels, config.outputs)


@METHODS.register("shy")
@dataclasses.dataclass(frozen=True)
class Shy(ER):
    shyness: float = 0.5
    """Share of the loss that replay has not, 0 to 1."""


@COMPILED.register("swing")
def swing():
    return pendulum()


@LABELLED_LOADERS.register("stripes")
def stripes(folder):
    rng = np.random.default_rng(0)

    def images(count):
        labels = np.arange(count, dtype=np.int32) % 2
        drawn = rng.integers(0, 50, (count, 8, 8)).astype(np.uint8)
        drawn[np.arange(count), 4 * labels] = 250
        return LabelledImages(drawn, labels, ("high", "low"))

    return LabelledDataset("stripes", images(40), images(20), "drawn here")
'''

SMOKE = ("--preset", "smoke", "--steps", 1)
CONTINUAL = ("--method", "shy", "--stream", "rot-stripes", "--buffer", 32)
SHYNESS = ("--method.shyness", 0.25)
RUNS = {
    "network": ("anml_meta_train", *SMOKE, "--model", "head_only"),
    "term": ("plasticity_meta_train", *SMOKE, "--terms", "oja", "fading"),
    "method and data set": ("continual_train", *SMOKE, *CONTINUAL, *SHYNESS),
    "environment": ("hebbian_evolve", *SMOKE, "--environment", "swing"),
}


def tsar_jax(folder, *words):
    code = "from tsar_jax.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)} | compiled_quickly(folder),
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of the user's, with the module `mine`."""
    path = tmp_path_factory.mktemp("work")
    (path / "mine.py").write_text(MINE)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind == "method and data set" else pytest.mark.slow)
        for kind in RUNS
    ],
)
def test_each_kind_is_added_from_outside_of_the_package(folder, kind):
    run = folder / kind.replace(" ", "_")
    words = ("run", *RUNS[kind], "--out", run)
    done = tsar_jax(folder, *words)
    assert done.returncode == 2
    assert "There is no" in done.stderr or "--modules" in done.stderr
    assert not run.exists()
    done = tsar_jax(folder, *words, "--modules", "mine")
    assert done.returncode == 0, done.stderr
    # What a run folder names is not imported for that; and what is named is.
    resume = ("run", RUNS[kind][0], "--resume", run)
    assert tsar_jax(folder, *resume).returncode == 2
    done = tsar_jax(folder, *resume, "--modules", "mine")
    assert done.returncode == 0, done.stderr


def test_an_installed_package_offers_its_module_as_an_entry_point(folder, tmp_path):
    metadata = folder / "mine-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[tsar_jax]\nmine = mine\n")
    code = (
        "import sys\n"
        "from tsar_jax.plasticity.rules import find_terms\n"
        "find_terms(['oja']); print('mine' in sys.modules)\n"
        "find_terms(['fading']); print('mine' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\nTrue\n"


def test_names_are_taken_once_and_replaced_by_their_own_module():
    registry = Registry("thing")

    @registry.register("one")
    def first(): ...

    @registry.register("one")
    def second(): ...

    assert registry.find("one") is second
    assert list(registry) == ["one"]
    second.__module__ = "another"
    with pytest.raises(UserError, match="There is a thing 'one' already: choose another name"):
        registry.register("one")(first)
    with pytest.raises(UserError, match=r"no thing 'on': choose from one, or import .*--modules"):
        registry.find("on")
