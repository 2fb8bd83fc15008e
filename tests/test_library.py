"""What `import tsar_jax` offers, and that the examples do what they say."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import tsar_jax
from tsar_jax.plasticity import rules

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def test_every_public_name_is_there_and_known_to_type_checkers() -> None:
    (checked,) = (
        node
        for node in ast.parse(Path(tsar_jax.__file__).read_text()).body
        if isinstance(node, ast.If)
    )
    imported = {alias.name: line.module for line in checked.body for alias in line.names}
    assert sorted(imported) == sorted(tsar_jax.__all__)
    for name, module in imported.items():
        assert getattr(tsar_jax, name) is getattr(sys.modules[module], name)
    assert set(tsar_jax.__all__) <= set(dir(tsar_jax))
    assert (Path(tsar_jax.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'unrol'"):
        tsar_jax.unrol  # noqa: B018


def test_importing_the_package_imports_no_jax() -> None:
    code = "import sys, tsar_jax.cli; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def es_gradient(population):
    key = jax.random.key(0)
    return tsar_jax.es_gradient(
        lambda theta, item, key: (theta.sum(), {}),
        *(jnp.ones(2), jnp.zeros(1), key),
        population=population,
        sigma=0.1,
    )


def unroll(**options):
    learner = tsar_jax.gradient_learner(lambda w, x: x @ w, True, optax.sgd(0.1))
    weights = jnp.ones((2, 2))
    stream = jnp.ones((3, 2)), jnp.zeros(3, int)
    return tsar_jax.unroll(learner, weights, learner.init(weights, None), stream, **options)


def rule_learner(feedback="fix", sizes=(3, 2)):
    rule = tsar_jax.Rule(tsar_jax.find_terms(["oja"]), feedback)
    return tsar_jax.rule_learner(rule, sizes)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: es_gradient(3), "population must be an even number of at least 2, but is 3"),
        (lambda: es_gradient(0), "population must be an even number of at least 2, but is 0"),
        (
            lambda: tsar_jax.standardised_ranks(jnp.arange(4.0), ties="mean"),
            "no way with ties 'mean': choose from average, order",
        ),
        (lambda: unroll(remat="restore"), "no remat strategy 'restore'.*nearest is store"),
        (lambda: unroll(segment=0), "segment must be at least 1, but is 0"),
        (lambda: tsar_jax.find_terms(["oija"]), "no term 'oija'.*nearest is oja"),
        (lambda: rule_learner("symm"), "no feedback 'symm'.*nearest is sym"),
        (lambda: rule_learner(sizes=(3,)), r"at least two layers, but are \(3,\)"),
    ],
)
def test_a_bad_argument_is_named_in_a_sentence(call, sentence) -> None:
    with pytest.raises(tsar_jax.UserError, match=sentence) as error:
        call()
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short_and_improve(path, monkeypatch, capsys, quickly_compiled) -> None:
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 30
    if "import gymnasium" in lines:
        pytest.importorskip("gymnasium")
    monkeypatch.setattr(rules.TERMS, "_things", dict(rules.TERMS))  # an example may add one
    runpy.run_path(str(path))
    before, after = map(float, re.findall(r"\d+\.\d+", capsys.readouterr().out)[:2])
    assert after < 0.7 * before
