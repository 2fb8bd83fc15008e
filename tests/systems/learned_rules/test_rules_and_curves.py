"""Learned rules as files and in new lifetimes."""

import dataclasses
import json

import numpy as np
import pytest

from tsar_jax.errors import UserError
from tsar_jax.systems.learned_rules.episodes_file import read_episodes, write_episodes
from tsar_jax.systems.learned_rules.learning_curves import CurveConfig, check_rule, learning_curves
from tsar_jax.systems.learned_rules.rule_file import (
    LearnedRule,
    learned_rule,
    read_rule,
    write_rule,
)
from tsar_jax.systems.learned_rules.system import LearnedRuleConfig, make_system
from tsar_jax.training.loop import train
from tsar_jax.training.run import Run

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RULE = LearnedRule(("pseudo_gradient", "oja"), (0.05, 0.001), held_out=2, source="here")
CONFIG = LearnedRuleConfig(
    steps=3, seeds=2, classes=2, learn=3, query=2, hidden=(4,), terms=("pseudo_gradient", "oja")
)


@pytest.fixture(scope="module")
def images():
    """Six classes, each brightest in a place of its own: uint8 [6, 20, 4, 4]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (6, 20, 4, 4))
    for label in range(6):
        images[label, :, label // 2, 2 * (label % 2) :][..., :2] += 150
    return images.astype(np.uint8)


@pytest.mark.parametrize("coefficients", [(0.1, -0.2), ((0.1, 0.2), (0.3, 0.4))])
def test_a_rule_is_read_as_it_was_written(tmp_path, coefficients) -> None:
    rule = LearnedRule(("ehebb", "oja"), coefficients, "sign", 5.0, ("mine",), 3, "there")
    write_rule(tmp_path / "rule.json", rule)
    assert read_rule(tmp_path / "rule.json") == rule


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "is not a rule of format 1"),
        ({"colour": 1}, "unknown entry 'colour'"),
        ({"coefficients": [1.0]}, r"A rule of 2 terms has as many coefficients"),
        ({"coefficients": ["a", "b"]}, "is not a rule"),
        ({"coefficients": [1.0, float("inf")]}, "must be finite numbers"),
        ({"feedback": "none"}, "feedback must be fix, sym or sign, but is 'none'"),
        ({"beta": 0}, "beta must be positive, but is 0"),
        ({"held_out": "a"}, "held_out must be a count of classes, but is 'a'"),
    ],
)
def test_a_file_that_is_no_rule_is_named(tmp_path, changes, sentence) -> None:
    path = tmp_path / "rule.json"
    write_rule(path, RULE)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=sentence) as raised:
        read_rule(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}'])
def test_a_damaged_file_is_named(tmp_path, text) -> None:
    (tmp_path / "rule.json").write_text(text)
    with pytest.raises(UserError, match=r"rule\.json"):
        read_rule(tmp_path / "rule.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_rule(tmp_path / "absent.json")


def test_episodes_are_read_as_they_were_recorded(tmp_path, images) -> None:
    system = make_system(CONFIG, 6, 16)
    config = dataclasses.replace(CONFIG, steps=2, chunk=1, keep=1)
    trained = train(system, images, config, Run(tmp_path, config))
    values = trained.arrays.values
    values["loss"][1, 0] = np.inf
    write_episodes(tmp_path, config, trained.arrays)
    found = read_episodes(tmp_path)
    assert np.isnan(found["loss"][1, 0])
    np.testing.assert_allclose(found["loss"][0], values["loss"][0], rtol=1e-6)
    np.testing.assert_allclose(found["theta_oja"], values["theta"][..., 1], rtol=1e-6)
    np.testing.assert_allclose(found["layer_1_angle"], values["angle"][..., 1], rtol=1e-6)
    rule = learned_rule(config, trained.state, "here")
    mean = trained.state.state.coefficients.mean(0)
    np.testing.assert_allclose(rule.coefficients, mean, rtol=1e-6)


EPISODES = """episode,seed,loss
1,0,0.5
1,1,0.75
2,0,0.25
2,1,1.5
3,0,2.5
3,1,nan
"""


@pytest.mark.parametrize(
    ("good", "bad", "said", "lost"),
    [
        ("2,0,0.25\n", "2,0\n", r"has lines that are no rows.*\(1\)", (0, 1)),
        ("2,0,0.25\n", "2,0,0.25,7\n", r"has lines.*\(1\)", (0, 1)),
        ("2,0,0.25\n", "2,0,x\n", r"has lines.*\(1\)", (0, 1)),
        ("2,0,0.25\n", "\0\0\0\n", r"has lines.*\(1\)", (0, 1)),
        ("2,0,0.25\n", "2.5,-1,0.25\n", r"has lines.*\(1\)", (0, 1)),
        ("2,0,0.25\n", "", r"lacks rows.*\(1\):", (0, 1)),
        (
            "1,1,0.75\n",
            "1,0,0.75\n",
            r"has lines.*another \(1\) and lacks rows.*\(1\)",
            (1, 0),
        ),
        ("3,1,nan\n", "3,1,0.", r"has lines.*another \(1\) and lacks rows.*\(1\)", (1, 2)),
        ("3,1,nan\n", "3,1,nan\n3,1,4.0\n", r"has lines.*another \(1\): to write", (1, 2)),
    ],
)
def test_damaged_rows_of_episodes_are_left_out_with_a_warning(
    tmp_path, good, bad, said, lost
) -> None:
    assert good in EPISODES
    (tmp_path / "episodes.csv").write_text(EPISODES.replace(good, bad))
    with pytest.warns(UserWarning, match=f"episodes.csv {said}.*--resume"):
        loss = read_episodes(tmp_path)["loss"]
    expected = np.array([[0.5, 0.25, 2.5], [0.75, 1.5, np.nan]])
    expected[lost] = np.nan
    np.testing.assert_array_equal(loss, expected)


def test_rows_of_episodes_may_stand_in_any_order(tmp_path) -> None:
    head, *rows = EPISODES.splitlines(keepends=True)
    (tmp_path / "episodes.csv").write_text("".join([head, *rows[::-1]]))
    loss = read_episodes(tmp_path)["loss"]
    np.testing.assert_array_equal(loss, [[0.5, 0.25, 2.5], [0.75, 1.5, np.nan]])


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "episode,seed,loss\n",
        "episode,seed,loss\n1,0,a\n",
        "a,b,loss\n1,0,2\n",
        "episode,seed,loss\n9999999999,0,1\n",
    ],
)
def test_a_run_without_episodes_is_named(tmp_path, text) -> None:
    if text is not None:
        (tmp_path / "episodes.csv").write_text(text)
    with pytest.raises(UserError, match=r"episodes\.csv.*--resume"):
        read_episodes(tmp_path)


def test_backpropagation_learns_and_a_rule_without_change_does_not(images) -> None:
    config = CurveConfig(classes=3, learn=15, query=5, every=9, runs=2, hidden=(8,))
    bp = learning_curves(LearnedRule(("pseudo_gradient",), (0.3,), "sym", 1.0), images, config)
    still = learning_curves(LearnedRule(("pseudo_gradient",), (0.0,)), images, config)
    assert bp["accuracy"].shape == bp["loss"].shape == (2, 6)
    assert (bp["loss"][:, -1] < 0.7 * bp["loss"][:, 0]).all()
    assert bp["accuracy"][:, -1].mean() > 0.8
    np.testing.assert_array_equal(still["loss"], still["loss"][:, :1].repeat(6, 1))


@pytest.mark.parametrize(
    ("rule", "settings", "sentence"),
    [
        (RULE, {"classes": 7}, "classes is 7, but there are only 6 classes"),
        (RULE, {"learn": 20}, r"learn \+ query is 22, but there are only 20"),
        (
            LearnedRule(("oja",), ((1.0,), (2.0,))),
            {"hidden": (4, 4)},
            "mine has coefficients for 2 layers, but a network with 2 hidden layers has 3",
        ),
        (LearnedRule(("unheard",), (1.0,)), {}, "There is no term 'unheard'"),
    ],
)
def test_what_cannot_be_evaluated_is_named(rule, settings, sentence, images) -> None:
    config = CurveConfig(
        **{"classes": 2, "learn": 5, "query": 2, "every": 1, "hidden": (4,)} | settings
    )
    with pytest.raises(UserError, match=sentence):
        check_rule(rule, config, images.shape, "mine")


def test_scores_come_at_equal_distances() -> None:
    with pytest.raises(UserError, match=r"every \(7\) must divide the number of updates, 250"):
        CurveConfig(every=7)
