"""The script, from a run's folder to its numbers and figures."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import anml_analyse
from tsar_jax import cli
from tsar_jax.data.episodes import scale_omniglot
from tsar_jax.networks.episodic import params_like
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.episodic.analysis import representation
from tsar_jax.systems.episodic.anml import AnmlConfig, make_network, make_system
from tsar_jax.systems.episodic.meta_test_lifetime import frozen_activations
from tsar_jax.training.loop import train
from tsar_jax.training.run import Run, create_run
from tsar_jax.training.system import System

CONFIG = AnmlConfig(pixels="unit", channels=4, gate_channels=4, outputs=20, microbatch=20, steps=2)
SPACES = ["gate", "features before gate", "features"]

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.fixture(scope="module")
def run(tmp_path_factory, quickly_compiled) -> Path:
    """Two steps, each of which closes the gates a little: quicker to compile than meta-training."""

    def step(state, data, key):
        gate = state.params["neuromodulator"]["gate"]
        closed = {**gate, "bias": gate["bias"] - 3}
        neuromodulator = {**state.params["neuromodulator"], "gate": closed}
        params = {**state.params, "neuromodulator": neuromodulator}
        return state.replace(params=params), {"loss": jnp.float32(0)}, {}

    system = System(make_system(CONFIG).init, step, lambda state, data, key: {})
    path = tmp_path_factory.mktemp("runs") / "run"
    train(system, jnp.zeros(1), CONFIG, Run(path, CONFIG, "anml_meta_train", "smoke"))
    return path


def analyse(monkeypatch, *flags):
    """The script's exit code, and nothing else of its own: it is run as from a shell."""
    monkeypatch.setattr(sys, "argv", ["anml_analyse", *map(str, flags)])
    try:
        cli.run_main(anml_analyse.main)
    except SystemExit as stop:
        return stop.code
    return 0


def test_from_a_run_to_its_numbers_and_figures(run, monkeypatch, capsys) -> None:
    seen = set()

    def recorded(images, pixels):
        seen.add(pixels)
        return scale_omniglot(images, pixels)

    monkeypatch.setattr(representation, "scale_omniglot", recorded)
    flags = ("--run", run, "--classes", 6, "--images", 2, "--meta-test-runs", 2)
    assert analyse(monkeypatch, *flags) == 0
    assert seen == {"unit"}
    text = capsys.readouterr().out
    assert "Features after gate" in text
    assert "classes above chance" in text
    report = json.loads((run / "analysis.json").read_text())
    assert (report["model"], report["pixels"]) == ("anml", "unit")
    assert (report["step"], report["classes"]) == (2, 6)
    assert report["meta_test"] == {"classes": 6, "runs": 2, "rate": 1e-3}
    assert report["published"]["trained"]["features"]["sparsity"] == 0.059
    trained, untrained = report["trained"]["spaces"], report["untrained"]["spaces"]
    assert list(trained) == list(untrained) == SPACES
    shares = [value for space in trained.values() for value in space.values()]
    assert all(0 <= share <= 1 for share in shares)
    # What the steps changed differs from the network before training; what they left does not.
    assert trained["gate"]["sparsity"] < untrained["gate"]["sparsity"]
    assert trained["features before gate"] == untrained["features before gate"]
    for part in ("trained", "untrained"):
        assert set(report[part]["meta_test"]) == {"test_accuracy", "classes_above_chance"}
    written = sorted(path.name for path in (run / "figures").iterdir())
    assert written == ["gates.pdf", "gates.png", "spaces.pdf", "spaces.png"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--classes", 660], "classes is 660, but there are only 659 evaluation classes"),
        (["--classes", 0], "classes must be at least 1"),
        (["--classes", 3, "--images", 4], "images is 4, but there are only 3 classes"),
        (["--meta-test-classes", 21], "meta_test_classes is 21, but there are only 20 outputs"),
        (["--classes", 6, "--meta-test-classes", 7], "there are only 6 classes drawn"),
        (["--rate", 0], "rate must be positive"),
        (["--seed", 2**32], "seed must be in"),
        (["--step", 1], "There is no checkpoint of step 1"),
    ],
)
def test_impossible_settings_are_sentences(run, monkeypatch, capsys, flags, message) -> None:
    assert analyse(monkeypatch, "--run", run, *flags) == 2
    assert message in capsys.readouterr().err


def test_other_folders_are_refused(tmp_path, monkeypatch, capsys) -> None:
    assert analyse(monkeypatch, "--run", tmp_path / "none") == 2
    assert "There is no run folder" in capsys.readouterr().err
    assert analyse(monkeypatch, "--run", tmp_path) == 2
    assert "is not a run folder" in capsys.readouterr().err
    create_run(Run(tmp_path / "other", CONFIG, "toy"), 2)
    assert analyse(monkeypatch, "--run", tmp_path / "other") == 2
    assert "is a run of 'toy', not of 'anml_meta_train'" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["anml", "oml", "ungated"])
def test_features_are_what_the_output_layer_reads(model) -> None:
    """The script meta-tests on the space "features" in place of frozen_activations."""
    config = AnmlConfig(model=model, channels=2, gate_channels=2, hidden_features=5, outputs=3)
    network = make_network(config)
    random = np.random.default_rng(0)
    shapes = params_like(network)
    params = jax.tree.map(lambda leaf: random.normal(0, 0.3, leaf.shape).astype("f4"), shapes)
    images = random.integers(0, 256, (1, 2, 28, 28)).astype(np.uint8)

    @jax.jit
    def both(params, images):
        head = mask(params, ("head",))
        activations = frozen_activations(network, params, head, images, pixels="unit")
        features = representation.features(network, "unit", params, images)
        return activations, features["features"][0]

    activations, features = both(params, images)
    assert np.abs(activations).max() > 0
    np.testing.assert_allclose(features, activations, atol=1e-5)
