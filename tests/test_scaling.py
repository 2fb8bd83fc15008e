"""The bytes that devices exchange are those that docs/scaling.md says, counted from programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import json, math, re
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
from tsar_jax import processes
from tsar_jax.networks import params_like
from tsar_jax.systems.episodic import anml, tsar
from tsar_jax.systems.hebbian import system as hebbian
from tsar_jax.systems.hebbian.evolution import Evolution
from tsar_jax.systems.hebbian.policy import PolicyConfig
from tsar_jax.training.loop import make_keys
from tsar_jax.training.programs import make_programs

KINDS = "all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute"
MOVED = re.compile(rf"= (.*?) ({KINDS})(-start)?[(]")
BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1, "f64": 8, "s64": 8}

def moved(text):
    total = 0
    for line in text.splitlines():
        found = MOVED.search(line)
        if found:
            for kind, shape in re.findall(r"(\\w+)\\[([\\d,]*)\\]", found[1]):
                total += BYTES[kind] * math.prod(int(n) for n in shape.split(",") if n)
    return total

def step_bytes(system, data):
    programs = make_programs(system, data, make_keys(0).init, 1)
    state = programs.init(make_keys(0).init)
    return moved(programs.compile_chunk(state, data, make_keys(0).step).as_text())

def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))

small = dict(channels=8, outputs=8, train_classes=8, inner_updates=3, remember=5, eval_classes=2)
images = np.random.RandomState(0).randint(0, 255, (2, 20, 20, 28, 28)).astype(np.uint8)
data = dict(background=images[0], evaluation=images[1])
found = {}
everything = list(jax.devices())
for devices in (1, 2, 8):
    processes.devices = lambda: everything[:devices]
    evolved = hebbian.HebbianConfig(
        limit=3, evaluations=2, chunk=1, policy=PolicyConfig(hidden=(32,)),
        evolution=Evolution(population=POPULATION),
    )
    evolution = hebbian.make_system(evolved)
    genome = jax.eval_shape(evolution.init, jax.random.key(0)).genome
    shared = anml.AnmlConfig(chunk=1, episodes=8, gate_channels=4, **small)
    divided = tsar.TsarConfig(chunk=1, regulator_channels=4, divide_heads=True, **small)
    heads = params_like(tsar.make_network(divided))["regulator"].values()
    gates = sum(head["bias"].size for head in heads)
    parameters = count(params_like(anml.make_network(shared)))
    found[devices] = {
        "evolution": (step_bytes(evolution, ()), count(genome)),
        "episodes": (step_bytes(anml.make_system(shared), data), parameters),
        "heads": (step_bytes(tsar.make_system(divided), data), gates),
    }
print(json.dumps(found))
"""
POPULATION = 64
EPISODES, CLASSES, FEATURES = 8, 8, 9 * 8
IMAGES, CODE_SIZE = 3 + 5, 9 * 4


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    done = subprocess.run(
        [sys.executable, "-c", CODE.replace("POPULATION", str(POPULATION))],
        env=os.environ
        | {
            # As `quickly_compiled` has it.
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {int(devices): of for devices, of in json.loads(done.stdout).items()}


def test_one_device_exchanges_nothing(found):
    assert [of[0] for of in found[1].values()] == [0, 0, 0]


@pytest.mark.parametrize("devices", [2, 8])
def test_a_generation_exchanges_losses_fitness_and_the_gradient(found, devices):
    moved, parameters = found[devices]["evolution"]
    assert moved == 4 * (2 * POPULATION + parameters)


@pytest.mark.parametrize("devices", [2, 8])
def test_a_meta_step_exchanges_the_gradient_and_what_draws_episodes(found, devices):
    moved, parameters = found[devices]["episodes"]
    of_an_episode = CLASSES + FEATURES + 20 + 1
    assert moved == 4 * (parameters + EPISODES * of_an_episode) + 8


@pytest.mark.parametrize("devices", [2, 8])
def test_divided_heads_exchange_gates_and_the_gradients_of_codes(found, devices):
    moved, gates = found[devices]["heads"]
    assert moved == 4 * IMAGES * (gates + CODE_SIZE)
