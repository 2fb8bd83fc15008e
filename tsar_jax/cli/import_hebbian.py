"""Import of the Hebbian release's coefficients, pixel policies and static policies as a run."""

import argparse
import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tsar_jax.cli.imported import Imported, as_float32, check_shapes, settings
from tsar_jax.environments.own import CAR_RACING, QUADRUPED
from tsar_jax.errors import UserError
from tsar_jax.interop.naming import check_arrays
from tsar_jax.interop.torch_files import Content
from tsar_jax.networks.hebbian_network import COEVOLVED, FEATURES, HIDDEN, KERNELS, layer_shapes
from tsar_jax.plasticity.hebbian import RULES
from tsar_jax.systems.hebbian.evolution import Genome, init_evolution
from tsar_jax.systems.hebbian.evolved import make_envs
from tsar_jax.systems.hebbian.policy import STATIC, Policy, PolicyConfig
from tsar_jax.systems.hebbian.presets import EXPERIMENT, PRESETS
from tsar_jax.systems.hebbian.release import (
    coevolved_from_release,
    hebbian_coefficients_from_release,
    pixel_policy_from_release,
)
from tsar_jax.systems.hebbian.system import HebbianConfig, policy_for

ENDS = {"cart_pole": (4, 2), "pendulum": (3, 1), QUADRUPED: (28, 8)}
"""Numbers of inputs and outputs of a policy that observes states, by environment."""
CONVOLUTIONS = sum(map(math.prod, KERNELS))
"""Number of weights of a pixel policy's convolutions."""


class Parts(NamedTuple):
    """The arrays in the files of a policy.

    static: arrays of a static policy's state dictionary, [] for a plastic policy. coefficients
        [synapses, k]: None where the files hold convolutions alone. coevolved [n]: None where
        nothing is co-evolved.
    """

    static: list[np.ndarray]
    coefficients: np.ndarray | None
    coevolved: np.ndarray | None


def import_hebbian(kind: str, contents: Sequence[Content], argv: list[str], text: str) -> Imported:
    """Return a run of hebbian_evolve with the policy in a release's files. Raises UserError."""
    pixels = kind == "pixel-policy"
    parts = sort_parts(kind, contents)
    base = base_config(parts, pixels, argv)
    config = settings(kind, base, argv, {}, text)
    check_policy(config.policy, base.policy, parts)
    env = make_envs(config, 1).first
    policy = policy_for(config, env)
    sees_pixels = len(env.observation_shape) == 3
    if sees_pixels != pixels:
        advice = "pixels: import a pixel-policy" if sees_pixels else "states: import hebbian"
        raise UserError(f"{config.environment} shows {advice}, or name another --environment.")
    inputs = FEATURES if pixels else env.observation_shape[0]
    sizes = (inputs, *config.policy.hidden, env.num_actions)
    genome = as_float32(make_genome(parts, sizes, pixels, policy, config))
    like = jax.eval_shape(policy.init, jax.random.key(0))
    check_shapes(genome, like, f"the policy for {config.environment}", "--environment")
    remarks = [f"environment {config.environment}, rule {config.policy.rule}"]
    if not parts.static and parts.coefficients is None:
        remarks.append("convolutions alone: the coefficients are drawn as evolution begins")
    state = init_evolution(config.evolution, genome)
    return Imported(EXPERIMENT, config, state, config.steps, tuple(remarks))


def sort_parts(kind: str, contents: Sequence[Content]) -> Parts:
    """Return the files' arrays as coefficients, co-evolved parameters or a static policy.

    Raises:
        UserError: the arrays can be none of these.
    """
    for content in contents:
        check_arrays(content.arrays)
    if len(contents) == 1 and len(contents[0].arrays) > 1:
        static = list(contents[0].arrays.values())
        ranks = [4] * len(KERNELS) if kind == "pixel-policy" else []
        ranks += [2] * (len(static) - len(ranks))
        if [array.ndim for array in static] != ranks or 2 not in ranks:
            shapes = [list(array.shape) for array in static[:10]]
            raise UserError(
                f"Arrays of shapes {shapes} are of no static policy of kind {kind}: check the file."
            )
        return Parts(static, None, None)
    arrays = [array for content in contents for array in content.arrays.values()]
    if len(arrays) > 2 or any(array.ndim not in (1, 2) for array in arrays):
        raise UserError(
            f"These files are of no {kind}: name one of coefficients and, where there is one, that "
            "of what evolved along with them."
        )
    if kind == "pixel-policy" and arrays[0].size == CONVOLUTIONS:
        arrays.reverse()
        if len(arrays) == 1:
            return Parts([], None, arrays[0])
    coefficients = arrays[0].reshape(len(arrays[0]), -1)
    return Parts([], coefficients, arrays[1] if len(arrays) == 2 else None)


def base_config(parts: Parts, pixels: bool, argv: list[str]) -> HebbianConfig:
    """Return the config that the files imply, with the release's own settings for the rest."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(
        "--environment", default=CAR_RACING if pixels else likely_environment(parts)
    )
    parser.add_argument("--policy.rule", dest="rule")
    flags, _ = parser.parse_known_args(argv)
    presets = {QUADRUPED: "paper", CAR_RACING: "paper-car"}
    if flags.environment in presets:
        config = PRESETS[presets[flags.environment]].config
    else:
        config = HebbianConfig(environment=flags.environment)
    policy = config.policy
    if parts.static:
        dense = parts.static[2:] if pixels else parts.static
        hidden = tuple(len(array) for array in dense[:-1])
        policy = dataclasses.replace(policy, rule=STATIC, hidden=hidden)
    elif parts.coefficients is not None:
        count = parts.coefficients.shape[1]
        policy = dataclasses.replace(policy, rule=likely_rule(policy.rule, count, flags.rule))
    if parts.coevolved is not None and parts.coevolved.size > (CONVOLUTIONS if pixels else 0):
        policy = dataclasses.replace(policy, initial=COEVOLVED)
    return dataclasses.replace(config, policy=policy, steps=0)


def likely_environment(parts: Parts) -> str:
    """Return the environment whose network has as many synapses as the files; else cart_pole."""
    if parts.static:
        ends = parts.static[0].shape[-1], len(parts.static[-1])
        return next((name for name, sizes in ENDS.items() if sizes == ends), "cart_pole")
    counts = {
        name: sum(math.prod(shape) for shape in itertools.pairwise((into, *HIDDEN, out)))
        for name, (into, out) in ENDS.items()
    }
    rows = 0 if parts.coefficients is None else len(parts.coefficients)
    return next((name for name, count in counts.items() if count == rows), "cart_pole")


def likely_rule(usual: str, count: int, flag: str | None) -> str:
    """Return the rule of `count` coefficients a synapse: the usual one, or else the only one.

    flag: the rule that the command line names, if it does; the caller applies it later.

    Raises:
        UserError: no rule has so many, or several have and the command line names none.
    """
    rules = [name for name, rule in RULES.items() if len(rule.columns) == count]
    if not rules:
        raise UserError(f"There is no rule of {count} coefficients a synapse: check the file.")
    if usual in rules:
        return usual
    if len(rules) > 1 and flag is None:
        raise UserError(
            f"{' and '.join(rules)} both have {count} coefficients a synapse: add --policy.rule."
        )
    return rules[0]


def check_policy(policy: PolicyConfig, from_files: PolicyConfig, parts: Parts) -> None:
    """Raise UserError where the policy that flags ask for contradicts that of the files."""
    if (policy.rule == STATIC) != (from_files.rule == STATIC):
        raise UserError(f"The file's policy is of rule {from_files.rule}: leave out --policy.rule.")
    if parts.coefficients is not None and policy.rule != STATIC:
        count, columns = parts.coefficients.shape[1], RULES[policy.rule].columns
        if count != len(columns):
            raise UserError(
                f"{policy.rule} has {len(columns)} coefficients a synapse, but the file {count}: "
                "change --policy.rule."
            )
    if (policy.initial == COEVOLVED) != (from_files.initial == COEVOLVED):
        raise UserError(
            f"The files' weights at birth are {'' if from_files.initial == COEVOLVED else 'not '}"
            "co-evolved: change --policy.initial."
        )


def make_genome(
    parts: Parts, sizes: tuple[int, ...], pixels: bool, policy: Policy, config: HebbianConfig
) -> Genome:
    """Return the files' arrays in this project's order and layout.

    sizes: units of each layer, the inputs first.

    Raises:
        UserError: the files do not fit the network.
    """
    if parts.static and pixels:
        static = pixel_policy_from_release(parts.static)
        return Genome(static.weights, {"kernels": static.kernels})
    if parts.static:
        return Genome(tuple(parts.static), {"kernels": ()})
    coevolved: dict[str, Any] = {"kernels": ()}
    if parts.coevolved is not None:
        pixel_policy = coevolved_from_release(parts.coevolved, sizes, pixels=pixels)
        coevolved["kernels"] = pixel_policy.kernels
        if pixel_policy.weights:
            coevolved["weights"] = pixel_policy.weights
    elif pixels:
        raise UserError(
            "The convolutions are missing: name their file too, after the coefficients'."
        )
    if parts.coefficients is None:
        return Genome(policy.init(jax.random.key(config.seed)).main, coevolved)
    synapses = sum(math.prod(shape) for shape in layer_shapes(sizes))
    if len(parts.coefficients) != synapses:
        raise UserError(
            f"The file has coefficients of {len(parts.coefficients)} synapses, but the network of "
            f"{tuple(sizes)} units for {config.environment} has {synapses}: name another "
            "--environment, or its hidden layers with --policy.hidden."
        )
    rows = parts.coefficients
    return Genome(hebbian_coefficients_from_release(rows, sizes, pixels=pixels), coevolved)
