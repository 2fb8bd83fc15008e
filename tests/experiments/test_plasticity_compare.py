"""plasticity_compare on synthetic runs: the table, the curves, pooled seeds, and bad input."""

import csv
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import plasticity_compare as script
from tsar_jax import cli
from tsar_jax.systems.learned_rules.episode_curves import bootstrap, curve
from tsar_jax.systems.learned_rules.episodes_file import EPISODES, read_episodes, write_episodes
from tsar_jax.systems.learned_rules.presets import EXPERIMENT
from tsar_jax.systems.learned_rules.system import LearnedRuleConfig
from tsar_jax.training.arrays import StepArrays
from tsar_jax.training.run import Run

FA = LearnedRuleConfig(terms=("pseudo_gradient",), steps=22, seeds=3, hidden=(4,))
F_BIO = dataclasses.replace(FA, terms=("pseudo_gradient", "ehebb", "oja"), per_layer=True)


def make_run(path: Path, config: LearnedRuleConfig, episodes: int | None = None) -> Path:
    """A run's folder as plasticity_meta_train leaves it, of random numbers."""
    random = np.random.default_rng(config.seed + len(config.terms))
    layers, terms = len(config.hidden) + 1, len(config.terms)
    shapes = {
        "loss": (),
        "accuracy": (),
        "theta": (layers, terms) if config.per_layer else (terms,),
        "angle": (layers + 1,),
        "orthonormality": (layers,),
    }
    episodes = config.steps if episodes is None else episodes
    records = {
        name: random.uniform(0.1, 1, (config.seeds, episodes, *shape))
        for name, shape in shapes.items()
    }
    arrays = StepArrays(np.arange(1, episodes + 1), records)
    path.mkdir()
    description = Run(path, config, EXPERIMENT, "paper").description(config.steps)
    (path / "config.json").write_text(json.dumps(description))
    write_episodes(path, config, arrays)
    return path


def compare(*arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script", *map(str, arguments)])
        cli.run_main(script.main)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Runs of feedback alignment and of a rule of three terms; and some that do not fit."""
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in {
        "fa": {},
        "seed": {"seed": 1},
        "again": {"seed": 1, "memory": "store", "chunk": 7},
        "longer": {"steps": 25},
        "wider": {"hidden": (5,)},
        "faster": {"meta_rate": 1e-2, "rate_shares": (0.5,), "seed": 2},
        "random": {"fixed_images": False, "avg_window": 3},
    }.items():
        make_run(folder / name, dataclasses.replace(FA, **changes))
    make_run(folder / "f_bio", F_BIO)
    make_run(folder / "half", FA, episodes=11)
    (make_run(folder / "fresh", FA) / EPISODES).unlink()
    other = make_run(folder / "other", FA) / "config.json"
    other.write_text(other.read_text().replace(EXPERIMENT, "anml_meta_train"))
    mixed = make_run(folder / "mixed", FA) / EPISODES
    mixed.write_text((folder / "f_bio" / EPISODES).read_text())
    return folder


@pytest.fixture(scope="module")
def out(folder: Path) -> Path:
    """What comparing writes: two runs of feedback alignment and one of the other rule."""
    out = folder / "out"
    compare("--runs", *(folder / name for name in ("fa", "seed", "f_bio")), "--out", out)
    return out


def pooled(folder: Path, *names: str) -> dict[str, np.ndarray]:
    runs = [read_episodes(folder / name) for name in names]
    return {column: np.concatenate([run[column] for run in runs]) for column in runs[0]}


def test_the_table_holds_what_each_rule_reached(folder: Path, out: Path) -> None:
    lines = (out / "table.md").read_text().splitlines()
    head, fa, f_bio = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:4])
    )
    assert len(head) == len(fa) == len(f_bio)
    assert fa[:3] == ["FA", "6", "22"]
    assert f_bio[:3] == ["F_bio, per layer", "3", "22"]
    run = pooled(folder, "fa", "seed")
    mean, low, high = (float(end) for end in bootstrap(100 * run["accuracy"].mean(1)))
    assert fa[3] == f"{mean:.1f} ({low:.1f}–{high:.1f})"
    assert low < mean < high
    mean, low, high = (float(end) for end in bootstrap(run["loss"].mean(1)))
    assert fa[4] == f"{mean:.2f} ({low:.2f}–{high:.2f})"
    assert fa[5:7] == [f"{100 * np.median(run['accuracy'][:, 9:20].mean(1)):.1f}", "–"]
    assert fa[7] == f"{run['layer_1_angle'].mean():.1f}"
    assert (head[8], fa[8], f_bio[8]) == ("published (%)", "about 25 (P)", "–")
    assert fa[9] == f"pseudo_gradient {np.median(run['theta_pseudo_gradient'][:, -1]):.3g}"
    last = {name: np.median(values[:, -1]) for name, values in pooled(folder, "f_bio").items()}
    assert f_bio[9].endswith(f"oja {last['layer_1_theta_oja']:.3g} {last['layer_2_theta_oja']:.3g}")
    assert "last 22 episodes" in lines[-1]
    assert "Published: P: primary source" in lines[-1]


def test_the_curves_are_those_of_the_figures(folder: Path, out: Path) -> None:
    with (out / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rule"] for row in rows] == ["FA"] * 22 + ["F_bio, per layer"] * 22
    assert [int(row["episode"]) for row in rows] == [*range(1, 23)] * 2
    run = pooled(folder, "fa", "seed")
    for column in run:
        for part, values in curve(run, column)._asdict().items():
            written = [float(row[f"{column}_{part}"]) for row in rows[:22]]
            np.testing.assert_allclose(written, values, rtol=1e-5)
    assert {row["theta_pseudo_gradient_median"] for row in rows[22:]} == {""}
    assert {row["layer_2_theta_oja_low"] for row in rows[:22]} == {""}


def test_every_figure_is_written(out: Path) -> None:
    names = {"learning", "angles", "orthonormality", "coefficients-FA"}
    names.add("coefficients-F_bio-per-layer")
    expected = {f"{name}.{suffix}" for name in names for suffix in ("png", "pdf")}
    assert {path.name for path in (out / "figures").iterdir()} == expected


def test_the_table_is_printed_with_where_it_is(folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(script, "comparison_figures", lambda *_, **__: None)
    compare("--runs", folder / "f_bio", "--out", folder / "printed")
    printed = capsys.readouterr().out
    for text in ("F_bio, per layer", "pseudo_gradient 0.", "accuracy (%)", "printed/table.md"):
        assert text in printed


def test_the_table_says_how_an_optimiser_was_not_the_published_one(folder, monkeypatch) -> None:
    monkeypatch.setattr(script, "comparison_figures", lambda *_, **__: None)
    out = folder / "unusual"
    compare("--runs", folder / "fa", folder / "faster", "--out", out)
    last = (out / "table.md").read_text().splitlines()[-1]
    label = "FA, meta_rate 0.01, rate_shares pseudo_gradient 0.5"
    assert last.endswith(
        f"Otherwise than published: {label}: meta_rate 0.01, rate_shares pseudo_gradient 0.5."
    )


def test_runs_may_differ_in_how_episodes_are_drawn_and_the_table_says_so(folder) -> None:
    out = folder / "drawn"
    compare("--runs", folder / "fa", folder / "random", "--out", out, "--avg-window", 5)
    lines = (out / "table.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == [
        "| FA, fixed_images",
        "| FA, no fixed_images",
    ]
    assert lines[-1].endswith("Otherwise than published: FA, no fixed_images: no fixed_images.")
    with (out / "curves.csv").open(newline="") as file:
        written = [float(row["loss_median"]) for row in csv.DictReader(file)][:22]
    drawn = curve(read_episodes(folder / "fa"), "loss", window=5).median
    np.testing.assert_allclose(written, drawn, rtol=1e-5)


RUNS = ["--out", "{}/none", "--runs"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (RUNS, ["--runs"]),
        ([*RUNS, "{}/nowhere"], ["{}/nowhere", "check the path"]),
        ([*RUNS, "{}/other"], ["{}/other", "'anml_meta_train'"]),
        ([*RUNS, "{}/fa", "{}/fresh"], ["{}/fresh is not finished", "--resume {}/fresh"]),
        ([*RUNS, "{}/half"], ["{}/half is not finished", "11 episodes", "--resume {}/half"]),
        ([*RUNS, "{}/mixed"], ["{}/mixed/episodes.csv", "config.json"]),
        ([*RUNS, "{}/fa", "{}/longer"], ["{}/longer", "steps: 22 -> 25"]),
        ([*RUNS, "{}/fa", "{}/wider"], ["{}/wider", "hidden", "-> [5]"]),
        ([*RUNS, "{}/fa", "{}/fa"], ["{}/fa is named twice"]),
        ([*RUNS, "{}/seed", "{}/again"], ["{}/again", "FA", "same seed 1"]),
        (["--out", "{}/fa/config.json", "--runs", "{}/fa"], ["cannot be written", "--out"]),
        ([*RUNS, "{}/fa", "--avg-window", "0"], ["avg_window must be at least 1", "is 0"]),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    capsys, folder: Path, arguments: list[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        compare(*(argument.format(folder) for argument in arguments))
    assert raised.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    for word in words:
        assert word.format(folder) in message
