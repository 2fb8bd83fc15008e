"""What generality costs: published systems by their own scripts' code and composed, in turn.

`python -m benchmarks.generality --help`. A pair shares one process, and its two programs take turns
call by call, so that what else the machine does meets both. The wanted ratio is 1.1 at most.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import WARM_UP
from benchmarks.meta_step import step_of
from tsar_jax.cli import exit_code
from tsar_jax.cli.flags import parse_arguments
from tsar_jax.data import load
from tsar_jax.devices import split_cpu
from tsar_jax.errors import check_known
from tsar_jax.networks.perceptron import make_perceptron
from tsar_jax.plasticity.learner import Learner, unroll
from tsar_jax.plasticity.methods import Batch
from tsar_jax.systems.compose.composition import compose
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.learners.methods import batch_of_one, find_method, problem_spec
from tsar_jax.systems.compose.presets import PRESETS
from tsar_jax.systems.compose.streams import find_stream
from tsar_jax.systems.compose.system import make_system
from tsar_jax.systems.episodic import anml, anml_presets, tsar, tsar_presets
from tsar_jax.systems.hebbian import presets as hebbian_presets
from tsar_jax.systems.hebbian import system as hebbian
from tsar_jax.systems.learned_rules import presets as rule_presets
from tsar_jax.systems.learned_rules import system as rules

ROOT = Path(__file__).parents[1]
Program = tuple[Callable[..., tuple[Any, Any]], Any, tuple[Any, ...]]
"""Function (state, number of the call, *arguments) -> (state, outputs), first state, arguments."""


class Pair(NamedTuple):
    """Two programs of the same arithmetic: by the own script's code, and composed."""

    own: Program
    composed: Program


def composed_step(config: ComposeConfig, data: Any) -> Program:
    """Return a meta-step of a composition."""
    return step_of(make_system(config, find_stream(config)), data)


def omniglot() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return Omniglot as the episodic scripts and as compositions take it."""
    splits = load("omniglot").splits
    background, unseen = splits["background"].images, splits["evaluation"].images
    own = {"background": background, "evaluation": unseen}
    return own, {"train": background, "test": unseen}


def episodic(name: str, small: bool) -> Pair:
    """Return a meta-step of ANML, OML or TSAR at the width of the preset cpu."""
    if name == "tsar":
        cpu = tsar_presets.CPU
        width, modulator = tsar.classifier_channels(cpu), cpu.regulator_channels
    else:
        width, modulator = anml_presets.CPU.channels, anml_presets.CPU.gate_channels
    if small:
        width = modulator = 4
    own_data, data = omniglot()
    config = dataclasses.replace(
        PRESETS[name].config, channels=width, modulator_channels=modulator, seeds=1
    )
    if name == "tsar":
        theirs = dataclasses.replace(
            tsar_presets.PRESETS["paper"].config, channels=width, regulator_channels=modulator
        )
        own = step_of(tsar.make_system(theirs), own_data)
    else:
        paper = anml_presets.PRESETS["paper" if name == "anml" else "paper-oml"].config
        narrow = dataclasses.replace(paper, channels=width, gate_channels=modulator)
        own = step_of(anml.make_system(narrow), own_data)
    return Pair(own, composed_step(config, data))


def f_bio(small: bool) -> Pair:
    """Return an episode of F_bio, one seed."""
    images = load("emnist").splits["train"].images
    learn = 4 if small else 50
    theirs = dataclasses.replace(rule_presets.PRESETS["paper"].config, seeds=1, learn=learn)
    ours = dataclasses.replace(PRESETS["f-bio"].config, seeds=1, learn=learn)
    return Pair(
        step_of(rules.make_system(theirs, len(images)), images),
        composed_step(ours, {"train": images, "test": images}),
    )


def hebbian_cart_pole(small: bool) -> Pair:
    """Return a generation of the Hebbian cart-pole, in lifetimes so short that some member's pole
    stands until the end in either, so that both have as many steps.
    """
    split_cpu()
    limit, population = (20, 4) if small else (100, 40)
    theirs = hebbian_presets.PRESETS["cart-pole"].config
    evolution = dataclasses.replace(theirs.evolution, population=population)
    theirs = dataclasses.replace(theirs, limit=limit, evolution=evolution)
    ours = dataclasses.replace(
        PRESETS["hebbian-cart-pole"].config, episode_steps=limit, population=population
    )
    return Pair(step_of(hebbian.make_system(theirs), ()), composed_step(ours, ()))


def synergy(small: bool) -> Pair:
    """Return a lifetime under SYNERGy: the method alone, and as a composition's learner."""
    ours = PRESETS["synergy"].config
    stream = find_stream(ours)
    sizes = (784, *ours.hidden, 10)
    method, composition = find_method("synergy", ours), compose(ours, stream)
    net = make_perceptron(sizes, ours.beta)
    learner = method.learner(dataclasses.replace(problem_spec(ours, sizes), net=net))
    count = 8 if small else 150
    features = jax.random.uniform(jax.random.key(1), (count, 784))
    labels = jnp.arange(count) % 10

    def lifetime(learner: Learner, theta: Any, examples: Any) -> Program:
        def function(state: Any, call: jax.Array, theta: Any, examples: Any) -> tuple[Any, Any]:
            key = jax.random.fold_in(jax.random.key(2), call)
            return unroll(learner, theta, state, examples, key)

        state = jax.jit(learner.init)(theta, jax.random.key(0))
        return function, state, (theta, examples)

    theta = jax.jit(lambda key: composition.complete(composition.first(key), key))(
        jax.random.key(0)
    )
    batches: Batch = jax.vmap(batch_of_one)(features, labels)
    sensed = composition.sense(theta, features.reshape(-1, 28, 28, 1))
    return Pair(
        lifetime(learner, (), batches), lifetime(composition.learner, theta, (sensed, labels))
    )


PAIRS: dict[str, Callable[..., Pair]] = {
    "anml": lambda small: episodic("anml", small),
    "oml": lambda small: episodic("oml", small),
    "tsar": lambda small: episodic("tsar", small),
    "f-bio": f_bio,
    "hebbian-cart-pole": hebbian_cart_pole,
    "synergy": synergy,
}
"""(whether at tiny width) -> the two programs, by the composition's preset."""


def measure_pair(pair: Pair, repeats: int) -> dict[str, Any]:
    """Return the median seconds of each program's calls, and the ratio of the medians."""
    programs = []
    for function, state, arguments in pair:
        call = jax.jit(function, donate_argnums=0).lower(state, np.int32(0), *arguments).compile()
        programs.append([call, state, arguments, []])
    for number in range(WARM_UP + repeats):
        # Each goes first every other time.
        for program in programs if number % 2 else programs[::-1]:
            call, state, arguments, seconds = program
            began = time.perf_counter()
            program[1], _ = jax.block_until_ready(call(state, np.int32(number), *arguments))
            seconds.append(time.perf_counter() - began)
    own, composed = (statistics.median(program[3][WARM_UP:]) for program in programs)
    return {"own_seconds": own, "composed_seconds": composed, "ratio": composed / own}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's settings. Raises UserError where one is impossible."""
    description = "Prints the time of each composed system over that of its own script's code."
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.generality", description=description
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(PAIRS)}")
    parser.add_argument("--repeats", type=int, default=30, help="calls (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="tiny, only to see that all runs")
    parser.add_argument("--here", action="store_true", help="in this process, as JSON: one pair")
    options = parse_arguments(parser, sys.argv[1:] if arguments is None else arguments)
    for name in options.only or ():
        check_known("pair", name, PAIRS)
    return options


def run(arguments: Sequence[str] | None) -> int:
    """Measure each pair in a process of its own, and print it; 1 if one failed."""
    options = parse(arguments)
    names = options.only or list(PAIRS)
    if options.here:
        print(json.dumps(measure_pair(PAIRS[names[0]](options.small), options.repeats)))
        return 0
    print(f"{'preset':20}{'own script':>12}{'composed':>12}{'ratio':>8}", flush=True)
    failed = 0
    for name in names:
        flags = ["--small"] if options.small else []
        command = [sys.executable, "-m", "benchmarks.generality", "--here", "--only", name]
        command += ["--repeats", str(options.repeats), *flags]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{name:20}exit code {done.returncode}", flush=True)
            failed = 1
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        own, composed = (1e3 * row[f"{which}_seconds"] for which in ("own", "composed"))
        print(f"{name:20}{own:9.1f} ms{composed:9.1f} ms{row['ratio']:8.2f}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(exit_code(lambda: run(None), "interrupted"))
