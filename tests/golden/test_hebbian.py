"""The numbers of the original Hebbian release: its nine rules, pixel policy and evolution."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import close, files, load

from tsar_jax.meta.evolution import standardised_ranks
from tsar_jax.meta.strategy import follow
from tsar_jax.networks.hebbian_network import forward, image_features
from tsar_jax.plasticity.hebbian import RULES, hebbian_update
from tsar_jax.systems.hebbian.evolution import (
    Evolution,
    Genome,
    init_evolution,
    learning_rate_schedule,
    optimiser,
    sigma_schedule,
)
from tsar_jax.systems.hebbian.release import (
    hebbian_coefficients_from_release,
    pixel_policy_from_release,
)

HIDDEN = (128, 64)


def released(seed: int, sizes, columns: int, precision: str):
    """Weights and coefficients, drawn as the golden arrays' README says."""
    shapes = [(out, into) for into, out in itertools.pairwise(sizes)]
    weights = [
        np.random.RandomState(seed + layer).uniform(-0.1, 0.1, shape)
        for layer, shape in enumerate(shapes)
    ]
    synapses = sum(out * into for out, into in shapes)
    rows = np.random.RandomState(seed + 3).standard_normal((synapses, columns)) * 0.1
    coefficients = hebbian_coefficients_from_release(np.float32(rows), sizes)
    return (
        tuple(jnp.asarray(np.float32(w), precision) for w in weights),
        tuple(jnp.asarray(c, precision) for c in coefficients),
    )


@pytest.mark.parametrize("mode", ["normalised", "unnormalised_tanh"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("path", files("hebbian_rules"), ids=lambda path: path.stem)
def test_lifetime(path, rule, mode, precision) -> None:
    golden = load(path, precision)
    prefix = f"{rule}__{mode}__"
    outputs = golden[prefix + "outputs"]
    sizes = (golden["observations"].shape[1], *HIDDEN, outputs.shape[1])
    seed = int(golden[prefix + "recipe_seed"])
    weights, coefficients = released(seed, sizes, len(RULES[rule].columns), precision)

    @jax.jit
    def step(weights, observation):
        activities = forward(weights, observation, bounded=mode != "normalised")
        weights = hebbian_update(
            RULES[rule], coefficients, weights, activities, normalised=mode == "normalised"
        )
        return weights, activities[-1]

    for observation, output in zip(golden["observations"], outputs, strict=True):
        weights, ours = step(weights, jnp.asarray(observation))
        close(ours, output, precision)
    for layer, every in enumerate((1, 8, 1)):
        close(weights[layer][:, ::every], golden[f"{prefix}final_{layer}"], precision)


@pytest.mark.parametrize("path", files("hebbian_pixel_policy"), ids=lambda path: path.stem)
def test_pixel_policy(path, precision) -> None:
    golden = load(path, precision)
    policy = pixel_policy_from_release([golden[f"param_{i}"] for i in range(5)])

    @jax.jit
    def layers(image):
        return forward(policy.weights, image_features(policy.kernels, image / 255), bounded=False)

    for index, image in enumerate(golden["images"].astype(precision)):
        features, *rest = layers(jnp.asarray(image))
        # The release flattens (channel, width, height).
        flat = features.reshape(9, 9, 8).transpose(2, 1, 0).reshape(-1)
        for number, ours in enumerate((flat, *rest)):
            close(ours, golden[f"layer_{number}"][index], precision)


@pytest.mark.parametrize("case", ["small", "paper"])
@pytest.mark.parametrize("path", files("openai_es"), ids=lambda path: path.stem)
def test_evolution(path, case, precision) -> None:
    golden = load(path, precision)
    coefficients = golden[f"{case}__coefficients_init"]
    coevolved = golden[f"{case}__coevolved_init"]
    evolution = Evolution(population=len(golden[f"{case}__gen0__rewards"]))
    rate, sigma = learning_rate_schedule(evolution), sigma_schedule(evolution)
    state = init_evolution(evolution, Genome(coefficients, coevolved))
    for generation in range(3):
        prefix = f"{case}__gen{generation}__"
        main_noise, coevolved_noise = golden[prefix + "noise"], golden[prefix + "coevolved_noise"]
        # The recorded rewards contain the penalty, which the release's workers subtract.
        ranks = standardised_ranks(jnp.asarray(golden[prefix + "rewards"]))
        weights = -ranks / (evolution.population * sigma(state.generation))
        gradient = Genome(
            jnp.tensordot(weights, main_noise, 1), jnp.tensordot(weights, coevolved_noise, 1)
        )
        state = follow(optimiser(evolution), state, gradient)
        close(state.genome.main, golden[prefix + "coefficients"], precision)
        close(state.genome.coevolved, golden[prefix + "coevolved"], precision)
        after = [rate(state.generation), sigma(state.generation)]
        close(after, golden[prefix + "lr_sigma"], precision)
