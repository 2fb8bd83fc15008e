"""The script, from meta-trained runs to numbers and figures, and bad input."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import tsar_analyse, tsar_meta_train
from tsar_jax import cli
from tsar_jax.data import omniglot
from tsar_jax.data.episodes import omniglot_scaling
from tsar_jax.errors import UserError
from tsar_jax.systems.episodic.analysis import regulation_runs
from tsar_jax.systems.episodic.analysis.regulation_record import pool
from tsar_jax.systems.episodic.meta_test import Result
from tsar_jax.systems.episodic.meta_test_results import results_to_json
from tsar_jax.systems.episodic.transfer_arguments import TransferArguments
from tsar_jax.systems.episodic.transfer_files import Transfer, find_transfer
from tsar_jax.systems.episodic.tsar import TsarConfig, make_system
from tsar_jax.training.config import config_to_json
from tsar_jax.training.preset import Preset
from tsar_jax.training.run import Run, create_run
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
FIGURES = ["avalanches", "co_activity", "output", "ranks", "time_lag"]


def idle_system(config: TsarConfig) -> System:
    """Meta-training whose steps do nothing, for the real ones take long to compile."""
    return make_system(config)._replace(
        step=lambda state, data, key: (state, {"loss": jnp.float32(0)}, {}),
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
    everything = omniglot.load_on_device()
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
        patch.setattr(omniglot, "load_on_device", lambda: few)
        patch.setattr(tsar_meta_train, "make_system", idle_system)
        patch.setattr(tsar_meta_train, "PRESETS", {"cpu": Preset(TINY, "tiny")})
        call(patch, tsar_meta_train, "--out", folder / "tsar")
        call(patch, tsar_meta_train, "--out", folder / "partly", "--regulated", "block_2")
    copy_run(folder / "tsar", "silent", initial_bias=-8.0)
    copy_run(folder / "tsar", "anml", model="anml")
    copy_run(folder / "tsar", "wide", channels=3)
    odd = copy_run(folder / "tsar", "odd")
    (odd / "transfer-mini_imagenet-random.json").write_text("{")
    copy_run(folder / "tsar", "two", regulated=["block_0", "head"])
    create_run(Run(folder / "toy", TINY, "toy"), 2)
    (folder / "file").write_text("")
    return folder


def write_transfer(
    path: Path,
    rate: float,
    accuracy: float,
    kind: str = "transfer",
    suffix: str = "-3x3",
    **options: object,
) -> None:
    """What tsar_transfer leaves in a run, or tsar_bias_sweep (kind transfer-sweep)."""
    result = Result(3, rate, [0.5], [accuracy], [[accuracy] * 3])
    arguments = TransferArguments(target="omniglot", classes=3, learn=3, **options)
    text = results_to_json({"meta-trained": [result]}, {"transfer": config_to_json(arguments)})
    (path / f"{kind}-omniglot-random{suffix}.json").write_text(text)


@pytest.fixture(scope="module")
def analysed(folder, few) -> Path:
    """Two runs of one initial bias, transferred, and one of another, while they learn."""
    out = folder / "out"
    write_transfer(copy_run(folder / "tsar", "seed1", seed=1), 0.02, 0.6)
    write_transfer(copy_run(folder / "tsar", "seed2", seed=2), 0.003, 0.7, "transfer-sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tsar_analyse, "load_target", target_of(few))
        runs = (folder / name for name in ("silent", "seed1", "seed2"))
        flags = ("--target", "omniglot", "--classes", 4, "--learn", 3)
        call(patch, tsar_analyse, "--runs", *runs, "--out", out, *flags)
    return out


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.slow
def test_every_figure_is_written(analysed) -> None:
    written = {
        str(path.relative_to(analysed / "figures"))
        for path in (analysed / "figures").rglob("*")
        if path.is_file()
    }
    places = "initial_bias_0", "initial_bias_0/best", "initial_bias_-8"
    names = [f"{place}/{name}" for place in places for name in FIGURES]
    names += ["regulation", "regulation_best"]
    assert written == {f"{name}.{suffix}" for name in names for suffix in ("pdf", "png")}


@pytest.mark.slow
def test_arrays_of_runs_are_pooled_by_initial_bias(analysed) -> None:
    written = sorted(path.name for path in (analysed / "arrays").iterdir())
    assert written == ["initial_bias_0.npz", "seed1.npz", "seed2.npz", "silent.npz"]
    pooled, *runs = (arrays(analysed / "arrays" / written[place]) for place in (0, 1, 2))
    assert (runs[0]["regulation_block_2"] != runs[1]["regulation_block_2"]).any()  # other rates
    for name, values in pool(runs).items():
        np.testing.assert_array_equal(pooled[name], values)


@pytest.mark.slow
def test_numbers_are_written(analysed) -> None:
    report = json.loads((analysed / "analysis.json").read_text())
    assert report["settings"]["runs"] == ["silent", "seed1", "seed2"]
    assert (report["settings"]["mode"], report["settings"]["classes"]) == ("learning", 4)
    assert report["thresholds"] == [0.1, 0.25, 0.5]
    rates = {name: run["rate"] for name, run in report["runs"].items()}
    assert rates == {"seed1": 0.02, "seed2": 0.003, "silent": 0.001}
    assert {run["step"] for run in report["runs"].values()} == {2}
    assert list(report["initial_biases"]) == ["0", "-8"]
    pooled = report["initial_biases"]["0"]
    assert (pooled["runs"], pooled["best"]) == (["seed1", "seed2"], "seed2")
    assert pooled["best_by"] == "accuracy at the end of its transfer"
    assert pooled["images"] == 24
    sizes = {name: numbers["synapses"] for name, numbers in pooled["layers"].items()}
    assert sizes == {"block_0": 54, "block_1": 36, "block_2": 36, "head": 24}
    assert 0 < pooled["ranks"]["correlation"] <= 1
    assert list(pooled["co_activity"]) == ["block_1", "block_2", "block_1_block_2"]
    assert sorted(pooled["output"]["changes"]) == [
        *("after, negative", "after, positive", "before, negative", "before, positive"),
    ]


def test_only_transfers_as_published_count(tmp_path) -> None:
    def find(step: int | None = None) -> float | None:
        transfer = find_transfer(tmp_path, TINY, "omniglot", step)
        return transfer and transfer.result.rate

    others = {"iid": True}, {"reset": True}, {"plastic": ("all",)}, {"rln": 10}, {"step": 5}
    for number, options in enumerate(others):
        write_transfer(tmp_path, 0.1, 0.9, "transfer", f"{number}", **options)
    assert find() is None
    assert find(step=5) == 0.1
    write_transfer(tmp_path, 0.4, 0.5, "transfer-sweep", "")
    assert find() == 0.4
    write_transfer(tmp_path, 0.3, 0.5, "transfer", "-retention", rln=6)
    assert find() == 0.3
    write_transfer(tmp_path, 0.2, 0.5, "transfer", "", test=True)
    assert find() == 0.2


def test_transfers_of_other_settings_do_not_tell_the_best(monkeypatch) -> None:
    def analysed(name: str, accuracy: float, test: bool) -> regulation_runs.Analysed:
        result = Result(3, 1e-3, [0.5], [accuracy], [[accuracy] * 3])
        transfer = Transfer(result, {"test": test})
        return regulation_runs.Analysed(
            regulation_runs.Source(Path(name), name, TINY, transfer, 1e-3), 2, {}
        )

    monkeypatch.setattr(regulation_runs, "read_rows", lambda path: [])
    runs = [analysed("a", 0.2, True), analysed("b", 0.3, True)]
    assert regulation_runs.run_accuracies(runs) == (
        [0.2, 0.3],
        "accuracy at the end of its transfer",
    )
    _, best_by = regulation_runs.run_accuracies([runs[0], analysed("b", 0.9, False)])
    assert "meta-training" in best_by


def test_runs_that_see_other_pixels_are_not_pooled_but_older_ones_are() -> None:
    def source(**changes: object) -> regulation_runs.Source:
        config = dataclasses.replace(TINY, channels=None, **changes)
        return regulation_runs.Source(Path("run"), "run", config, None, 1e-3)

    first = source()
    old = first._replace(config=dataclasses.replace(first.config, channels=112, gate_bias=0.0))
    regulation_runs.check_poolable(first, old)
    with pytest.raises(UserError, match="pixels is unit and byte-normalised"):
        regulation_runs.check_poolable(first, source(pixels="byte-normalised"))


def test_without_transfers_the_best_is_told_by_meta_training(monkeypatch) -> None:
    """Only the training of the last tenth of steps counts."""
    runs = [regulation_runs.Source(Path(n), n, TINY, None, 1e-3) for n in ("seed1", "seed2")]
    one = [regulation_runs.Analysed(source, 2, {}) for source in runs]
    rows = {
        "seed1": [{"step": 2, "split": "train", "accuracy": 0.4}],
        "seed2": [
            {"step": 1, "split": "train", "accuracy": 0.9},
            {"step": 2, "split": "train", "accuracy": 0.3},
            {"step": 2, "split": "train", "loss": 0.1},
            {"step": 2, "split": "eval", "accuracy": 0.9},
        ],
    }
    monkeypatch.setattr(regulation_runs, "read_rows", lambda path: rows[path.name])
    scores, best_by = regulation_runs.run_accuracies(one)
    assert scores == [0.4, 0.3]
    assert "meta-training" in best_by


@pytest.mark.slow
def test_frozen_is_the_network_as_it_was_meta_trained(folder, monkeypatch, capsys) -> None:
    """Its output layer is looked at all the same, and the rate matters to that alone."""
    flags = ("--target", "omniglot", "--classes", 4, "--learn", 3, "--mode", "frozen")
    for name, rate in (("slow", 0.001), ("fast", 0.1)):
        where = "--runs", folder / "tsar", "--out", folder / name
        call(monkeypatch, tsar_analyse, *where, *flags, "--rate", rate)
    assert "output:" in capsys.readouterr().out
    slow, fast = (arrays(folder / name / "arrays" / "tsar.npz") for name in ("slow", "fast"))
    differ = {name for name in slow if (slow[name] != fast[name]).any()}
    assert {"output_positive", "output_negative"} <= differ
    assert differ <= {"output_positive", "output_negative", "learned_accuracy"}


@pytest.mark.slow
def test_what_is_not_regulated_is_left_out(folder, monkeypatch, capsys) -> None:
    flags = ("--out", folder / "parts", "--target", "omniglot", "--classes", 3, "--learn", 1)
    call(monkeypatch, tsar_analyse, "--runs", folder / "partly", *flags)
    assert "output: left out" in capsys.readouterr().out
    numbers = json.loads((folder / "parts" / "analysis.json").read_text())["runs"]["partly"]
    assert list(numbers["layers"]) == list(numbers["co_activity"]) == ["block_2"]
    assert "output" not in numbers


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--runs", "{}/nowhere", "--out", "{}/o"], ["{}/nowhere", "check the path"]),
        (["--runs", "{}", "--out", "{}/o"], ["{} is not a run folder"]),
        (["--runs", "{}/toy", "--out", "{}/o"], ["'toy'", "tsar_meta_train"]),
        (["--runs", "{}/tsar", "{}/anml", "--out", "{}/o"], ["{}/anml", "anml", "model tsar"]),
        (["--runs", "{}/two", "--out", "{}/o"], ["{}/two", "layer 'block_2'", "block_0, head"]),
        (["--runs", "{}/tsar", "--out", "{}/file/o"], ["{}/file/o"]),
        (["--runs", "{}/tsar", "{}/tsar", "--out", "{}/o"], ["{}/tsar twice"]),
        (["--runs", "{}/tsar", "{}/wide", "--out", "{}/o"], ["{}/wide", "channels is 2 and 3"]),
        (["--runs", "{}/odd", "--out", "{}/o"], ["transfer-mini_imagenet-random.json"]),
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
