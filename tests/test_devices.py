"""Many at once: the same as one by one, in order, on one device or several."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax import devices
from tsar_jax.devices import by_platform, map_over, on_each_device, usable_cores

SEVERAL = """
import jax, jax.numpy as jnp
from tsar_jax.devices import map_over, on_each_device
jax.config.update("jax_num_cpu_devices", 4)
doubled = {n: jax.jit(map_over(lambda x, y: x * y, n))(jnp.arange(n), 2) for n in range(1, 10)}
print([found.tolist() for found in doubled.values()])
print(len(doubled[4].sharding.device_set), len(doubled[8].sharding.device_set))
sums = jax.jit(on_each_device(lambda x, y: x.sum() + y))(jnp.arange(8).reshape(4, 2), jnp.arange(4))
print(sums.tolist(), len(sums.sharding.device_set))
"""


def test_each_gets_its_own_and_what_is_shared() -> None:
    keys = jax.random.split(jax.random.key(0), 5)

    def draw(key, scale):
        return {"drawn": scale * jax.random.normal(key, (2,))}

    found = jax.jit(map_over(draw, 5))(keys, jnp.float32(3))["drawn"]
    np.testing.assert_allclose(found, [draw(key, 3.0)["drawn"] for key in keys], rtol=1e-6)


def test_any_number_is_spread_over_four_devices() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    found, devices, sums, _ = done.stdout.split("\n")
    assert found == str([[2 * i for i in range(n)] for n in range(1, 10)])
    assert devices == "4 4"
    assert sums == "[1, 6, 11, 16] 4"


def test_one_device_takes_the_whole_share() -> None:
    assert jax.device_count() == 1
    np.testing.assert_array_equal(on_each_device(lambda x: x + 1)(jnp.arange(3)[None]), [[1, 2, 3]])


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "setting",
    [
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=5"},
        {"JAX_NUM_CPU_DEVICES": "5"},
    ],
)
def test_a_number_of_devices_that_the_user_sets_is_respected(setting) -> None:
    code = (
        "import jax; from tsar_jax.devices import split_cpu; split_cpu(); print(jax.device_count())"
    )
    assert run(code, JAX_PLATFORMS="cpu", **setting).stdout == "5\n"


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_platform_that_is_not_there_is_named(platform) -> None:
    code = "import jax; from tsar_jax.cli import run_main; run_main(jax.devices)"
    done = run(code, JAX_PLATFORMS=platform, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: JAX_PLATFORMS={platform} cannot be used here (")
    assert done.stderr.endswith("unset JAX_PLATFORMS, or install JAX for that platform.\n")
    assert done.stderr.count("\n") == 1


def test_other_failed_assertions_are_no_matter_of_platforms() -> None:
    code = "import jax; from tsar_jax.cli import run_main; run_main(lambda: 1 / 0 and 1)"
    assert "ZeroDivisionError" in run(code, JAX_PLATFORMS="cpu").stderr
    code = "from tsar_jax.cli import run_main\ndef main(): assert False\nrun_main(main)"
    assert "AssertionError" in run(code, JAX_PLATFORMS="cpu").stderr


@pytest.mark.parametrize(("only", "traced"), [(True, {"cpu"}), (False, {"cpu", "default"})])
def test_only_a_cpus_own_form_is_traced_where_there_are_cpus_alone(
    monkeypatch, only, traced
) -> None:
    found = set()

    def form(name, factor):
        def scaled(x):
            found.add(name)
            return factor * x.sum()

        return scaled

    def loss(x):
        return by_platform(x, cpu=form("cpu", 2), default=form("default", 3))

    monkeypatch.setattr(devices, "only_cpus", lambda: only)
    gradient = jax.jit(jax.vmap(jax.grad(loss)))(jnp.ones((2, 3)))
    assert found == traced
    np.testing.assert_array_equal(gradient, np.full((2, 3), 2))


def test_an_accelerator_gets_its_own_form(monkeypatch) -> None:
    monkeypatch.setattr(devices, "only_cpus", lambda: False)
    one = jax.jit(lambda x: by_platform(x, cpu=jnp.sin, default=jnp.cos)).trace(jnp.float32(0))
    for platform, form in {"cpu": "sine", "cuda": "cosine"}.items():
        assert f"stablehlo.{form} " in one.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("known", [True, False])
def test_usable_cores_are_counted_where_the_system_says_and_where_not(known, monkeypatch) -> None:
    if known:
        monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
        assert usable_cores() == 2
    else:
        monkeypatch.delattr(devices.os, "sched_getaffinity", raising=False)
        assert usable_cores() == os.cpu_count()


def on_several(code: str, tmp_path: Path) -> str:
    """What code says that runs where JAX has as many devices as it asks for."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            # As `quickly_compiled` has it.
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


EPISODES = """
import pathlib
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", {devices})
from tsar_jax.systems.episodic.anml import AnmlConfig, make_system
from tsar_jax.training.checkpoints import to_host
from tsar_jax.training.loop import train
from tsar_jax.training.run import Run
config = AnmlConfig(
    steps=2, chunk=2, eval_every=None, checkpoint_every=None, episodes=4, channels=2,
    gate_channels=2, outputs=8, train_classes=8, inner_updates=3, remember=8, eval_classes=2,
    eval_runs=1, eval_rates=(0.01,),
)
images = np.random.RandomState(0).randint(0, 255, (2, 20, 20, 28, 28)).astype(np.uint8)
data = dict(background=images[0], evaluation=images[1])
run = Run(pathlib.Path("{devices}"), config, "toy", "cpu")
trained = train(make_system(config), data, config, run)
counts = {{len(leaf.sharding.device_set) for leaf in jax.tree.leaves(trained.state)}}
np.savez("{devices}.npz", devices=max(counts), **to_host(trained.state))
"""


def test_the_episodes_of_a_meta_step_are_shared_by_four_devices(tmp_path) -> None:
    found = {}
    for count in (1, 4):
        on_several(EPISODES.format(devices=count), tmp_path)
        with np.load(tmp_path / f"{count}.npz") as arrays:
            found[count] = dict(arrays)
        assert found[count].pop("devices") == count
    assert found[1].keys() == found[4].keys()
    for name, array in found[1].items():
        np.testing.assert_allclose(found[4][name], array, rtol=1e-3, atol=1e-5, err_msg=name)


DIVIDED = """
import pathlib
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", {devices})
from tsar_jax.systems.episodic.tsar import TsarConfig, make_system
from tsar_jax.training.checkpoints import to_host
from tsar_jax.training.loop import make_keys, train
from tsar_jax.training.programs import make_programs
from tsar_jax.training.run import Run
config = TsarConfig(
    steps=2, chunk=1, eval_every=2, checkpoint_every=1, channels=8, regulator_channels=8,
    outputs=32, train_classes=8, inner_updates=3, remember=8, eval_classes=2, eval_runs=3,
    eval_rates=(0.01,), initial_bias=-1.0, divide_heads=True,
)
images = np.random.RandomState(0).randint(0, 255, (2, 20, 20, 28, 28)).astype(np.uint8)
data = dict(background=images[0], evaluation=images[1])
path = pathlib.Path("{devices}")
trained = train(make_system(config), data, config, Run(path, config, "toy", "cpu"))
(path / "checkpoints" / "2").rename(path / "gone")
resumed = train(make_system(config), data, config, Run(path, config, "toy", "cpu", resume=True))
programs = make_programs(make_system(config), data, make_keys(0).init, 1)
programs_of = {{
    "chunk": programs.compile_chunk(trained.state, data, make_keys(0).step),
    "evaluate": programs.evaluate.lower(trained.state, data, make_keys(0).step).compile(),
}}
bytes_of = {{}}
for name, program in programs_of.items():
    memory = program.memory_analysis()
    bytes_of[name] = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    bytes_of[name] -= sum(array.nbytes for array in data.values())
states = trained.state, resumed.state
heads = [leaf for state in states for leaf in jax.tree.leaves(state.params["regulator"])]
assert all(len(leaf.sharding.device_set) == {devices} for leaf in heads)
parts = [leaf.addressable_data(0).size * {devices} == leaf.size for leaf in heads]
np.savez(
    path.with_suffix(".npz"), parts=all(parts),
    heads=sum(leaf.nbytes for leaf in jax.tree.leaves(trained.state.params["regulator"])),
    **bytes_of, **to_host(trained.state),
    **{{f"resumed/{{name}}": array for name, array in to_host(resumed.state).items()}},
    accuracy=trained.metrics[-1]["meta_test_test"],
)
"""


def test_tsars_heads_are_divided_among_eight_devices(tmp_path) -> None:
    found = {}
    for count in (1, 8):
        on_several(DIVIDED.format(devices=count), tmp_path)
        with np.load(tmp_path / f"{count}.npz") as arrays:
            found[count] = dict(arrays)
    one, eight = found[1], found[8]
    assert one.keys() == eight.keys()
    assert eight["parts"]
    for program, trees in (("chunk", 3), ("evaluate", 1)):  # with Adam's moments, and without
        saved = int(one.pop(program)) - int(eight.pop(program))
        assert saved > 0.9 * trees * one["heads"] * 7 / 8
    for name, array in one.items():
        np.testing.assert_allclose(eight[name], array, rtol=1e-3, atol=1e-4, err_msg=name)
    states = [name for name in one if name.startswith("params/")]
    assert states
    for name in states:
        np.testing.assert_array_equal(eight[name], eight[f"resumed/{name}"], err_msg=name)


LIFETIMES = """
import jax, jax.numpy as jnp
from tsar_jax.systems.episodic.meta_test_lifetime import map_in_batches
jax.config.update("jax_num_cpu_devices", {devices})
def run(factor, key, rate):
    return {{"found": factor * rate + jax.random.uniform(key, (2,))}}
keys, rates = jax.random.split(jax.random.key(0), 7), jnp.arange(7.)
for memory in (1, 3):
    many = jax.jit(lambda factor, keys, rates, count: map_in_batches(
        run, factor, keys, rates, lifetime_bytes=1, memory_budget=memory, count=count
    ))
    for count in (7, 5, 1):
        found = many(jnp.float32(10), keys, rates, jnp.int32(count))["found"]
        print(found[:count].tolist())
"""


def test_a_meta_tests_lifetimes_are_shared_in_any_number_and_keep_their_places(tmp_path) -> None:
    said = {}
    for count in (1, 2, 4):
        said[count] = on_several(LIFETIMES.format(devices=count), tmp_path)
    assert len(said[1].splitlines()) == 6
    assert said[1] == said[2] == said[4]


COMPOSED = """
import sys
import jax
import numpy as np
jax.config.update("jax_num_cpu_devices", {devices})
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.streams import find_stream
from tsar_jax.systems.compose.system import make_system
from tsar_jax.training.loop import train
from tsar_jax.training.run import Run
images = np.random.default_rng(0).integers(0, 256, (8, 6, 3, 3)).astype(np.uint8)
for meta in ("gradient", "openai_es", "pes"):
    config = ComposeConfig(
        meta_optimiser=meta, encoder="pixels", beta=1.0, classes=2, learn=2, query=2, outputs=6,
        eval_classes=2, eval_lifetimes=3, population=4, segment=2, lifetimes=2, steps=3, chunk=1,
        eval_every=3, checkpoint_every=3,
    )
    stream = find_stream(config)._replace(shape=(3, 3))
    run = Run(__import__("pathlib").Path("{folder}") / (meta + "{devices}"), config)
    trained = train(make_system(config, stream), {{"train": images, "test": images}}, config, run)
    print(meta, *(float(leaf.sum()) for leaf in jax.tree.leaves(trained.state.theta)))
"""


def test_compositions_are_the_same_on_one_device_and_two(tmp_path) -> None:
    """The gradient's lifetimes are added in another order there; a population's sums are not."""
    found = []
    for devices_used in (1, 2):
        done = run(COMPOSED.format(devices=devices_used, folder=tmp_path))
        assert done.returncode == 0, done.stderr
        found.append([line.split() for line in done.stdout.splitlines() if "es " in line[:10]])
    one, two = found
    assert [row[0] for row in one] == ["openai_es", "pes"]
    for row, other in zip(one, two, strict=True):
        np.testing.assert_allclose(
            np.asarray(row[1:], float), np.asarray(other[1:], float), rtol=1e-6
        )
