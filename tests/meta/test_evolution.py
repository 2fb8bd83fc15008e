"""The gradient of an evolution strategy: noise, ranks, and that devices change nothing."""

import functools
import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from evosax.algorithms import Open_ES
from evosax.core.fitness_shaping import centered_rank_fitness_shaping_fn
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tsar_jax.cli.launch import free_port
from tsar_jax.meta.descend import descend
from tsar_jax.meta.evolution import (
    BLOCK,
    es_gradient,
    gradient_from_losses,
    lifetime_key,
    perturb,
    standardised_ranks,
)
from tsar_jax.meta.gradient import meta_gradient

POPULATION, SIGMA = 6, 0.1
SIZE = BLOCK + 5  # so that the noise takes two blocks
KEY = jax.random.key(4)


@functools.cache
def centre():
    """Parameters of two parts; the first takes two blocks of noise."""
    rng = np.random.default_rng(0)
    first = (rng.normal(size=SIZE - 3).astype(np.float32), rng.normal(size=3).astype(np.float32))
    return first, {"weights": jnp.ones((2, 2))}


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.fixture(scope="module")
def noise():
    """Every member's noise in both parts [population, n], as the members that are asked for say."""
    theta, numbers = centre(), jnp.arange(POPULATION)
    members = jax.jit(jax.vmap(perturb, (None, None, None, 0)))(theta, KEY, SIGMA, numbers)
    return [
        (
            np.stack([flat(jax.tree.map(lambda x, i=i: x[i], part)) for i in range(POPULATION)])
            - flat(of_centre)
        )
        / SIGMA
        for part, of_centre in zip(members, theta, strict=True)
    ]


def test_members_come_in_pairs_of_opposite_noise_that_is_standard_normal(noise) -> None:
    for part in noise:
        np.testing.assert_allclose(part[::2], -part[1::2], atol=1e-4)
    drawn = noise[0][::2]
    assert abs(drawn.mean()) < 0.03
    assert abs(drawn.std() - 1) < 0.03
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 0.05
    # The blocks of one member differ, and so do the two parts.
    assert np.abs(drawn[:, :5] - drawn[:, BLOCK:]).min() > 1e-4
    assert np.abs(noise[1][::2] - drawn[:, :4]).min() > 1e-4


def test_the_gradient_is_the_sum_of_all_noise_by_rank(noise) -> None:
    losses = -np.array([3.0, -1.0, 0.5, 7.0, 2.0, -4.0], np.float32)
    found = jax.jit(functools.partial(gradient_from_losses, sigma=SIGMA))(centre(), KEY, losses)
    ranks = losses.argsort().argsort()
    ranks = (ranks - ranks.mean()) / ranks.std()
    for part, drawn in zip(found, noise, strict=True):
        wanted = ranks @ drawn / (POPULATION * SIGMA)
        np.testing.assert_allclose(flat(part), wanted, atol=2e-4)


def test_parameters_may_lack_a_part_or_have_one_alone() -> None:
    losses = jnp.arange(6.0)
    for theta in ((jnp.zeros(3), ()), jnp.zeros(3)):
        for found in (
            perturb(theta, KEY, SIGMA, jnp.asarray(1)),
            gradient_from_losses(theta, KEY, losses, sigma=SIGMA),
        ):
            chex.assert_trees_all_equal_shapes_and_dtypes(found, theta)


def test_a_parts_noise_does_not_depend_on_the_size_of_another() -> None:
    small, large = (
        perturb((jnp.zeros(3), jnp.zeros(size)), KEY, SIGMA, jnp.asarray(0)) for size in (2, 5)
    )
    np.testing.assert_array_equal(small[0], large[0])


# Few sizes, because each is compiled.
FITNESS = st.sampled_from([2, 3, 8, 29]).flatmap(
    lambda size: arrays.arrays(
        np.float32, size, elements=st.floats(-100, 100, width=16), unique=True
    )
)


@settings(max_examples=50, deadline=None)
@given(FITNESS)
def test_ranks_are_standardised_and_depend_on_the_order_alone(fitness) -> None:
    ranks = np.asarray(standardised_ranks(jnp.asarray(fitness)))
    np.testing.assert_allclose([ranks.mean(), ranks.std()], [0, 1], atol=1e-5)
    np.testing.assert_array_equal(ranks.argsort(), fitness.argsort())
    stretched = jnp.asarray(np.float32(fitness.argsort().argsort()) ** 3)
    np.testing.assert_array_equal(ranks, standardised_ranks(stretched))


def test_a_fitness_that_is_no_number_ranks_last() -> None:
    ranks = standardised_ranks(jnp.asarray([1.0, jnp.nan, -jnp.inf, 5.0, jnp.nan, -3.0]))
    assert np.isfinite(ranks).all()
    order = np.argsort(ranks)
    assert order[-3:].tolist() == [5, 0, 3]


def test_an_infinite_fitness_ranks_as_a_number_and_nan_below_all() -> None:
    fitness = jnp.asarray([jnp.inf, -jnp.inf, jnp.nan, 2.0])
    for ties in ("order", "average"):
        assert np.argsort(standardised_ranks(fitness, ties)).tolist() == [2, 1, 3, 0]


def test_equal_fitness_has_the_average_rank_or_the_members_order() -> None:
    fitness = jnp.asarray([3.0, 1.0, 3.0, jnp.nan, jnp.nan, 7.0])
    wanted = np.asarray([3.5, 2, 3.5, 0.5, 0.5, 5])
    ranks = np.asarray(standardised_ranks(fitness, "average"))
    np.testing.assert_allclose(ranks, (wanted - wanted.mean()) / wanted.std(), atol=1e-6)
    assert np.argsort(standardised_ranks(fitness)).tolist() == [3, 4, 1, 0, 2, 5]


@pytest.mark.parametrize("value", [0.0, 5.0, np.inf, np.nan])
def test_equal_losses_have_no_gradient_but_in_the_releases_order(value) -> None:
    equal = jnp.full(POPULATION, value)
    of_ties = {
        ties: gradient_from_losses(
            centre(),
            KEY,
            equal,
            sigma=SIGMA,
            shaping=functools.partial(standardised_ranks, ties=ties),
        )
        for ties in ("average", "order")
    }
    assert not flat(of_ties["average"]).any()
    assert flat(of_ties["order"]).any()


def test_the_members_of_a_pair_live_with_the_same_randomness() -> None:
    """Each has a lifetime for every item of the batch; its loss and metrics are their means."""
    items = jnp.asarray([1.0, 10.0, 100.0])

    def luck(theta, item, key):
        return item * jax.random.uniform(key), {"first": theta[0] * item}

    theta = jnp.zeros(3)
    found = es_gradient(luck, theta, items, KEY, population=POPULATION, sigma=SIGMA)
    members = [perturb(theta, KEY, SIGMA, jnp.asarray(i))[0] for i in range(POPULATION)]
    np.testing.assert_allclose(found.metrics["first"], 37 * np.asarray(members), rtol=1e-5)
    lives = [
        np.mean(
            [
                item * jax.random.uniform(jax.random.fold_in(lifetime_key(KEY, pair), i))
                for i, item in enumerate(items)
            ]
        )
        for pair in range(POPULATION // 2)
    ]
    assert len(set(lives)) == POPULATION // 2
    np.testing.assert_allclose(found.loss, np.mean(lives), rtol=1e-5)
    same = gradient_from_losses(theta, KEY, jnp.repeat(jnp.asarray(lives), 2), sigma=SIGMA)
    np.testing.assert_allclose(found.gradient, same, rtol=1e-5, atol=1e-5)


def sphere(x):
    return jnp.square(x - 1).sum()


def test_the_gradient_is_that_of_evosax() -> None:
    dimensions, count = 7, 10
    theta = jnp.zeros(dimensions)
    members = jax.vmap(perturb, (None, None, None, 0))(theta, KEY, SIGMA, jnp.arange(count))
    losses = jax.vmap(sphere)(members)
    ours = gradient_from_losses(theta, KEY, losses, sigma=SIGMA)

    # Its ranks are centred, not standardised: the learning rate makes up for it.
    spread = float(np.std(np.arange(count) / (count - 1)))
    theirs = Open_ES(
        population_size=count,
        solution=theta,
        optimizer=optax.sgd(1 / spread),
        std_schedule=optax.constant_schedule(SIGMA),
        fitness_shaping_fn=centered_rank_fitness_shaping_fn,
    )
    state = theirs.init(KEY, theta, theirs.default_params)
    state, _ = theirs.tell(KEY, members, losses, state, theirs.default_params)
    np.testing.assert_allclose(-ours, state.mean, atol=1e-4)


def test_without_shaping_it_is_the_gradient_of_the_smoothed_objective() -> None:
    """Of a quadratic, that is the gradient itself, which backpropagation knows."""
    theta, batch = jnp.asarray([0.5, -1.0, 2.0]), jnp.ones(1)

    def objective(theta, item, key):
        return sphere(theta) * item, {}

    estimate = jax.jit(
        lambda key: es_gradient(
            objective,
            theta,
            batch,
            key,
            population=2000,
            sigma=0.05,
            shaping=lambda fitness: fitness,
        )
    )(KEY)
    wanted = meta_gradient(objective, theta, batch, KEY)
    np.testing.assert_allclose(estimate.gradient, wanted.gradient, atol=0.5)
    np.testing.assert_allclose(estimate.loss, wanted.loss, rtol=0.01)


DECAYING = optax.exponential_decay(0.05, 1, 0.99)


@pytest.mark.parametrize("optimiser", [optax.sgd(DECAYING), optax.adam(0.05)], ids=["sgd", "adam"])
def test_a_sphere_is_descended(optimiser) -> None:
    theta = jnp.zeros(10)

    def objective(theta, item, key):
        return sphere(theta), {}

    def generation(theta, key):
        return es_gradient(objective, theta, jnp.zeros(1), key, population=20, sigma=SIGMA)

    theta, _ = descend(generation, theta, optimiser, jax.random.split(KEY, 150))
    assert sphere(theta) < 0.1 < sphere(jnp.zeros(10)) / 50


GENERATIONS = """
import sys, jax
if len(sys.argv) > 2:
    port, process = sys.argv[2:]
    jax.distributed.initialize(f"localhost:{port}", 2, int(process))
else:
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
import jax.numpy as jnp, numpy as np
import optax
from tsar_jax.meta.evolution import es_gradient
optimiser = optax.sgd(.2)
theta = {"a": np.ones((3, 9000), np.float32)}, np.ones(5, np.float32)
def objective(theta, item, key):
    noise = jax.random.normal(key, theta[0]["a"].shape)
    return jnp.square(theta[0]["a"] - noise).mean() + jnp.abs(theta[1]).sum(), {"item": item}
def generation(theta, key):
    estimate = es_gradient(objective, theta, jnp.ones(1), key, population=10, sigma=.1)
    updates, _ = optimiser.update(estimate.gradient, optimiser.init(theta))
    return optax.apply_updates(theta, updates)
generation = jax.jit(generation)
for number in range(3):
    theta = generation(theta, jax.random.fold_in(jax.random.key(0), number))
found = jax.device_get(jax.tree.leaves(theta))
print(len(jax.devices()), *[np.float64(leaf).sum().hex() for leaf in found])
"""


def generations(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", GENERATIONS, *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    )


def two_processes() -> list[str]:
    """What two processes of one computation say, at a port that no other process took first."""
    for _ in range(5):
        port = str(free_port())
        both = [generations("1", port, process) for process in "01"]
        said = [both[0].communicate(timeout=600)[0]]
        if both[0].returncode == 0:
            return [*said, both[1].communicate(timeout=600)[0]]
        both[1].kill()
        both[1].communicate()
    raise AssertionError("no port is free, or the first process fails: see stderr")


def test_the_result_depends_on_neither_devices_nor_processes() -> None:
    started = [generations("1"), generations("8")]
    of_two = two_processes()
    said = [process.communicate(timeout=600)[0] for process in started] + of_two
    found = [text.splitlines()[-1].split() for text in said]
    assert [line[0] for line in found] == ["1", "8", "2", "2"]
    assert found[0][1:] == found[1][1:] == found[2][1:] == found[3][1:]
