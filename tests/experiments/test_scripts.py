"""The experiment scripts from their command lines: end to end at tiny widths, and bad input."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from experiments import (
    anml_compare,
    anml_meta_test,
    anml_meta_train,
    quickstart,
)
from tsar_jax import cli
from tsar_jax.data import omniglot
from tsar_jax.errors import UserError
from tsar_jax.systems.episodic import anml_presets, meta_test_run
from tsar_jax.systems.episodic.anml import AnmlConfig, make_network
from tsar_jax.systems.episodic.meta_test import PUBLISHED_RATES, MetaTestConfig, Result
from tsar_jax.training.config import config_to_json
from tsar_jax.training.preset import Preset

TINY = AnmlConfig(
    channels=4,
    gate_channels=2,
    outputs=20,
    train_classes=8,
    inner_updates=4,
    remember=4,
    steps=2,
    chunk=2,
    eval_classes=2,
    eval_runs=1,
    eval_rates=(1e-2,),
)
TEST = MetaTestConfig(classes=(3,), population=6, runs=2, rates=(1e-3, 1e-2), draws=2)

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.fixture(scope="module")
def few():
    """A dozen classes of the real data: the scripts are tried here, not the characters."""
    return {name: images[:12] for name, images in omniglot.load_on_device().items()}


@pytest.fixture(autouse=True)
def few_classes(few, monkeypatch):
    monkeypatch.setattr(omniglot, "load_on_device", lambda: few)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


def run(monkeypatch, script, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    cli.run_main(script.main)


@pytest.mark.slow
def test_train_test_compare(monkeypatch, capsys, tmp_path: Path) -> None:
    presets = {"cpu": Preset(TINY, "tiny")}
    monkeypatch.setattr(anml_meta_train, "PRESETS", presets)
    run(monkeypatch, anml_meta_train, "--out", tmp_path / "a")
    assert (tmp_path / "a" / "metrics.csv").exists()

    preset = Preset(
        anml_meta_test.Arguments(**vars(TEST)),
        "tiny",
    )
    monkeypatch.setattr(anml_meta_test, "PRESETS", {"cpu": preset})
    run(monkeypatch, anml_meta_test, "--run", tmp_path / "a", "--baselines")
    stored = json.loads((tmp_path / "a" / "meta_test-head.json").read_text())
    assert list(stored["conditions"]) == ["meta-trained", "random features", "from scratch"]
    assert (tmp_path / "a" / "figures" / "meta_test-head.png").stat().st_size > 10_000

    runs = [tmp_path / "a", tmp_path / "a"]
    run(monkeypatch, anml_compare, "--runs", *runs, "--out", tmp_path / "out")
    table = (tmp_path / "out" / "table.md").read_text()
    assert table.count("\n") == 2 + 3
    assert "| anml |" in table
    assert (tmp_path / "out" / "figures" / "meta_training.pdf").exists()
    assert "anml, from scratch" in capsys.readouterr().out
    # Three seeds count as three; of one the lifetimes count.
    for given, count in (([*runs, runs[0]], 3), (runs[:1], TEST.runs)):
        run(monkeypatch, anml_compare, "--runs", *given, "--out", tmp_path / "out")
        pooled = json.loads((tmp_path / "out" / "meta_test.json").read_text())["conditions"]
        assert len(pooled["anml"][0]["test"]) == count


@pytest.mark.slow
def test_quickstart_resumes_what_is_there(capsys, folder: Path) -> None:
    quickstart.quickstart(folder / "quick", TINY, TEST)
    first = capsys.readouterr().out
    assert "Meta-trained / random features" in first
    quickstart.quickstart(folder / "quick", TINY, TEST)
    assert "Meta-trained / random features" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        (
            anml_meta_train,
            ["--preset", "huge"],
            ["'huge'", "cpu, cpu-oml, smoke, paper, paper-oml"],
        ),
        (anml_meta_train, ["--steps", "-1"], ["steps", "-1"]),
        (anml_meta_train, ["--train-classes", "13", "--out", "{}/b"], ["train_classes", "13"]),
        (anml_meta_train, ["--resume", "{}/nowhere"], ["{}/nowhere"]),
        (anml_meta_train, ["--out", "{}/file/run"], ["{}/file/run", "--out"]),
        (
            anml_meta_train,
            [
                "--plastic",
                "trunck",
                "--train-classes",
                "12",
                "--eval-classes",
                "2",
                "--out",
                "{}/c",
            ],
            ["'trunck'", "trunk"],
        ),
        (anml_meta_test, [], ["--run"]),
        (anml_meta_test, ["--run", "{}/nowhere"], ["{}/nowhere"]),
        (anml_meta_test, ["--run", "{}/a", "--classes", "700"], ["700", "12"]),
        (anml_meta_test, ["--run", "{}/a", "--step", "77"], ["77"]),
        (anml_meta_test, ["--run", "{}/a", "--runs", "0"], ["runs", "0"]),
        (
            anml_meta_test,
            ["--run", "{}/a", "--plastic", "hed", "--classes", "3"],
            ["'hed'", "head"],
        ),
        (anml_meta_test, ["--run", "{}/other"], ["{}/other"]),
        (anml_compare, ["--runs", "{}/nowhere", "--out", "{}/out"], ["nowhere", "anml_meta_test"]),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    monkeypatch, capsys, folder: Path, script, arguments, words
) -> None:
    (folder / "file").write_text("")
    if not (folder / "a" / "config.json").exists():
        quickstart.quickstart(folder / "a", TINY, TEST)
    other_model(folder)
    with pytest.raises(SystemExit) as raised:
        run(monkeypatch, script, *(argument.format(folder) for argument in arguments))
    assert raised.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    for word in words:
        assert word.format(folder) in message


def other_model(folder: Path) -> None:
    """A run whose config speaks of another model than its checkpoints hold."""
    if (folder / "other").exists():
        return
    import shutil

    shutil.copytree(folder / "a", folder / "other")
    path = folder / "other" / "config.json"
    stored = json.loads(path.read_text())
    stored["config"]["model"] = "oml"
    path.write_text(json.dumps(stored))


def test_a_name_that_no_parameter_has_is_an_error_before_training(folder: Path) -> None:
    with pytest.raises(UserError, match="trunck"):
        quickstart.quickstart(
            folder / "d", AnmlConfig(**{**vars(TINY), "plastic": ("trunck",)}), TEST
        )


def test_everything_tested_sees_pixels_as_its_run_says(monkeypatch, capsys, tmp_path) -> None:
    seen = []

    def recorded(network, params, images, config, report, *, pixels):
        seen.append(pixels)
        return [Result(classes, 1e-3, [0.5], [0.5], [[0.5] * classes]) for classes in (3,)]

    config = AnmlConfig(**{**vars(TINY), "pixels": "unit"})
    trained = config, make_network(config), {}, 2
    for script in (anml_meta_test, quickstart):
        monkeypatch.setattr(script, "load_trained", lambda *_: trained)
        monkeypatch.setattr(script, "write_and_show", lambda *_: None)
    monkeypatch.setattr(meta_test_run, "run_meta_test", recorded)
    monkeypatch.setattr(quickstart, "train", lambda *_: None)
    monkeypatch.setattr(anml_meta_test, "read_run", lambda *_: config)
    run(monkeypatch, anml_meta_test, "--run", tmp_path, "--baselines")
    quickstart.quickstart(tmp_path / "quick", config, TEST)
    assert seen == ["unit"] * 6


def test_runs_that_see_other_pixels_are_no_seeds_of_each_other() -> None:
    others = [AnmlConfig(), AnmlConfig(pixels="unit"), AnmlConfig(model="oml")]
    assert anml_compare.run_names(others[::2]) == ["anml", "oml"]
    assert anml_compare.run_names(others) == [
        "anml, byte-normalised",
        "anml, unit",
        "oml, byte-normalised",
    ]


def test_meta_tests_of_other_protocols_have_other_names() -> None:
    usual = anml_meta_test.Arguments()
    names = {
        "head": {"classes": (3,), "runs": 9, "rates": (1e-3,), "draws": 1, "seed": 3},
        "all-iid-reset": {"plastic": ("all",), "iid": True, "reset": True},
        "head-scratch-2epochs": {"scratch": True, "epochs": 2},
        "head-data-order-smallest-rate": {"class_order": "data", "ties": "smallest"},
        "head-learn10-population100-step500": {"learn": 10, "population": 100, "step": 500},
        "trunk.block_0+head": {"plastic": ("trunk/block_0", "head")},
    }
    for name, change in names.items():
        assert anml_meta_test.default_name(dataclasses.replace(usual, **change)) == name
    many = dataclasses.replace(usual, plastic=tuple(f"trunk/block_{n}/kernel" for n in range(20)))
    assert len(anml_meta_test.default_name(many)) < 30


def test_meta_tests_with_other_settings_are_not_pooled() -> None:
    """A file of an earlier version lacks settings that it had no choice of."""
    files = [Path("a.json"), Path("b.json")]
    made = config_to_json(anml_meta_test.Arguments())
    old = {k: v for k, v in made.items() if k not in ("class_order", "ties", "step", "name")}
    again = {**made, "seed": 1, "memory": 5, "baselines": True, "step": 3}
    for other in (old, again):
        anml_compare.check_settings(files, [{"meta_test": made}, {"meta_test": other}])
    data = {**made, "class_order": "data"}
    with pytest.raises(UserError, match=r"a.json and b.json .*class_order: 'random' -> 'data'"):
        anml_compare.check_settings(files, [{"meta_test": old}, {"meta_test": data}])
    with pytest.raises(UserError, match=r"b.json lacks its settings"):
        anml_compare.check_settings(files, [{"meta_test": made}, {}])


def test_paper_presets_are_the_release() -> None:
    paper = anml_presets.PRESETS["paper"].config
    assert (paper.channels, paper.gate_channels, paper.hidden_features) == (256, 112, 1024)
    assert (paper.pixels, paper.outputs, paper.train_classes) == ("unit-normalised", 1000, 963)
    assert (paper.order, paper.reset, paper.tasks, paper.episodes) == ("first", True, 1, 1)
    assert (paper.inner_updates, paper.remember, paper.repeat_first) == (20, 64, False)
    assert (paper.inner_rate, paper.meta_rate) == (0.1, 1e-3)
    assert (paper.steps, paper.eval_every) == (20_000, 2000)
    oml = anml_presets.PRESETS["paper-oml"].config
    assert oml == dataclasses.replace(paper, model="oml", pixels="unit")
    tested = anml_meta_test.PRESETS["paper"].config
    assert tested.classes == (10, 50, 75, 100, 200, 300, 400, 500, 600)
    assert (tested.rates, tested.draws, tested.ties) == (PUBLISHED_RATES, 10, "smallest")
    assert (tested.runs, tested.population, tested.learn) == (50, 650, 15)
    assert (tested.class_order, tested.plastic, tested.epochs) == ("data", ("head",), 1)
    assert (tested.iid, tested.reset, tested.scratch) == (False, False, False)


def test_release_options_have_flags(tmp_path) -> None:
    config, _ = cli.parse(
        AnmlConfig,
        anml_presets.PRESETS,
        experiment=anml_presets.EXPERIMENT,
        description="",
        argv=["--no-reset", "--pixels", "unit-normalised", "--out", str(tmp_path / "run")],
    )
    assert (config.reset, config.pixels) == (False, "unit-normalised")
