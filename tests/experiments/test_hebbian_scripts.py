"""The scripts of evolved Hebbian networks from their command lines: end to end, and bad input."""

import csv
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import command, failure
from PIL import Image, ImageSequence

from experiments import (
    car_racing_views,
    hebbian_compare,
    hebbian_evaluate,
    hebbian_evolve,
    hebbian_lesion,
    hebbian_morphologies,
)
from tsar_jax import cli
from tsar_jax.cli import export_weights
from tsar_jax.environments.own import COMPILED
from tsar_jax.environments.quadruped_mujoco import MujocoQuadrupeds
from tsar_jax.errors import UserError
from tsar_jax.systems.hebbian.evolution import Evolution
from tsar_jax.systems.hebbian.policy import PolicyConfig
from tsar_jax.systems.hebbian.presets import EXPERIMENT, PRESETS
from tsar_jax.systems.hebbian.system import HebbianConfig
from tsar_jax.training.checkpoints import read_newest, save_once
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.run import Run, create_run

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SMOKE = ("--preset", "smoke", "--policy.hidden", 4)
QUADRUPED = ("--environment", "quadruped", "--evolution.population", 2, "--evaluations", 1)
STATIC = ("--policy.rule", "static")
MAX_EPISODE_STEPS = 20
"""Steps of a quadruped's life here, so that it lasts for milliseconds."""


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """MuJoCo writes its warnings to a file in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def evolve(tmp_path_factory):
    """(name of a run, flags) -> its folder."""

    def run(name, *flags):
        path = tmp_path_factory.mktemp("runs") / name
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MujocoQuadrupeds, "max_episode_steps", MAX_EPISODE_STEPS)
            command(hebbian_evolve, *SMOKE, "--out", path, *flags, monkeypatch=patch)
        return path

    return run


@pytest.fixture(scope="module")
def evolved(evolve):
    """The smallest preset, in a compiled cart-pole."""
    return evolve("cart")


@pytest.fixture
def evolved_earlier(evolved, tmp_path):
    """The run as it was when a state held the next generation's rate and sigma."""
    path = tmp_path / "earlier"
    shutil.copytree(evolved, path)
    arrays, record = read_newest(path / "checkpoints")
    shutil.rmtree(path / "checkpoints")
    earlier = {name: array for name, array in arrays.items() if name.startswith("genome/")}
    earlier |= {"rate": np.array(0.2, np.float32), "sigma": np.array(0.1, np.float32)}
    save_once(path / "checkpoints", 1, earlier, record["config"])
    return path


@pytest.fixture(scope="module")
def static(evolve):
    """Static weights, in gymnasium's cart-pole."""
    return evolve("static", "--environment", "CartPole-v1", *STATIC)


@pytest.fixture(scope="module")
def walking(evolve):
    """Quadrupeds, plastic and static."""
    return evolve("plastic", *QUADRUPED), evolve("static", *QUADRUPED, *STATIC)


def test_a_run_of_an_earlier_state_is_evaluated_and_not_resumed(
    evolved_earlier, monkeypatch, capsys
) -> None:
    evaluation = ("--run", evolved_earlier, "--lifetimes", 2, "--no-film")
    command(hebbian_evaluate, *evaluation, monkeypatch=monkeypatch)
    assert "generation 1" in capsys.readouterr().out
    said = failure(
        hebbian_evolve, "--resume", evolved_earlier, monkeypatch=monkeypatch, capsys=capsys
    )
    assert "is of another model" in said
    assert "resume with the code and config that it was saved with" in said


@pytest.mark.parametrize(
    ("name", "generations", "population", "bodies", "policy"),
    [
        (
            *("paper", 500, 500, ("standard", "right_front")),
            PolicyConfig(normalised=False, bounded=True),
        ),
        (
            *("paper-static", 500, 500, ("standard", "right_front")),
            PolicyConfig(rule="static", initial="default", normalised=False, bounded=True),
        ),
        ("paper-car", 300, 200, ("standard",), PolicyConfig()),
    ],
)
def test_presets_of_the_paper_are_the_releases(
    name, generations, population, bodies, policy
) -> None:
    config = PRESETS[name].config
    assert config.steps == generations
    assert config.bodies == bodies
    assert config.policy == policy
    assert config.evolution == Evolution(population=population, ties="order")
    assert (config.rollouts, config.limit, config.integrator) == (1, None, "RK4")


def test_settings_are_the_releases_unless_a_preset_says_otherwise() -> None:
    released = {
        PolicyConfig(): {
            **{"rule": "ABCD_lr", "initial": "uni", "hidden": (128, 64)},
            **{"distribution": "normal", "scale": 1.0, "kernels": None, "gain": 1.0},
            **{"normalised": True, "bounded": False, "standardised": False},
        },
        Evolution(ties="order"): {
            **{"population": 200, "weight_decay": 0.01, "ties": "order"},
            **{"strategy": "openai_es", "optimiser": None},
            **{"learning_rate": 0.2, "learning_rate_decay": 0.995, "min_learning_rate": 0.001},
            **{"sigma": 0.1, "sigma_decay": 0.999, "min_sigma": 0.01},
        },
    }
    for config, settings in released.items():
        assert dataclasses.asdict(config) == settings
    kernels = {name: preset.config.policy.kernels for name, preset in PRESETS.items()}
    assert {name for name, start in kernels.items() if start is not None} == {"car"}


def assert_figures(folder, *names) -> None:
    for name in names:
        for suffix in ("png", "pdf"):
            assert (folder / "figures" / f"{name}.{suffix}").stat().st_size > 5_000


def play(path) -> tuple[tuple[int, int], float]:
    """A film's size and seconds; frames that do not differ are one that lasts longer."""
    with Image.open(path) as film:
        return film.size, sum(
            frame.info["duration"] / 1000 for frame in ImageSequence.Iterator(film)
        )


@pytest.mark.parametrize("run", ["evolved", "static"])
def test_a_run_leaves_its_metrics_and_a_figure(run, request) -> None:
    path = request.getfixturevalue(run)
    rows = read_rows(path)
    assert [row["step"] for row in rows if row["split"] == "train"] == [1, 2]
    for row in rows[:2]:
        assert 1 <= row["fitness_worst"] <= row["fitness_mean"] <= row["fitness_best"] <= 500
    assert rows[-1]["split"] == "eval"
    assert_figures(path, "evolution")


@pytest.mark.parametrize("environment", ["cart_pole", "CartPole-v1"])
def test_lifetimes_are_as_short_as_is_asked(environment, evolve) -> None:
    path = evolve(f"short-{environment}", "--environment", environment, "--limit", 5)
    rows = read_rows(path)
    assert {row.get("fitness_best", row.get("fitness")) for row in rows} == {5}


@pytest.mark.parametrize("run", ["evolved", "static"])
def test_an_evolved_policy_is_scored_and_filmed(run, request, monkeypatch, capsys) -> None:
    path = request.getfixturevalue(run)
    capsys.readouterr()
    command(hebbian_evaluate, "--run", path, "--lifetimes", 3, monkeypatch=monkeypatch)
    name = {"evolved": "cart_pole", "static": "CartPole-v1"}[run]
    content = json.loads((path / "evaluation.json").read_text())
    scores = content["fitness"][name]
    assert content["generation"] == 2
    assert len(scores) == 3
    said = capsys.readouterr().out
    assert f"{name}: {np.mean(scores):.1f} ± {np.std(scores):.1f} over 3 lifetimes" in said
    size, seconds = play(path / "figures" / f"{name}.gif")
    assert size == (320, 240)
    if run == "static":  # of the first lifetime, every other step of 50 in a second
        assert seconds == pytest.approx(-(-scores[0] // 2) / 25)


def test_scores_are_written_where_nothing_can_film(evolved, monkeypatch) -> None:
    def no_film(*_):
        assert (evolved / "evaluation.json").exists()
        raise UserError("Gymnasium has no environment 'cart_pole'.")

    (evolved / "evaluation.json").unlink(missing_ok=True)
    monkeypatch.setattr(hebbian_evaluate, "film", no_film)
    with pytest.warns(UserWarning, match="no film of cart_pole. Gymnasium has no environment"):
        command(hebbian_evaluate, "--run", evolved, "--lifetimes", 2, monkeypatch=monkeypatch)
    assert len(json.loads((evolved / "evaluation.json").read_text())["fitness"]["cart_pole"]) == 2


def test_another_generation_and_no_film(evolved, monkeypatch) -> None:
    film = evolved / "figures" / "cart_pole.gif"
    film.unlink(missing_ok=True)
    flags = ("--lifetimes", 2, "--step", 0, "--no-film")
    command(hebbian_evaluate, "--run", evolved, *flags, monkeypatch=monkeypatch)
    assert json.loads((evolved / "evaluation.json").read_text())["generation"] == 0
    assert not film.exists()


def test_one_of_several_seeds_is_evaluated(evolve, monkeypatch, capsys) -> None:
    path = evolve("two", "--environment", "cart_pole", "--seeds", 2, "--steps", 1)
    flags = ("--run", path, "--lifetimes", 2, "--no-film", "--number")
    for number in (0, 1):
        command(hebbian_evaluate, *flags, number, monkeypatch=monkeypatch)
    said = failure(hebbian_evaluate, *flags, 2, monkeypatch=monkeypatch, capsys=capsys)
    assert "is of 2 seeds: there is no number 2, counted from 0" in said


def test_a_policy_is_scored_in_another_environment(evolved, monkeypatch, capsys) -> None:
    capsys.readouterr()
    flags = ("--lifetimes", 2, "--no-film", "--environment", "CartPole-v1")
    command(hebbian_evaluate, "--run", evolved, *flags, monkeypatch=monkeypatch)
    assert "CartPole-v1: " in capsys.readouterr().out
    content = json.loads((evolved / "evaluation-CartPole-v1.json").read_text())
    assert len(content["fitness"]["CartPole-v1"]) == 2


@pytest.mark.slow
def test_compiled_quadrupeds_evolve_and_live_in_any_bodies_on_any_devices(tmp_path) -> None:
    """One program for all bodies of a command; here on two devices, as a CPU's cores are."""
    small = ["--engine", "mjx", "--limit", "2", "--bodies", "standard", "right_front:0.2"]
    evolving = [*map(str, (*SMOKE, *QUADRUPED)), "--steps", "1", *small, "--out", tmp_path / "run"]
    evaluating = ["--run", tmp_path / "run", "--lifetimes", "2", "--limit", "2", "--no-film"]
    bodies = ["right_back_hip", "left_front+friction:0.3"]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2"}
    for name, arguments in (
        ("hebbian_evolve", evolving),
        ("hebbian_evaluate", [*evaluating, "--bodies", *bodies]),
    ):
        run = [sys.executable, "-m", "tsar_jax", "run", name, *arguments]
        subprocess.run(run, env=environment, check=True)
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())["fitness"]
    assert list(found) == bodies
    assert np.isfinite(list(found.values())).all()
    assert found[bodies[0]] != found[bodies[1]]


@pytest.mark.slow
def test_a_driver_evolves_and_is_scored_filmed_and_compared(evolve, monkeypatch, capsys) -> None:
    driver = evolve("driver", "--environment", "car_racing", "--limit", 3, "--evaluations", 1)
    capsys.readouterr()
    command(hebbian_evaluate, "--run", driver, "--lifetimes", 1, monkeypatch=monkeypatch)
    assert "car_racing: " in capsys.readouterr().out
    size, seconds = play(driver / "figures" / "car_racing.gif")
    assert size == (320, 240)
    assert 0.4 < seconds <= 6.04
    flags = ("--races", 1, "--frames", 80)
    command(car_racing_views, "--out", driver, *flags, monkeypatch=monkeypatch)
    assert re.search(r"road or grass: +(99|100)\.", capsys.readouterr().out)
    assert_figures(driver, "views")


def test_too_few_frames_to_compare_are_refused(tmp_path, monkeypatch, capsys) -> None:
    flags = ("--out", tmp_path, "--frames", 20)
    said = failure(car_racing_views, *flags, monkeypatch=monkeypatch, capsys=capsys)
    assert "frames must be at least 60, but is 20" in said


def test_lesions_leave_a_table_and_figures(evolved, monkeypatch, capsys) -> None:
    capsys.readouterr()
    flags = ("--lifetimes", 3, "--at", 4, "--lasting", 2)
    command(hebbian_lesion, "--run", evolved, *flags, monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    conditions = ["intact", "frozen", "saturated", "zeroed"]
    assert [line.split()[0] for line in said.splitlines()[:4]] == conditions
    with (evolved / "lesions.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [int(row["step"]) for row in table] == list(range(500))
    assert len(table[0]) == 1 + 2 * len(conditions)
    for name in conditions:
        alive = np.array([int(row[f"{name}_alive"]) for row in table])
        # A cart earns 1 for every step that it lives.
        rewards = [float(row[f"{name}_reward"]) for row in table]
        np.testing.assert_allclose(rewards, alive / 3, rtol=1e-5)
        assert alive[0] == 3
        assert (np.diff(alive) <= 0).all()
    before = [[row[f"{name}_alive"] for name in conditions] for row in table[:4]]
    assert all(len(set(counts)) == 1 for counts in before)
    assert_figures(evolved, "recovery", "weights")


@pytest.mark.slow
def test_a_quadruped_is_lesioned_and_filmed(walking, monkeypatch) -> None:
    plastic, _ = walking
    monkeypatch.setattr(MujocoQuadrupeds, "max_episode_steps", MAX_EPISODE_STEPS)
    flags = ("--lifetimes", 2, "--at", 8, "--body", "left_front", "--layer", 1)
    command(hebbian_lesion, "--run", plastic, *flags, monkeypatch=monkeypatch)
    with (plastic / "lesions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == MAX_EPISODE_STEPS
    assert_figures(plastic, "recovery", "weights")
    flags = ("--lifetimes", 1, "--bodies", "right_front:0.2")
    command(hebbian_evaluate, "--run", plastic, *flags, monkeypatch=monkeypatch)
    fitness = json.loads((plastic / "evaluation.json").read_text())["fitness"]
    assert list(fitness) == ["right_front:0.2"]
    size, seconds = play(plastic / "figures" / "right_front-0.2.gif")
    assert size == (320, 240)
    assert seconds == pytest.approx(MAX_EPISODE_STEPS * 0.05)


def test_the_table_of_bodies_has_what_is_published(tmp_path) -> None:
    scores = {body: np.array([1.0, 2.0, 3.0]) for body in ("standard", "right_front", "left_back")}
    hebbian_morphologies.write(tmp_path, {"ABCD_lr": scores, "AD": scores})
    assert (tmp_path / "bodies.md").read_text().splitlines()[2:6] == [
        "| ABCD_lr | 2 ± 1 | 2 ± 1 | 2 ± 1 |",
        "| AD | 2 ± 1 | 2 ± 1 | 2 ± 1 |",
        "| published, ABCD_lr | 1051 ± 113 (T) | 1019 ± 116 (U) |  |",
        "",
    ]
    hebbian_morphologies.write(tmp_path, {"AD": scores})
    assert (tmp_path / "bodies.md").read_text().count("\n") == 3


def test_evolutions_are_compared_by_what_they_differ_in(
    evolved, evolve, tmp_path, monkeypatch, capsys
) -> None:
    adam = evolve("adam", "--evolution.optimiser", "adam", "--evolution.strategy", "SNES")
    again = evolve("again", "--seed", 5)
    flags = ("--runs", evolved, adam, again, "--out", tmp_path / "out")
    command(hebbian_compare, *flags, monkeypatch=monkeypatch)
    lines = (tmp_path / "out" / "strategies.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:5]] for line in lines[2:4]]
    assert cells == [
        ["cart_pole", "openai_es", "2", "8"],
        ["cart_pole", "SNES, adam", "1", "8"],
    ]
    rows = (tmp_path / "out" / "strategies.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * 2
    assert rows[1].startswith("cart_pole,openai_es,cart,4,")
    wide = evolve("wide", "--policy.hidden", 5)
    flags = ("--runs", evolved, wide, "--out", tmp_path / "out")
    command(hebbian_compare, *flags, monkeypatch=monkeypatch)
    table = (tmp_path / "out" / "strategies.md").read_text()
    assert "| openai_es, hidden [4] | 1 |" in table
    assert "| openai_es, hidden [5] | 1 |" in table
    assert (tmp_path / "out" / "figures" / "learning.png").stat().st_size > 10_000


@pytest.mark.slow
def test_morphologies_compare_kinds_of_policy_on_all_bodies(
    walking, evolve, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(MujocoQuadrupeds, "max_episode_steps", MAX_EPISODE_STEPS)
    plastic, static = walking
    again, out = tmp_path / "again", tmp_path / "out"
    shutil.copytree(plastic, again)
    mlp = evolve("mlp", *QUADRUPED, *STATIC, "--policy.standardised")
    flags = ("--runs", plastic, static, again, mlp, "--out", out, "--lifetimes", 2)
    command(hebbian_morphologies, *flags, monkeypatch=monkeypatch)
    fitness = json.loads((out / "bodies.json").read_text())
    assert list(fitness) == ["ABCD_lr", "static", "static, standardised"]
    for rule, count in (("ABCD_lr", 4), ("static", 2)):
        assert list(fitness[rule]) == ["standard", "right_front", "left_front"]
        assert [len(scores) for scores in fitness[rule].values()] == [count] * 3
    scores = fitness["ABCD_lr"]["left_front"]
    assert scores[:2] == scores[2:]
    assert scores[0] != fitness["ABCD_lr"]["standard"][0]
    table = (out / "bodies.md").read_text().splitlines()
    assert table[0] == "| rule | standard | right_front | left_front |"
    assert table[2].startswith("| ABCD_lr | ")
    assert len(table) == 4 + 5
    assert_figures(out, "bodies", "evolution")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--evolution.population", "3"], "population must be an even number of at least 2"),
        (["--policy.rule", "hebb"], "There is no Hebbian rule 'hebb': choose from A, AD"),
        (["--policy.initial", "one"], "no kind of initial weights 'one': choose from uni"),
        (["--environment", "CartPole-v99"], "Gymnasium has no environment 'CartPole-v99'"),
        (["--environment", "quadruped", "--engine", "bullet"], "There is no engine 'bullet'"),
        (["--environment", "quadruped", "--bodies", "left"], "There is no body 'left'"),
        (["--environment", "quadruped", "--bodies", "left_back:a"], "'a' in the body"),
        (["--bodies"], "bodies are none"),
        (["--evolution.sigma", "0"], "sigma must be positive, but is 0.0"),
        (["--environment", "quadruped", "--integrator", "euler"], "no integrator 'euler'"),
        (["--limit", "0"], "limit must be at least 1, but is 0"),
    ],
)
def test_bad_input_of_evolution_is_named(flags, sentence, tmp_path, monkeypatch, capsys) -> None:
    arguments = (*SMOKE, "--out", tmp_path / "run", *flags)
    said = failure(hebbian_evolve, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert sentence in said


@pytest.mark.parametrize("package", ["mujoco", "gymnasium"])
def test_without_the_extra_the_preset_that_needs_none_is_named(
    package, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    environment = {"mujoco": "quadruped", "gymnasium": "Ant-v5"}[package]
    flags = () if package == "mujoco" else ("--environment", environment)
    said = failure(
        hebbian_evolve, "--out", tmp_path / "run", *flags, monkeypatch=monkeypatch, capsys=capsys
    )
    assert "tsar_jax[environments]" in said
    assert said.endswith("; --preset cart-pole, as it is, needs none of it.\n")
    config = PRESETS["cart-pole"].config
    assert config.environment in COMPILED


def test_a_resumed_run_keeps_its_settings(evolved, monkeypatch, capsys) -> None:
    arguments = ("--resume", evolved, "--rollouts", 3)
    said = failure(hebbian_evolve, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert "A resumed run keeps its settings" in said
    assert "rollouts" in said


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--at", "489"], "at is 489, but a lifetime has 500 steps"),
        (["--at", "0"], "at must be at least 1, but is 0"),
        (["--at", "480"], "No lifetime lasts until the lesion at step 480: lower --at"),
        (["--layer", "3"], "layer is 3, but the network has 2 layers of weights"),
        (["--zeroed", "2"], "zeroed must be a share of 0 to 1, but is 2.0"),
        (["--step", "7"], "There is no checkpoint of step 7"),
    ],
)
def test_bad_input_of_lesions_is_named(flags, sentence, evolved, monkeypatch, capsys) -> None:
    arguments = ("--run", evolved, "--lifetimes", 1, *flags)
    said = failure(hebbian_lesion, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert sentence in said


def test_static_weights_have_nothing_to_mend_them(static, monkeypatch, capsys) -> None:
    said = failure(hebbian_lesion, "--run", static, monkeypatch=monkeypatch, capsys=capsys)
    assert f"The weights of {static} do not change: take a run of another rule" in said


@pytest.fixture
def not_yet_imported():
    """Whatever is imported under a name here is forgotten, as if no other test had imported it."""
    sys.modules.pop("strangers", None)
    yield
    sys.modules.pop("strangers", None)


@pytest.mark.usefixtures("not_yet_imported")
def test_a_runs_environment_imports_only_what_the_command_line_names(
    tmp_path, monkeypatch, capsys
) -> None:
    """Gymnasium imports the module of "module:Name-v0"."""
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    Path("strangers.py").write_text("from pathlib import Path\nPath('ran').write_text('it ran')\n")
    config = HebbianConfig(environment="strangers:Env-v0")
    create_run(Run(tmp_path / "run", config, EXPERIMENT), config.steps)
    for script in (hebbian_evaluate, hebbian_lesion, hebbian_evolve):
        option = "--resume" if script is hebbian_evolve else "--run"
        said = failure(script, option, "run", monkeypatch=monkeypatch, capsys=capsys)
        assert "run wants the modules strangers" in said
        assert "--modules strangers" in said
    with pytest.raises(UserError, match="run wants the modules strangers"):
        export_weights.main(["run", "weights.dat"])
    assert not Path("ran").exists()
    for named in (["--modules", "strangers"], ["--environment", "strangers:Env-v0"]):
        monkeypatch.setattr(sys, "argv", ["", "--resume", "run", *named])
        parsed, _ = cli.parse(HebbianConfig, PRESETS, experiment=EXPERIMENT, description="")
        assert parsed == config
    with pytest.raises(UserError):  # for the module registers nothing
        command(hebbian_evaluate, "--run", "run", *named, monkeypatch=monkeypatch)
    assert Path("ran").exists()


def test_runs_of_another_kind_are_named(evolved, tmp_path, monkeypatch, capsys) -> None:
    arguments = ("--runs", evolved, "--out", tmp_path / "out")
    said = failure(hebbian_morphologies, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert f"{evolved} evolved in cart_pole, which has but one body" in said
    assert not (tmp_path / "out").exists()
    arguments = ("--run", tmp_path / "absent")
    said = failure(hebbian_evaluate, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert "There is no run folder" in said
    arguments = ("--runs", "--out", tmp_path / "out")
    said = failure(hebbian_morphologies, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert "--runs names no run" in said
