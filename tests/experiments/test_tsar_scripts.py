"""TSAR's scripts from their command lines: end to end at tiny widths, and bad input."""

import csv
import dataclasses
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import (
    tsar_bias_sweep,
    tsar_compare,
    tsar_find_spikes,
    tsar_meta_train,
    tsar_transfer,
)
from tsar_jax import cli
from tsar_jax.data import omniglot
from tsar_jax.data.episodes import omniglot_scaling
from tsar_jax.data.normalise import normalise_cifar100, normalise_imagenet
from tsar_jax.data.types import ImageSet
from tsar_jax.errors import UserError
from tsar_jax.systems.episodic import targets
from tsar_jax.systems.episodic.meta_test import Result
from tsar_jax.systems.episodic.transfer import TransferConfig
from tsar_jax.systems.episodic.transfer_arguments import CPU, TransferArguments, default_name
from tsar_jax.systems.episodic.tsar import TRANSFERRED, TsarConfig
from tsar_jax.systems.episodic.tsar_presets import EXPERIMENT
from tsar_jax.training.preset import Preset
from tsar_jax.training.run import Run, create_run

CLASSES, IMAGES = 12, 20
TINY = TsarConfig(
    pixels="unit",
    channels=2,
    regulator_channels=2,
    outputs=12,
    train_classes=8,
    inner_updates=4,
    remember=4,
    steps=2,
    chunk=2,
    eval_classes=2,
    eval_runs=1,
    eval_rates=(1e-2,),
)
TRANSFER = TransferConfig(classes=3, learn=2, test=True, rates=(1e-2,), draws=1, runs=2)
NAME = "omniglot-random-3x2"


pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.fixture(autouse=True, scope="module")
def small():
    """A dozen classes of the real data and tiny presets: the scripts are tried here."""
    few = {name: images[:CLASSES] for name, images in omniglot.load_on_device().items()}
    names = tuple(f"Alphabet/character{index:02}" for index in range(CLASSES))
    domain = ImageSet(np.asarray(few["evaluation"]), names)
    arguments = TransferArguments(**vars(TRANSFER), target="omniglot")
    sweep = tsar_bias_sweep.Sweep((0.0, -8.0), TINY, TRANSFER, "omniglot")

    def load_classes(name, pixels):
        assert pixels == TINY.pixels
        return domain, omniglot_scaling(pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omniglot, "load_on_device", lambda: few)
        for module in (targets, tsar_find_spikes):
            patch.setattr(module, "load_classes", load_classes)
        for script, config in (
            (tsar_meta_train, TINY),
            (tsar_transfer, arguments),
            (tsar_bias_sweep, sweep),
        ):
            patch.setattr(script, "PRESETS", {"cpu": Preset(config, "tiny")})
        yield


def test_images_are_normalised_as_the_domain_and_omniglot_as_the_run():
    assert targets.normaliser("omniglot", "unit") is omniglot_scaling("unit")
    assert targets.normaliser("cifar100", "unit") is normalise_cifar100
    assert targets.normaliser("mini_imagenet", "unit") is normalise_imagenet


def run(script, *arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script", *map(str, arguments)])
        cli.run_main(script.main)


@pytest.fixture(scope="module")
def folder(quickly_compiled, small, tmp_path_factory) -> Path:
    """A TSAR, meta-trained and transferred, in the folder "tsar"; others made from its files."""
    folder = tmp_path_factory.mktemp("runs")
    run(tsar_meta_train, "--out", folder / "tsar")
    run(tsar_transfer, "--run", folder / "tsar", "--baselines")
    make_copy(folder, "seed", {"seed": 1})
    make_copy(folder, "unregulated", {"model": "unregulated"})
    make_copy(folder, "open", {"initial_bias": 0.0})
    make_copy(folder, "longer", {"seed": 2}, {"learn": 4})
    make_copy(folder, "damaged", {"seed": 3})
    damaged = folder / "damaged" / f"transfer-{NAME}.json"
    damaged.write_text(damaged.read_text().replace('"right_after"', '"later"'))
    make_copy(folder, "fresh", {"seed": 4})
    (folder / "fresh" / f"transfer-{NAME}.json").unlink()
    make_copy(folder, "anml", {})
    description = folder / "anml" / "config.json"
    description.write_text(description.read_text().replace("tsar_meta_train", "anml_meta_train"))
    return folder


def make_copy(folder: Path, name: str, config: dict, transfer: dict | None = None) -> None:
    """A copy of the TSAR's run whose files tell of other settings."""
    shutil.copytree(folder / "tsar", folder / name)
    change(folder / name / "config.json", "config", config)
    path = folder / name / f"transfer-{NAME}.json"
    stored = json.loads(path.read_text())
    stored["settings"]["transfer"].update(transfer or {})
    path.write_text(json.dumps(stored))


def change(path: Path, part: str, changes: dict) -> None:
    stored = json.loads(path.read_text())
    stored[part].update(changes)
    path.write_text(json.dumps(stored))


def test_transfer_writes_accuracies_of_both_conditions(folder: Path) -> None:
    stored = json.loads((folder / "tsar" / f"transfer-{NAME}.json").read_text())
    assert list(stored["conditions"]) == ["meta-trained", "from scratch"]
    assert np.shape(stored["settings"]["right_after"]["from scratch"]) == (2, 3)
    assert (folder / "tsar" / "figures" / f"transfer-{NAME}.png").stat().st_size > 10_000


def test_transfer_writes_its_options_and_learns_what_they_say(folder: Path, monkeypatch) -> None:
    def note(network, params, plastic, images, normalise, settings):
        noted.append((plastic, settings))
        result = Result(3, 1e-2, [0.5, 0.5], [0.5, 0.5], [[0.5] * 3] * 2)
        return result, np.full((2, 3), 0.5)

    noted: list = []
    monkeypatch.setattr(tsar_transfer, "transfer", note)
    for options in (
        ["--iid", "--reset", "--plastic", "all"],
        ["--rln", "10", "--no-test", "--fresh-draws", "--name", "classifier"],
        ["--learn", "12", "--score", "8", "--name", "published"],
    ):
        run(tsar_transfer, "--run", folder / "fresh", *options)
    stored = [
        json.loads((folder / "fresh" / f"transfer-{name}.json").read_text())["settings"]
        for name in (f"{NAME}-iid-reset-plastic-all", "classifier", "published")
    ]
    classifier = [name for name in noted[1][0] if name.split("/")[0] in ("trunk", "head")]
    assert [plastic for plastic, _ in noted] == [("all",), tuple(classifier), TRANSFERRED["tsar"]]
    assert len(classifier) == 14
    assert [settings["plastic"] for settings in stored] == [list(plastic) for plastic, _ in noted]
    wanted = (
        {"iid": True, "reset": True, "plastic": ["all"], "rln": None, "test": True},
        {"iid": False, "reset": False, "plastic": None, "rln": 10, "test": False},
        {"learn": 12, "score": 8, "plastic": None, "rln": None, "test": True},
    )
    for (_, settings), file, options in zip(noted, stored, wanted, strict=True):
        assert options.items() <= file["transfer"].items()
        given = {name: value for name, value in options.items() if name in vars(settings)}
        assert given.items() <= vars(settings).items()
    assert noted[1][1].fresh_draws


def test_compare_refuses_any_other_setting_of_the_transfer(folder: Path) -> None:
    run_ = tsar_compare.read_transfer(folder / "tsar", NAME)
    wanted = {"iid", "reset", "score", "test", "head_bias", "rates", "runs", "fresh_draws"}
    assert wanted <= set(run_.settings)
    assert run_.settings.keys() >= vars(TRANSFER).keys() - {"memory", "seed"}
    for name in run_.settings:
        other = run_._replace(path=folder / "seed", settings={**run_.settings, name: "another"})
        with pytest.raises(UserError, match=f"transferred differently.*{name}: .*'another'"):
            tsar_compare.check_comparable([run_, other])


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({"plastic": ["trunk", "head"]}, "TSAR, learning trunk head"),
        ({"rln": 10}, "TSAR, rln 10"),
        ({"plastic": ["head", "trunk", "regulator"]}, "TSAR"),
        ({"rln": 6}, "TSAR"),
        ({}, "TSAR"),
    ],
)
def test_compare_names_what_learned_where_it_is_not_as_published(
    folder: Path, tmp_path: Path, options, label
) -> None:
    shutil.copytree(folder / "tsar", tmp_path / "run")
    path = tmp_path / "run" / f"transfer-{NAME}.json"
    stored = json.loads(path.read_text())
    stored["settings"]["transfer"].update(options)
    path.write_text(json.dumps(stored))
    runs = [tsar_compare.read_transfer(where, NAME) for where in (folder / "tsar", path.parent)]
    tsar_compare.check_comparable(runs)
    pooled = tsar_compare.pool(runs)
    assert list(pooled) == list(
        dict.fromkeys(["TSAR", label, "TSAR, from scratch", f"{label}, from scratch"])
    )
    assert len(pooled["TSAR"].right_after) == (2 if label == "TSAR" else 1)


LATER = ("iid", "reset", "score", "fresh_draws", "plastic", "rln")


@pytest.mark.parametrize(
    ("model", "label"), [("tsar", "TSAR"), ("anml", "ANML, learning trunk head")]
)
def test_compare_reads_transfers_from_before_the_later_settings(
    folder: Path, tmp_path: Path, model, label
) -> None:
    """So they were made: rates on one draw, class after class, and ANML's gate did not learn."""
    shutil.copytree(folder / "tsar", tmp_path / "run")
    change(tmp_path / "run" / "config.json", "config", {"model": model})
    path = tmp_path / "run" / f"transfer-{NAME}.json"
    stored = json.loads(path.read_text())
    for name in LATER:
        del stored["settings"]["transfer"][name]
    path.write_text(json.dumps(stored))
    found = tsar_compare.read_transfer(path.parent, NAME)
    assert found.label == label
    earlier = {"iid": False, "reset": False, "score": None, "fresh_draws": False}
    assert earlier.items() <= found.settings.items()


def test_transfers_of_other_protocols_have_other_names() -> None:
    usual = TransferArguments(**vars(CPU))
    omniglot = dataclasses.replace(usual, target="omniglot", learn=10)
    names = {
        "mini_imagenet-random": (usual, {"runs": 49, "rates": (1e-3,), "seed": 1, "score": 30}),
        "omniglot-random": (omniglot, {"baselines": True, "memory": 5, "rln": 6}),
        "omniglot-random-600x15-score5": (omniglot, {"classes": 600, "learn": 15, "score": 5}),
        "cifar100-mixed10": (usual, {"target": "cifar100", "condition": "mixed", "mixed": 10}),
        "mini_imagenet-random-retention-iid-reset": (
            usual,
            {"test": False, "iid": True, "reset": True},
        ),
        "mini_imagenet-random-rln10": (usual, {"rln": 10}),
        "mini_imagenet-random-plastic-trunk.block_0+head": (
            usual,
            {"plastic": ("trunk/block_0", "head")},
        ),
        "mini_imagenet-random-bias-1-step5": (usual, {"head_bias": -1.0, "step": 5}),
    }
    for name, (base, changes) in names.items():
        arguments = dataclasses.replace(base, **changes)
        assert default_name(arguments, TINY) == name
    paper = TransferArguments()
    assert default_name(paper, TINY) == "mini_imagenet-random-retention"


def test_compare_pools_the_seeds_of_each_model(folder: Path, capsys) -> None:
    runs = [folder / name for name in ("tsar", "seed", "unregulated")]
    run(tsar_compare, "--runs", *runs, "--out", folder / "out", "--name", NAME)
    stored = json.loads((folder / "out" / "transfer.json").read_text())
    one = json.loads((folder / "tsar" / f"transfer-{NAME}.json").read_text())
    labels = ["TSAR", "unregulated", "TSAR, from scratch", "unregulated, from scratch"]
    assert list(stored["conditions"]) == labels
    assert stored["settings"]["transfer"]["test"] is True
    [pooled], [alone] = stored["conditions"]["TSAR"], one["conditions"]["meta-trained"]
    assert pooled["test"] == pytest.approx([np.mean(alone["test"])] * 2)
    np.testing.assert_allclose(pooled["per_class"], [np.mean(alone["per_class"], 0)] * 2)
    soon = one["settings"]["right_after"]["meta-trained"]
    np.testing.assert_allclose(stored["settings"]["right_after"]["TSAR"], [np.mean(soon, 0)] * 2)

    table = (folder / "out" / "table.md").read_text().splitlines()
    cells = [cell.strip() for cell in table[2].strip("|").split("|")]
    right_after, at_end = (f"{np.mean(v):.3f}".lstrip("0") for v in (soon, alone["test"]))
    assert cells[:2] == ["TSAR", "2"]
    assert [cell.split(" ")[0] for cell in cells[2:4]] == [right_after, at_end]
    assert cells[-1] == ".333"
    assert len(table) == 2 + len(labels)
    assert (folder / "out" / "figures" / "transfer.pdf").exists()
    assert "TSAR, from scratch" in capsys.readouterr().out


def test_find_spikes_ranks_every_image_in_its_class(folder: Path, capsys) -> None:
    run(tsar_find_spikes, "--run", folder / "tsar", "--target", "omniglot", "--each", 2)
    with (folder / "tsar" / "spikes-omniglot.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == CLASSES * IMAGES
    own = [row for row in rows if row["class"] == "Alphabet/character03"]
    assert sorted(int(row["rank_in_class"]) for row in own) == list(range(1, IMAGES + 1))
    by_rank = sorted(own, key=lambda row: int(row["rank_in_class"]))
    values = [float(row["mean_regulation"]) for row in by_rank]
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] < values[0] < 1
    assert (folder / "tsar" / "figures" / "spikes-omniglot.png").stat().st_size > 10_000
    assert "99th percentile" in capsys.readouterr().out


@pytest.mark.slow
def test_sweep_skips_the_finished_and_repeats_itself(folder: Path, capsys, monkeypatch) -> None:
    """The run of bias -8 is there; that of 0 is trained, and then nothing is left to do."""
    out = folder / "sweep"
    shutil.copytree(folder / "tsar", out / "bias-8")
    trained_before = (out / "bias-8" / "metrics.jsonl").read_bytes()
    run(tsar_bias_sweep, "--out", out)
    assert (out / "bias-8" / "metrics.jsonl").read_bytes() == trained_before
    assert json.loads((out / "bias-0" / "config.json").read_text())["config"]["initial_bias"] == 0
    report = json.loads((out / "bias_sweep.json").read_text())
    assert list(report["biases"]) == ["0", "-8"]
    shares = [entry["open_share"] for entry in report["biases"].values()]
    assert shares[0] > 0.25 > shares[1]
    assert (out / "table.md").read_text().count("\n") == 2 + 2
    assert (out / "figures" / "bias_sweep.pdf").exists()
    printed = capsys.readouterr().out
    assert f"tsar-jax run tsar_analyse --runs {out}/bias-* --out {out}/analysis" in printed

    monkeypatch.delattr(tsar_bias_sweep, "train")
    run(tsar_bias_sweep, "--out", out)
    assert json.loads((out / "bias_sweep.json").read_text()) == report
    assert "meta-training" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(tsar_bias_sweep, "--out", out, "--train.steps", 3)
    assert "bias-0 was begun with other settings (steps: 2 -> 3)" in capsys.readouterr().err


@pytest.mark.parametrize("reset", [False, True])
def test_a_sweep_that_resets_begins_at_each_bias(tmp_path, monkeypatch, reset) -> None:
    """All biases share one network, and so compiled programs, where its start does not matter."""

    def note(network, *_):
        noted.append(network)
        return Result(3, 1e-2, [0.5] * 2, [0.5] * 2, [[0.5] * 3] * 2), np.full((2, 3), 0.5)

    def train(system, data, config, run):
        run.path.mkdir(parents=True)
        return SimpleNamespace(state=SimpleNamespace(params={}), step=2)

    noted: list = []
    monkeypatch.setattr(tsar_bias_sweep, "transfer", note)
    monkeypatch.setattr(tsar_bias_sweep, "train", train)
    monkeypatch.setattr(tsar_bias_sweep, "open_share", lambda *_: jnp.float32(0.5))
    options = ["--transfer.reset"] if reset else []
    run(tsar_bias_sweep, "--out", tmp_path, *options)
    begun = [network.initial_bias for network in noted]
    assert begun == ([0.0, -8.0] if reset else [TINY.initial_bias] * 2)
    name = f"transfer-sweep-{NAME}{'-reset' if reset else ''}.json"
    assert (tmp_path / "bias-8" / name).exists()


def test_a_sweep_takes_folders_of_an_earlier_version(tmp_path) -> None:
    """Its configs had the channels that None stands for today, and a gate's bias without a gate."""
    today = dataclasses.replace(TINY, channels=None)
    old = dataclasses.replace(today, channels=112, gate_bias=0.0)
    create_run(Run(tmp_path, old, EXPERIMENT), 2)
    tsar_bias_sweep.check_folder(tmp_path, today)
    with pytest.raises(UserError, match="channels: 112 -> 5"):
        tsar_bias_sweep.check_folder(tmp_path, dataclasses.replace(today, channels=5))


def test_a_sweep_goes_on_with_the_config_that_its_folder_has(tmp_path, monkeypatch) -> None:
    """Checkpoints refuse another, even of the same network."""

    def stop(system, data, config, run):
        raise UserError(f"gate_bias {config.gate_bias}, {run.config.gate_bias}")

    old = dataclasses.replace(TINY, gate_bias=0.0)
    create_run(Run(tmp_path / "bias-8", old, EXPERIMENT), 2)
    monkeypatch.setattr(tsar_bias_sweep, "train", stop)
    sweep = tsar_bias_sweep.Sweep((-8.0,), TINY, TRANSFER, "omniglot")
    with pytest.raises(UserError, match=r"gate_bias 0\.0, 0\.0"):
        tsar_bias_sweep.run_bias(tmp_path / "bias-8", TINY, sweep, {}, None, None)


def test_seeds_of_an_earlier_version_are_seeds_of_today() -> None:
    today = TsarConfig()
    old = dataclasses.replace(today, channels=112, gate_bias=0.0)
    assert tsar_compare.training_settings(old) == tsar_compare.training_settings(today)


def test_folders_of_biases() -> None:
    names = [tsar_bias_sweep.run_folder(Path("out"), bias).name for bias in (-8.0, -0.5, 0.0, 2.0)]
    assert names == ["bias-8", "bias-0.5", "bias-0", "bias-plus-2"]


@pytest.mark.parametrize("preset", tsar_bias_sweep.PRESETS.values(), ids=tsar_bias_sweep.PRESETS)
def test_presets_of_the_sweep_differ_in_bias_alone(preset) -> None:
    assert preset.config.biases[0] == 0
    assert preset.config.train == dataclasses.replace(preset.config.train, initial_bias=-8.0)


COMPARE = ["--out", "{}/none", "--name", NAME, "--runs"]
SPIKES = ["--target", "omniglot", "--run"]
SWEEP = ["--out", "{}/none"]


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        (tsar_meta_train, ["--model", "tsar", "--regulated", "block_9"], ["block_9", "head"]),
        (tsar_transfer, ["--run", "{}/nowhere"], ["{}/nowhere", "check the path"]),
        (tsar_transfer, ["--run", "{}/anml"], ["{}/anml", "'anml_meta_train'"]),
        (tsar_transfer, ["--run", "{}/tsar", "--classes", "13"], ["classes is 13", "only 12"]),
        (tsar_transfer, ["--run", "{}/tsar", "--learn", "11"], ["learn is 11", "only 10"]),
        (tsar_transfer, ["--run", "{}/tsar", "--score", "5", "--no-test"], ["score is 5", "test"]),
        (tsar_transfer, ["--run", "{}/tsar", "--plastic", "gain"], ["'gain'", "choose from all"]),
        (tsar_transfer, ["--run", "{}/tsar", "--plastic"], ["plastic", "all"]),
        (tsar_transfer, ["--run", "{}/tsar", "--rln", "17"], ["rln", "0 to 16", "17"]),
        (tsar_transfer, ["--run", "{}/tsar", "--rln", "6", "--plastic", "all"], ["rln", "out"]),
        (tsar_transfer, ["--run", "{}/unregulated", "--rln", "6"], ["unregulated", "plastic"]),
        (tsar_compare, [*COMPARE, "{}/nowhere"], ["{}/nowhere"]),
        (tsar_compare, [*COMPARE, "{}/anml"], ["{}/anml", "'anml_meta_train'"]),
        (tsar_compare, [*COMPARE, "{}/fresh"], ["{}/fresh/transfer-", "run tsar_transfer"]),
        (tsar_compare, [*COMPARE, "{}/damaged"], ["{}/damaged", "run tsar_transfer again"]),
        (tsar_compare, [*COMPARE, "{}/tsar", "{}/longer"], ["{}/longer", "learn: 2 -> 4"]),
        (tsar_compare, [*COMPARE, "{}/tsar", "{}/open"], ["{}/open", "initial_bias: -8.0 -> 0.0"]),
        (tsar_compare, [*COMPARE, "{}/tsar", "{}/tsar"], ["{}/tsar twice"]),
        (tsar_compare, COMPARE, ["--runs"]),
        (tsar_find_spikes, [*SPIKES, "{}/nowhere"], ["{}/nowhere"]),
        (tsar_find_spikes, [*SPIKES, "{}/anml"], ["{}/anml", "'anml_meta_train'"]),
        (tsar_find_spikes, [*SPIKES, "{}/unregulated"], ["{}/unregulated", "no regulation"]),
        (tsar_find_spikes, [*SPIKES, "{}/tsar", "--show", "13"], ["show is 13", "only 12"]),
        (tsar_find_spikes, [*SPIKES, "{}/tsar", "--step", "77"], ["77"]),
        (tsar_find_spikes, [*SPIKES, "{}/tsar", "--each", "0"], ["each", "0"]),
        (tsar_bias_sweep, [], ["--out"]),
        (tsar_bias_sweep, [*SWEEP, "--preset", "huge"], ["'huge'", "cpu"]),
        (tsar_bias_sweep, [*SWEEP, "--biases", "0", "-0"], ["biases"]),
        (tsar_bias_sweep, [*SWEEP, "--train.model", "anml"], ["train.model"]),
        (tsar_bias_sweep, [*SWEEP, "--transfer.classes", "13"], ["classes is 13", "only 12"]),
        (tsar_bias_sweep, [*SWEEP, "--train.train-classes", "13"], ["train_classes", "13"]),
        (tsar_bias_sweep, ["--out", "{}/file"], ["{}/file", "cannot be written"]),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    capsys, folder: Path, script, arguments, words
) -> None:
    (folder / "file").write_text("")
    with pytest.raises(SystemExit) as raised:
        run(script, *(argument.format(folder) for argument in arguments))
    assert raised.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    for word in words:
        assert word.format(folder) in message
