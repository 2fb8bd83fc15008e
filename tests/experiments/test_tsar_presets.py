"""TSAR's presets called paper: what the publication and its release set."""

import dataclasses

from experiments import tsar_bias_sweep, tsar_transfer
from tsar_jax.systems.episodic import tsar_presets
from tsar_jax.systems.episodic.transfer import TransferConfig, check_target
from tsar_jax.systems.episodic.transfer_arguments import TransferArguments


def test_presets_paper_are_published() -> None:
    """What these papers and releases say; the other fields say how often to save and evaluate."""
    trained = tsar_presets.PRESETS["paper"].config
    published = {
        "model": "tsar",
        "pixels": "byte-normalised",
        "reset": True,
        "init": None,
        "channels": None,  # 112, of model anml 256: see the system's test
        "regulator_channels": 192,
        "outputs": 1000,
        "initial_bias": -8.0,
        "gate_bias": None,
        "regulated": ("block_0", "block_1", "block_2", "head"),
        "bfloat16": False,
        "order": "first",
        "plastic": (),
        "train_classes": 963,
        "tasks": 1,
        "inner_updates": 20,
        "repeat_first": True,
        "remember": 64,
        "episodes": 1,
        "inner_rate": 0.1,
        "meta_rate": 1e-3,
        "steps": 25_000,
    }
    assert {name: getattr(trained, name) for name in published} == published
    transferred = tsar_transfer.PRESETS["paper"].config
    assert transferred == TransferArguments()  # its defaults are tested where they stand
    omniglot = {"target": "omniglot", "classes": 600, "learn": 15, "score": 5, "test": True}
    assert tsar_transfer.PRESETS["paper-omniglot"].config == dataclasses.replace(
        transferred, **omniglot
    )
    check_target(tsar_transfer.PRESETS["paper-omniglot"].config, (659, 20), trained.outputs)
    sweep = tsar_bias_sweep.PRESETS["paper"].config
    assert sweep == tsar_bias_sweep.Sweep(
        tuple(float(-bias) for bias in range(13)), trained, TransferConfig()
    )


def test_small_presets_score_held_out_images() -> None:
    """What results/tsar records: the others learn the images that they score."""
    for name in ("cpu", "omniglot", "smoke"):
        config = tsar_transfer.PRESETS[name].config
        assert config.test, name
        assert not config.fresh_draws, name
    for name in ("cpu", "smoke"):
        assert tsar_bias_sweep.PRESETS[name].config.transfer.test, name
    omniglot = tsar_transfer.PRESETS["omniglot"].config
    assert (omniglot.classes, omniglot.learn, omniglot.score) == (600, 15, 5)
