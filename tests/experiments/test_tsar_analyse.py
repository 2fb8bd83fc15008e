"""The script, from meta-trained runs to numbers and figures, and bad input."""

import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _meta_trained, tsar_analyse, tsar_meta_train
from tsar_jax import cli
from tsar_jax.analysis import regulation_passes
from tsar_jax.data.episodes import omniglot_scaling
from tsar_jax.errors import UserError
from tsar_jax.evaluation.meta_test import learn_stream
from tsar_jax.evaluation.transfer import TransferConfig, fresh_output
from tsar_jax.models import run_levels, stored_levels
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.tsar import TRANSFERRED, TsarConfig, make_network, make_system
from tsar_jax.training.run import Run, start
from tsar_jax.training.system import System

TINY = TsarConfig(
    pixels="unit",
    channels=2,
    regulator_channels=2,
    outputs=12,
    initial_bias=0,
    train_classes=8,
    inner_updates=2,
    remember=2,
    steps=2,
    chunk=2,
    eval_classes=2,
    eval_runs=1,
    eval_rates=(1e-2,),
)
FIGURES = ["avalanches", "co_activity", "output", "ranks", "regulation", "time_lag"]


def idle_system(config: TsarConfig) -> System:
    """Meta-training whose steps do nothing, for the real ones take long to compile."""
    return make_system(config)._replace(
        step=lambda state, data, key: (state, {"loss": jnp.float32(0)}),
        evaluate=lambda state, data, key: {},
    )


def call(monkeypatch, script, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    cli.run_main(script.main)


def copy_run(path: Path, name: str, **changes: object) -> Path:
    """A run beside another, the same but for its config."""
    copied = path.with_name(name)
    shutil.copytree(path, copied)
    stored = json.loads((copied / "config.json").read_text())
    stored["config"].update(changes)
    (copied / "config.json").write_text(json.dumps(stored))
    return copied


@pytest.fixture(scope="module")
def few():
    everything = _meta_trained.load_omniglot()
    return {name: images[:12] for name, images in everything.items()}


def target_of(few):
    """What stands in for `load_target`."""

    def load_target(name, pixels):
        assert pixels == TINY.pixels
        return few["evaluation"], omniglot_scaling(pixels)

    return load_target


@pytest.fixture(autouse=True)
def few_classes(few, monkeypatch) -> None:
    """A dozen classes of the real data, as the target too."""
    monkeypatch.setattr(tsar_analyse, "load_target", target_of(few))


@pytest.fixture(scope="module")
def folder(few, tmp_path_factory) -> Path:
    """Runs of tsar_meta_train: `tsar`, `partly`; and others, of the checkpoints of `tsar`."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tsar_meta_train, "load_omniglot", lambda: few)
        patch.setattr(tsar_meta_train, "make_system", idle_system)
        patch.setattr(tsar_meta_train, "PRESETS", {"cpu": cli.Preset(TINY, "tiny")})
        call(patch, tsar_meta_train, "--run", folder / "tsar")
        call(patch, tsar_meta_train, "--run", folder / "partly", "--regulated", "block_2")
    copy_run(folder / "tsar", "silent", initial_bias=-8.0)
    copy_run(folder / "tsar", "anml", model="anml")
    copy_run(folder / "tsar", "two", regulated=["block_0", "head"])
    start(Run(folder / "toy", TINY, "toy"), 2)
    (folder / "file").write_text("")
    return folder


@pytest.fixture(scope="module")
def analysed(folder, few) -> Path:
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tsar_analyse, "load_target", target_of(few))
        runs = (folder / "tsar", folder / "silent")
        flags = ("--target", "omniglot", "--classes", 4, "--learn", 3)
        call(patch, tsar_analyse, "--runs", *runs, "--out", out, *flags)
    return out


@pytest.mark.slow
def test_every_figure_is_written(analysed) -> None:
    written = sorted(path.name for path in (analysed / "figures").iterdir())
    assert written == [f"{name}.{suffix}" for name in FIGURES for suffix in ("pdf", "png")]
    assert all(path.stat().st_size > 5_000 for path in (analysed / "figures").iterdir())


@pytest.mark.slow
def test_numbers_are_written(analysed) -> None:
    report = json.loads((analysed / "analysis.json").read_text())
    assert (report["run"], report["step"]) == ("tsar", 2)
    assert report["settings"]["runs"] == ["tsar", "silent"]
    assert report["settings"]["classes"] == 4
    assert report["thresholds"] == [0.1, 0.25, 0.5]
    sizes = {name: numbers["synapses"] for name, numbers in report["layers"].items()}
    assert sizes == {"block_0": 54, "block_1": 36, "block_2": 36, "head": 24}
    for numbers in report["layers"].values():
        assert 0.3 < numbers["mean_regulation"] < 0.7  # the heads' biases began at 0
    assert list(report["regulation"]["slopes"]) == [
        "initial bias 0 (tsar)",
        "initial bias -8 (silent)",
    ]
    assert list(report["avalanches"]["slopes"]) == ["0.1", "0.25", "0.5"]
    assert 0 < report["ranks"]["correlation"] <= 1
    assert -1 <= report["time_lag"]["correlation"] <= 1
    assert report["co_activity"]["shown"] == report["co_activity"]["fire_often"]
    assert 0 <= report["output"]["learned_accuracy"] <= 1
    assert sorted(report["output"]["changes"]) == [
        *("after, negative", "after, positive", "before, negative", "before, positive"),
    ]


@pytest.mark.slow
def test_what_is_not_regulated_is_left_out(folder, monkeypatch, capsys) -> None:
    flags = ("--out", folder / "parts", "--classes", 3, "--learn", 1)
    call(monkeypatch, tsar_analyse, "--runs", folder / "partly", *flags)
    text = capsys.readouterr().out
    assert "co activity: left out" in text
    assert "output: left out" in text
    report = json.loads((folder / "parts" / "analysis.json").read_text())
    assert list(report["layers"]) == ["block_2"]
    assert not {"co_activity", "output"} & set(report)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--runs", "{}/nowhere", "--out", "{}/o"], ["{}/nowhere", "check the path"]),
        (["--runs", "{}", "--out", "{}/o"], ["{} is not a run folder"]),
        (["--runs", "{}/toy", "--out", "{}/o"], ["'toy'", "tsar_meta_train"]),
        (["--runs", "{}/tsar", "{}/anml", "--out", "{}/o"], ["{}/anml", "anml", "model tsar"]),
        (["--runs", "{}/two", "--out", "{}/o"], ["{}/two", "layer block_2", "block_0, head"]),
        (["--runs", "{}/tsar", "--out", "{}/file/o"], ["{}/file/o"]),
        (["--runs", "--out", "{}/o"], ["--runs names no run"]),
        (["--runs", "{}/tsar", "--out", "{}/o", "--classes", "13"], ["classes", "13", "12"]),
        (["--runs", "{}/tsar", "--out", "{}/o", "--classes", "2"], ["classes", "at least 3"]),
        (
            ["--runs", "{}/tsar", "--out", "{}/o", "--classes", "3", "--learn", "21"],
            ["learn", "21", "20"],
        ),
        (["--runs", "{}/tsar", "--out", "{}/o", "--rate", "0"], ["rate", "0"]),
        (["--runs", "{}/tsar", "--out", "{}/o", "--seed", "-1"], ["seed", "-1"]),
        (
            ["--runs", "{}/tsar", "--out", "{}/o", "--learn", "9", "--classes", "3", "--step", "7"],
            ["step 7"],
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    folder, monkeypatch, capsys, arguments, words
) -> None:
    with pytest.raises(SystemExit) as raised:
        call(monkeypatch, tsar_analyse, *(argument.format(folder) for argument in arguments))
    assert raised.value.code == 2
    (message,) = capsys.readouterr().err.strip().splitlines()
    assert message.startswith("error: ")
    for word in words:
        assert word.format(folder) in message


def test_more_gates_than_can_be_counted_are_refused() -> None:
    params = {"regulator": {"block_2": {"bias": np.zeros(2**20)}}}
    labels = jax.ShapeDtypeStruct((2048,), np.int32)
    with pytest.raises(UserError, match=r"2048 images.*at most 2047"):
        regulation_passes.check_countable(
            params, ("block_2",), regulation_passes.Shown(labels, labels)
        )


def test_images_come_class_after_class_each_once() -> None:
    """Each image is its own number here."""
    images = jnp.arange(5 * 6, dtype=jnp.int32).reshape(5, 6, 1, 1)
    protocol = TransferConfig(classes=4, learn=3, test=False)
    shown = regulation_passes.draw_images(images, protocol, jax.random.key(0))
    np.testing.assert_array_equal(shown.labels, np.repeat(np.arange(4), 3))
    numbers = np.asarray(shown.images).reshape(4, 3)
    classes = numbers // 6
    assert (classes == classes[:, :1]).all()
    assert len(set(classes[:, 0].tolist())) == 4
    assert len(set(numbers.ravel().tolist())) == 12


def test_correlation_of_a_histogram_is_that_of_its_samples() -> None:
    rows, columns = np.random.default_rng(0).multivariate_normal([5, 5], [[1, 0.6], [0.6, 1]], 99).T
    rows, columns = rows.astype(int), columns.astype(int)
    counts = np.zeros((12, 12), int)
    np.add.at(counts, (rows, columns), 1)
    found = tsar_analyse.histogram_correlation(counts)
    assert found == pytest.approx(np.corrcoef(rows, columns)[0, 1])
    assert np.isnan(tsar_analyse.histogram_correlation(np.diag([3, 0, 0])))


@pytest.mark.slow
def test_the_output_layer_is_looked_at_once_everything_is_learned(few, folder, analysed) -> None:
    """Against a transfer of all images at once, and the gates that it ends with."""
    protocol = TransferConfig(classes=4, learn=3, test=False, rates=(1e-3,))
    params, _ = tsar_analyse.load_params(folder / "tsar", TINY, None)
    draw_key, fresh_key = jax.random.split(jax.random.key(0))
    shown = regulation_passes.draw_images(few["evaluation"], protocol, draw_key)
    network = make_network(TINY)

    @jax.jit
    def at_once(params):
        start = fresh_output(network, params, protocol.head_bias, fresh_key)
        plastic = mask(start, TRANSFERRED["tsar"])
        images = omniglot_scaling(TINY.pixels)(shown.images)
        signals = run_levels(network, start, images, 0, stored_levels(network, plastic))
        after, _ = learn_stream(network, start, plastic, signals, shown.labels, rate=1e-3)
        gates = run_levels(network, after, images, 0, 2)[1]["head"]["kernel"]
        right = run_levels(network, after, images).argmax(-1) == shown.labels
        return gates.reshape(4, 3, 2, 12).mean(1)[..., :4], after["head"]["kernel"], right.mean()

    arguments = (network, omniglot_scaling(TINY.pixels), protocol, params, shown, fresh_key)
    means, weights, accuracy = regulation_passes.learn_and_look(*arguments)
    wanted_means, wanted_weights, wanted_accuracy = at_once(params)
    np.testing.assert_allclose(means, wanted_means, rtol=1e-3)
    np.testing.assert_allclose(weights, wanted_weights[:, :4], rtol=1e-3, atol=1e-5)
    assert float(accuracy) == pytest.approx(float(wanted_accuracy))
