"""The roofline's arithmetic, and that the benchmarks run and report; no times are asserted."""

import dataclasses
import json

import jax
import pytest

from benchmarks import (
    anml_costs,
    continual,
    generality,
    machine,
    measure,
    plasticity,
    resnet,
    tsar,
    worker,
)
from benchmarks.__main__ import main, run_in_subprocess
from benchmarks.anml import SMALL
from benchmarks.suite import BENCHMARKS
from tsar_jax.errors import UserError
from tsar_jax.networks import params_like
from tsar_jax.systems.episodic.anml import AnmlConfig, make_network

MODELS = ("anml", "oml", "ungated")


def test_paper_meta_step_takes_63_gflop():
    assert anml_costs.meta_step_flops(AnmlConfig()) == pytest.approx(63e9, rel=0.03)


def test_meta_step_flops_grow_with_episodes_and_with_what_learns():
    config = AnmlConfig(model="oml")
    flops = anml_costs.meta_step_flops(config)
    twice = dataclasses.replace(config, episodes=2)
    everything = dataclasses.replace(config, plastic=("all",))
    assert anml_costs.meta_step_flops(twice) == 2 * flops
    assert anml_costs.meta_step_flops(everything) > flops


@pytest.mark.parametrize("model", MODELS)
def test_level_costs_are_what_xla_counts(model):
    """XLA's own count of a forward pass on colour images, wide enough for products to rule."""
    config = dataclasses.replace(SMALL, model=model, channels=96, gate_channels=64, microbatch=1)
    network = make_network(config)
    params = params_like(network)
    image = jax.ShapeDtypeStruct((1, 28, 28, 3), "float32")
    forward = jax.jit(lambda params, image: network.apply({"params": params}, image))
    counted = forward.lower(params, image).cost_analysis()["flops"]
    macs = sum(anml_costs.level_macs(config).values())
    assert counted == pytest.approx(2 * macs, rel=0.1)


def test_an_episode_of_f_bio_moves_two_and_a_half_gigabytes():
    assert plasticity.weight_bytes(plasticity.PAPER) == 4 * 178_670
    assert plasticity.episode_bytes(plasticity.PAPER) == 250 * 14 * 4 * 178_670


def test_paper_tsar_takes_320_gflop_and_16_gb():
    query = 84
    macs = tsar.regulator_macs(tsar.PAPER)
    assert 2 * macs * (20 + 3 * query) == pytest.approx(320e9, rel=0.01)
    assert 7 * 4 * tsar.parameters(tsar.PAPER) == pytest.approx(16.5e9, rel=0.01)


def test_synergys_step_takes_some_270_mflop_and_resnets_350_gflop():
    assert continual.step_flops(continual.PAPER) == pytest.approx(272e6, rel=0.01)
    assert 320 * resnet.forward_flop(32, 64) == pytest.approx(350e9, rel=0.03)


def test_head_update_moves_six_times_the_head():
    assert anml_costs.head_update_bytes(2304, 1000) == pytest.approx(6 * 9.2e6, rel=0.01)


def test_benchmarks_have_different_names():
    assert len({benchmark.name for benchmark in BENCHMARKS}) == len(BENCHMARKS)


def test_rates_and_peak_memory_are_positive():
    rates = machine.matmul_rates(machine.SMALL, ((8, 4, 2),)) | machine.stream_rates(
        machine.SMALL, (2**16,)
    )
    assert len(rates) == 4
    assert min(rates.values()) > 0
    peak = machine.peak_memory()
    assert peak is None or peak > 2**20


def test_measure_counts_units_and_passes_on_the_state():
    calls = []

    def function(state, call, step):
        jax.debug.callback(lambda call: calls.append(int(call)), call)
        return state + step, state

    costs = (
        measure.Cost(8.0, "FLOP", lambda sizes: {"slow": 2.0, "fast": 4.0}),
        measure.Cost(3.0, "byte", lambda sizes: {"memory": 6.0}),
    )
    work = measure.Work(function, jax.numpy.zeros(3), (jax.numpy.ones(3),), 10, costs)
    row = measure.measure(work, 5, machine.SMALL)
    jax.effects_barrier()
    assert sorted(calls) == list(range(measure.WARM_UP + 5))
    assert row["roofline_seconds"] == 8.0 / 4.0 + 3.0 / 6.0
    assert row["ratio"] == row["seconds_min"] / 2.5
    assert row["rate_slow"] == 2.0


@pytest.fixture
def quick_compilation():
    """Slower programs, sooner compiled."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


QUICK = [
    "meta_test_update",
    "hebbian_generation",
    "evolution_step",
    "synergy_step",
]
LONG_TO_COMPILE = [
    "tsar_transfer_update",
    "hebbian_quadruped",
    "oml_cpu",
    "tsar",
    "tsar_analysis",
    "rule_episode",
    "hebbian_pixels",
]


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("names", [QUICK, pytest.param(LONG_TO_COMPILE, marks=pytest.mark.slow)])
def test_command_line_measures_and_writes_json(names, tmp_path, capsys):
    out = tmp_path / "folder" / "results.json"
    arguments = ["--widths", "small", "--repeats", "2", "--out", str(out), "--only", *names]
    assert main(arguments, run_one=worker.run_one) == 0
    results = json.loads(out.read_text())
    assert results["machine"]["flops_per_second"] > 0
    assert results["machine"]["bytes_per_second"] > 0
    assert [row["name"] for row in results["benchmarks"]] == names
    for row in results["benchmarks"]:
        for name in ("seconds_min", "seconds_median", "roofline_seconds"):
            assert row[name] > 0
        assert (row["compile_seconds"] > 0) == (row["name"] != "hebbian_generation")
        assert row["seconds_min"] <= row["seconds_median"]
        assert row["target"] is None
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_a_process_of_its_own_gives_a_row():
    row = run_in_subprocess("machine", "small", 1, "float32")
    assert row["jax"] == jax.__version__
    assert row["flops_per_second"] > 0


def test_a_failure_is_reported_and_the_rest_measured(tmp_path):
    out = tmp_path / "results.json"

    def run_one(name, widths, repeats, precision):
        return {"name": name, "error": "exit code 1"}

    assert main(["--only", "oml", "meta_test_update", "--out", str(out)], run_one) == 1
    rows = json.loads(out.read_text())["benchmarks"]
    assert [row["name"] for row in rows] == ["oml", "meta_test_update"]


@pytest.mark.parametrize("arguments", [["--only", "nothing"], ["--repeats", "0"]])
def test_bad_input_is_told_in_a_sentence(arguments, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "results.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_list_names_every_benchmark(capsys):
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(benchmark.name in printed for benchmark in BENCHMARKS)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "synergy" else pytest.mark.slow)
        for name in generality.PAIRS
    ],
)
def test_a_system_takes_turns_with_its_composition(name):
    pair = generality.PAIRS[name](small=True)
    own, composed = (sum(leaf.size for leaf in jax.tree.leaves(p[1])) for p in pair)
    assert own <= composed <= own + 8  # the same parameters and moments; compositions count steps
    row = generality.measure_pair(pair, repeats=2)
    assert row["own_seconds"] > 0
    assert row["ratio"] == pytest.approx(row["composed_seconds"] / row["own_seconds"])


def test_an_unknown_pair_is_named():
    with pytest.raises(UserError, match=r"no pair 'anm': .*nearest is anml"):
        generality.parse(["--only", "anm"])
