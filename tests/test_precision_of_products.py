"""Products on accelerators have the precision that was chosen, none the compiler's default."""

import dataclasses
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from tsar_jax.errors import UserError
from tsar_jax.precision import FAST, FULL, VARIABLE
from tsar_jax.systems.episodic import anml
from tsar_jax.systems.episodic.anml_presets import PRESETS
from tsar_jax.training.loop import LoopConfig, train
from tsar_jax.training.run import Run
from tsar_jax.training.system import System

PRODUCT = re.compile(r"stablehlo\.(?:dot_general|convolution)\b.*")


def products_of(step, *arguments):
    """The lines of products in a step's program for a GPU."""
    text = jax.jit(step).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    found = PRODUCT.findall(text)
    assert found
    return found


@pytest.mark.parametrize("precision", [FULL, FAST])
def test_a_training_computes_in_the_precision_of_its_settings(precision, tmp_path) -> None:
    found = []

    def step(state, data, key):
        found.extend(products_of(jnp.dot, state, state))
        return state, {"loss": jnp.float32(0)}, {}

    system = System(lambda key: jnp.ones((2, 2)), step, lambda *_: {"loss": jnp.float32(0)})
    loop = LoopConfig(steps=1, chunk=1, precision=precision)
    before = jax.config.jax_default_matmul_precision
    train(system, (), loop, Run(tmp_path / "run", loop))
    name = {FULL: "HIGHEST", FAST: "HIGH"}[precision]
    assert all(f"precision = [{name}, {name}]" in line for line in found)
    assert jax.config.jax_default_matmul_precision == before


def test_no_product_of_a_meta_step_is_left_to_the_compiler(monkeypatch) -> None:
    monkeypatch.setattr("tsar_jax.devices.only_cpus", lambda: False)  # the accelerator's form too
    system, key = anml.make_system(PRESETS["smoke"].config), jax.random.key(0)
    images = jax.ShapeDtypeStruct((964, 20, 28, 28), jnp.uint8)
    data = {"background": images, "evaluation": images}
    for line in products_of(system.step, jax.eval_shape(system.init, key), data, key):
        assert line.count("HIGHEST") == 2, line


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(UserError, match="no precision 'tf32': choose from float32, tensor"):
        dataclasses.replace(LoopConfig(), precision="tf32")


SCRIPT = """
import sys
if {early}:
    import jax
from tsar_jax.cli import run_main
def main():
    import jax
    print(jax.config.jax_default_matmul_precision)
run_main(main)
"""


@pytest.mark.parametrize("early", [True, False])
def test_every_script_computes_in_full_precision(early) -> None:
    environment = {**os.environ, VARIABLE: "bfloat16"}
    command = [sys.executable, "-c", SCRIPT.format(early=early)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == FULL
