"""The scripts of learned plasticity rules from their command lines: end to end, and bad input."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import command, failure

from experiments import plasticity_evaluate, plasticity_meta_train
from tsar_jax import cli
from tsar_jax.data.types import Dataset
from tsar_jax.errors import UserError
from tsar_jax.plasticity import rules
from tsar_jax.systems.learned_rules.episodes_file import read_episodes
from tsar_jax.systems.learned_rules.presets import EXPERIMENT, PRESETS
from tsar_jax.systems.learned_rules.rule_file import read_rule

pytestmark = pytest.mark.usefixtures("quickly_compiled")

ROOT = Path(__file__).parents[2]
OWN_MODULE = """
from tsar_jax.plasticity.rules import Outer, term


@term("anti_hebb")
def anti_hebb(s):
    return Outer(s.post, s.pre, -1.0)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny run on the packaged handwriting."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        command(
            plasticity_meta_train,
            *("--preset", "smoke", "--out", path, "--held-out", 3),
            monkeypatch=patch,
        )
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_draws_episodes_as_published(name) -> None:
    config = PRESETS[name].config
    assert (config.split, config.fixed_images, config.replacement) == ("test", True, True)


def test_the_preset_paper_is_the_releases() -> None:
    config = PRESETS["paper"].config
    published = {
        **{"steps": 600, "seeds": 20, "classes": 5, "learn": 50, "query": 10, "l1": 0.0},
        **{"meta_rate": 1e-3, "start": 1e-3, "avg_window": 10, "feedback": "fix"},
        **{"hidden": (170, 130, 100, 70), "beta": 10.0, "per_layer": False},
        **{"rate_shares": (), "clip": None, "held_out": 0},
        "terms": ("pseudo_gradient", "ehebb", "oja"),
    }
    assert {name: getattr(config, name) for name in published} == published
    terms = {name: preset.config.terms for name, preset in PRESETS.items()}
    assert terms["fa"] == terms["bp"] == ("pseudo_gradient",)
    assert PRESETS["bp"].config.feedback == "sym"


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_prepared_data_set_is_drawn_from_in_the_split_that_is_named(
    split, tmp_path, monkeypatch
) -> None:
    packaged = plasticity_meta_train.load("emnist").splits["train"]
    blank = dataclasses.replace(packaged, images=np.zeros_like(packaged.images))
    splits = {"train": blank, "test": blank, split: packaged}
    drawn = []
    monkeypatch.setattr(
        plasticity_meta_train, "load", lambda name: Dataset(name, splits, "prepared")
    )
    monkeypatch.setattr(
        plasticity_meta_train,
        "train",
        lambda system, images, *rest: drawn.append(images) or sys.exit(0),
    )
    with pytest.raises(SystemExit):
        command(
            plasticity_meta_train,
            *("--preset", "smoke", "--out", tmp_path / "run", "--split", split),
            monkeypatch=monkeypatch,
        )
    assert drawn[0].any()


def test_a_run_leaves_its_episodes_its_rule_and_a_figure(trained) -> None:
    assert read_episodes(trained)["theta_oja"].shape == (2, 4)
    rule = read_rule(trained / "rule.json")
    assert rule.terms == ("pseudo_gradient", "ehebb", "oja")
    assert rule.held_out == 3
    assert (trained / "figures" / "episodes.png").stat().st_size > 10_000


def test_a_learned_rule_is_evaluated_on_classes_it_has_not_met(
    trained, tmp_path, monkeypatch, capsys
) -> None:
    odd = shutil.copy(trained / "rule.json", tmp_path / "[bold]odd[].json")
    command(
        plasticity_evaluate,
        *("--preset", "smoke", "--rules", trained / "rule.json", odd, "--out", tmp_path),
        *("--held-out", 3, "--classes", 3, "--every", 6),
        monkeypatch=monkeypatch,
    )
    said = capsys.readouterr().out
    assert "│ tiny " in said
    assert "│ [bold]odd[] " in said
    assert "98 % interval" in said
    with (tmp_path / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["updates"] for row in rows if row["rule"] == "FA"] == ["0", "6", "12"]
    assert {row["rule"] for row in rows} == {"BP", "FA", "tiny", "[bold]odd[]"}
    assert (tmp_path / "figures" / "evaluation.pdf").exists()


def test_omniglots_ink_is_bright_like_emnists() -> None:
    images = plasticity_evaluate.load_target(plasticity_evaluate.Arguments(target="omniglot"))
    handwriting = plasticity_evaluate.load_target(plasticity_evaluate.Arguments())
    for characters in (images, handwriting):
        assert np.median(characters[:5]) == 0
        assert characters[:5].max() == 255


def test_a_term_of_ones_own_from_a_module_beside(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rules.TERMS, "_things", dict(rules.TERMS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_rules.py").write_text(OWN_MODULE)
    monkeypatch.chdir(tmp_path)
    try:
        command(
            plasticity_meta_train,
            *("--preset", "smoke", "--out", "run", "--steps", 2),
            *("--modules", "my_rules", "--terms", "pseudo_gradient", "anti_hebb"),
            monkeypatch=monkeypatch,
        )
    finally:
        sys.modules.pop("my_rules", None)
    rule = read_rule(Path("run/rule.json"))
    assert rule.modules == ("my_rules",)
    assert rule.terms == ("pseudo_gradient", "anti_hebb")
    assert rule.coefficients[1] != 0


STRANGERS_MODULE = "from pathlib import Path\nPath('ran').write_text('it ran')\n"


@pytest.fixture
def stranger(trained, tmp_path, monkeypatch):
    """A working folder with a module, and a run and a rule from elsewhere that want it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "strangers", raising=False)
    Path("strangers.py").write_text(STRANGERS_MODULE)
    shutil.copytree(trained, "run")
    for name in ("rule.json", "config.json"):
        content = json.loads(Path("run", name).read_text())
        content.get("config", content)["modules"] = ["strangers"]
        Path("run", name).write_text(json.dumps(content))
    yield Path("run")
    sys.modules.pop("strangers", None)


def test_a_rule_imports_only_what_the_command_line_names(stranger, monkeypatch, capsys) -> None:
    asked = ("--preset", "smoke", "--out", "out", "--rules", stranger / "rule.json")
    said = failure(plasticity_evaluate, *asked, monkeypatch=monkeypatch, capsys=capsys)
    assert "rule.json wants the modules strangers" in said
    assert "allow them with --modules strangers" in said
    assert not Path("ran").exists()
    assert "" not in sys.path
    command(plasticity_evaluate, *asked, "--modules", "strangers", monkeypatch=monkeypatch)
    assert Path("ran").exists()
    assert Path("out", "evaluation.csv").exists()


def test_a_resumed_run_imports_only_what_the_command_line_names(
    stranger, monkeypatch, capsys
) -> None:
    script = plasticity_meta_train
    asked = ("--resume", stranger)
    said = failure(script, *asked, monkeypatch=monkeypatch, capsys=capsys)
    assert "run wants the modules strangers" in said
    assert "--modules strangers" in said
    asked = (*asked, "--modules", "another")
    assert "--modules strangers" in failure(script, *asked, monkeypatch=monkeypatch, capsys=capsys)
    assert not Path("ran").exists()
    monkeypatch.setattr(sys, "argv", ["", "--resume", "run", "--modules", "strangers"])
    config, run = cli.parse(
        script.LearnedRuleConfig, PRESETS, experiment=EXPERIMENT, description=""
    )
    assert config.modules == ("strangers",)
    assert run.resume_command().endswith("--resume run --modules strangers")


@pytest.mark.parametrize(
    "wrong",
    [
        {"terms": [["pseudo_gradient"]]},
        {"terms": "p"},
        {"modules": "strangers"},
        {"modules": [1]},
        {"coefficients": [10**39, "\x1b[2J"]},
        {"coefficients": [[1], [1, 2]]},
        {"beta": [1]},
        {"beta": True},
        {"held_out": True},
        {"source": 1},
        {"\x1b[31m" * 1000: 1},
    ],
)
def test_a_rule_of_another_form_is_named(wrong, trained, tmp_path) -> None:
    content = json.loads((trained / "rule.json").read_text())
    path = tmp_path / "rule.json"
    path.write_text(json.dumps(content | wrong))
    with pytest.raises(UserError) as raised:
        read_rule(path)
    assert "rule.json" in str(raised.value)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": ' + "1" * 5000 + "}", " " * (1 << 21)])
def test_a_rule_that_no_one_wrote_is_named(text, tmp_path) -> None:
    (tmp_path / "rule.json").write_text(text)
    with pytest.raises(UserError, match=r"rule\.json cannot be read"):
        read_rule(tmp_path / "rule.json")


def start(path, *arguments) -> subprocess.Popen:
    flags = ["--resume", path] if (path / "config.json").exists() else ["--out", path, *arguments]
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.plasticity_meta_train", *map(str, flags)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_killed_run_on_a_device_per_core_resumes_to_the_same_bits(tmp_path) -> None:
    tiny = ("--preset", "smoke", "--steps", 60, "--chunk", 5, "--eval-every", 60)
    whole = start(tmp_path / "whole", *tiny, "--checkpoint-every", 5)
    _, said = whole.communicate(timeout=600)
    assert whole.returncode == 0, said
    path = tmp_path / "killed"
    process = start(path, *tiny, "--checkpoint-every", 5)
    end = time.monotonic() + 600
    while not (path / "checkpoints" / "10").exists() and process.poll() is None:
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (path / "episodes.csv").exists(), "it had finished before it was killed"
    resumed = start(path)
    _, said = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, said
    for name in ("episodes.csv", "rule.json"):
        whole_text = (tmp_path / "whole" / name).read_text().replace("whole", "killed")
        assert (path / name).read_text() == whole_text


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--terms", "hebb"], "There is no term 'hebb': choose from pseudo_gradient, f1"),
        (["--terms"], "The rule has no terms"),
        (["--modules", "no.such_module"], "The module 'no.such_module' cannot be imported"),
        (["--learn", "399"], "learn + query is 401, but there are only 400 images of a class"),
        (
            ["--classes", "48", "--no-replacement"],
            "classes is 48, but there are only 47 classes in the data to draw from without",
        ),
        (["--avg-window", "0"], "avg_window must be at least 1, but is 0"),
        (["--start", "nan"], "start must be a number, but is nan"),
    ],
)
def test_bad_input_of_meta_training_is_named(
    flags, sentence, tmp_path, monkeypatch, capsys
) -> None:
    arguments = ("--preset", "smoke", "--out", tmp_path / "run", *flags)
    said = failure(plasticity_meta_train, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert sentence in said


def test_a_rule_that_diverges_is_named(tmp_path, monkeypatch, capsys) -> None:
    arguments = ["--preset", "smoke", "--out", tmp_path / "run", "--start", "1e30"]
    monkeypatch.setattr(sys, "argv", ["plasticity_meta_train", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.run_main(plasticity_meta_train.main)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "The loss is nan at step 1" in said
    assert "lower the learning rate" in said


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--rules", "absent.json"], "The rule absent.json cannot be read"),
        (["--no-references"], "There is nothing to evaluate"),
        (["--every", "7"], "every (7) must divide the number of updates, 20"),
        (["--held-out", "3", "--target", "mnist"], "held_out is for emnist alone"),
        (["--reference-rate", "0"], "reference_rate must be positive"),
    ],
)
def test_bad_input_of_evaluation_is_named(flags, sentence, tmp_path, monkeypatch, capsys) -> None:
    arguments = ("--preset", "smoke", "--out", tmp_path, *flags)
    said = failure(plasticity_evaluate, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert sentence in said


def test_a_target_that_nobody_prepared_is_answered_with_those_that_need_nothing(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    arguments = ("--preset", "figure-1", "--out", tmp_path / "out")
    said = failure(plasticity_evaluate, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert "MNIST" in said
    assert "--target emnist and omniglot need no data to be prepared" in said


def test_classes_that_a_rule_has_met_are_not_held_out(
    trained, tmp_path, monkeypatch, capsys
) -> None:
    arguments = ("--rules", trained / "rule.json", "--held-out", 9, "--out", tmp_path)
    said = failure(plasticity_evaluate, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert "was learned with 3 classes held out, fewer than 9" in said
