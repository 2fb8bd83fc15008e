"""The evolution strategy: its noise, its ranks, its step, and that devices change nothing."""

import dataclasses
import os
import socket
import subprocess
import sys

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

from tsar_jax.errors import UserError
from tsar_jax.meta.evolution import (
    BLOCK,
    Evolution,
    Genome,
    ask,
    begin,
    decay,
    penalised,
    population_fitness,
    standardised_ranks,
    tell,
)

POPULATION = 6
SIZE = BLOCK + 5  # so that the noise takes two blocks
EVOLUTION = Evolution(population=POPULATION, penalty=0.0)
KEY = jax.random.key(4)


def centre():
    rng = np.random.default_rng(0)
    main = (rng.normal(size=SIZE - 3).astype(np.float32), rng.normal(size=3).astype(np.float32))
    return begin(EVOLUTION, Genome(main, {"weights": jnp.ones((2, 2))}))


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.fixture(scope="module")
def noise():
    """Every member's noise in both parts [population, n], as the members that are asked for say."""
    strategy = centre()
    members = jax.jit(jax.vmap(ask, (None, None, 0)))(strategy, KEY, jnp.arange(POPULATION))
    return [
        (
            np.stack([flat(jax.tree.map(lambda x, i=i: x[i], part)) for i in range(POPULATION)])
            - flat(of_centre)
        )
        / EVOLUTION.sigma
        for part, of_centre in zip(members, strategy.genome, strict=True)
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


def test_the_step_is_the_sum_of_all_noise_by_rank(noise) -> None:
    fitness = np.array([3.0, -1.0, 0.5, 7.0, 2.0, -4.0], np.float32)
    strategy = centre()
    found = jax.jit(tell, static_argnums=0)(EVOLUTION, strategy, KEY, fitness)
    ranks = fitness.argsort().argsort()
    ranks = (ranks - ranks.mean()) / ranks.std()
    for part, (rate, sigma) in enumerate([(0.2, 0.1), (0.2 * 0.995, 0.1 * 0.999)]):
        wanted = flat(strategy.genome[part]) + rate / (POPULATION * sigma) * ranks @ noise[part]
        np.testing.assert_allclose(flat(found.genome[part]), wanted, atol=2e-5)
    np.testing.assert_allclose([found.rate, found.sigma], [0.2 * 0.995, 0.1 * 0.999], rtol=1e-6)


def test_a_genome_may_lack_a_part() -> None:
    strategy = begin(EVOLUTION, Genome(jnp.zeros(3), ()))
    assert ask(strategy, KEY, jnp.asarray(1)).coevolved == ()
    assert tell(EVOLUTION, strategy, KEY, jnp.arange(6.0)).genome.coevolved == ()


@pytest.mark.parametrize(
    ("first", "last"),
    [
        # 0.2, 0.02, 0.002, 0.0002: the release multiplies what is above its least value.
        ((0.2, 0.5), (0.0002, 0.005)),
        ((0.0005, 0.004), (0.0005, 0.004)),
        ((0.001, 0.01), (0.001, 0.01)),
    ],
)
def test_rate_and_noise_decay_until_they_are_below_their_least(first, last) -> None:
    evolution = Evolution(rate=first[0], sigma=first[1], rate_decay=0.1, sigma_decay=0.1)
    strategy = begin(evolution, Genome((), ()))
    for _ in range(6):
        strategy = decay(evolution, strategy)
    np.testing.assert_allclose([strategy.rate, strategy.sigma], last, rtol=1e-6)


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
def test_equal_fitness_moves_nothing(value) -> None:
    strategy = centre()
    equal = jnp.full(POPULATION, value)
    told = jax.jit(tell, static_argnums=0)(EVOLUTION, strategy, KEY, equal)
    jax.tree.map(np.testing.assert_array_equal, told.genome, strategy.genome)
    release = dataclasses.replace(EVOLUTION, ties="order")
    told = jax.jit(tell, static_argnums=0)(release, strategy, KEY, equal)
    assert (flat(told.genome) != flat(strategy.genome)).any()


def test_the_penalty_is_on_the_mean_square_of_the_main_part() -> None:
    genome = Genome((jnp.full(3, 2.0), jnp.zeros(1)), jnp.full(2, 100.0))
    found = penalised(Evolution(penalty=0.1), jnp.asarray(1.0), genome)
    np.testing.assert_allclose(found, 1 - 0.1 * 3.0, rtol=1e-6)


def test_the_members_of_a_pair_live_with_the_same_randomness() -> None:
    strategy = begin(EVOLUTION, Genome(jnp.zeros(3), ()))

    def luck(genome, key):
        return {"luck": jax.random.uniform(key), "first": genome.main[0]}

    found = population_fitness(EVOLUTION, strategy, KEY, luck)
    lucky = np.asarray(found["luck"]).reshape(-1, 2)
    np.testing.assert_array_equal(lucky[:, 0], lucky[:, 1])
    assert len(np.unique(lucky)) == POPULATION // 2
    wanted = [ask(strategy, KEY, jnp.asarray(i)).main[0] for i in range(POPULATION)]
    np.testing.assert_allclose(found["first"], wanted, rtol=1e-6)


def sphere(x):
    return jnp.square(x - 1).sum()


def test_a_step_is_that_of_evosax() -> None:
    dimensions, evolution = 7, Evolution(population=10, penalty=0.0)
    strategy = begin(evolution, Genome(jnp.zeros(dimensions), ()))
    members = jax.vmap(ask, (None, None, 0))(strategy, KEY, jnp.arange(10)).main
    loss = jax.vmap(sphere)(members)
    ours = tell(evolution, strategy, KEY, -loss).genome.main

    # Its ranks are centred, not standardised: the learning rate makes up for it.
    spread = float(np.std(np.arange(10) / 9))
    theirs = Open_ES(
        population_size=10,
        solution=jnp.zeros(dimensions),
        optimizer=optax.sgd(evolution.rate / spread),
        std_schedule=optax.constant_schedule(evolution.sigma),
        fitness_shaping_fn=centered_rank_fitness_shaping_fn,
    )
    state = theirs.init(KEY, jnp.zeros(dimensions), theirs.default_params)
    state, _ = theirs.tell(KEY, members, loss, state, theirs.default_params)
    np.testing.assert_allclose(ours, state.mean, atol=1e-5)


def test_a_sphere_is_descended() -> None:
    evolution = Evolution(population=20, rate=0.05, penalty=0.0)
    strategy = begin(evolution, Genome(jnp.zeros(10), ()))

    @jax.jit
    def generation(strategy, key):
        fitness = population_fitness(evolution, strategy, key, lambda g, _: -sphere(g.main))
        return tell(evolution, strategy, key, fitness)

    for number in range(150):
        strategy = generation(strategy, jax.random.fold_in(KEY, number))
    assert sphere(strategy.genome.main) < 0.1 < sphere(jnp.zeros(10)) / 50


GENERATIONS = """
import sys, jax
if len(sys.argv) > 2:
    port, process = sys.argv[2:]
    jax.distributed.initialize(f"localhost:{port}", 2, int(process))
else:
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
import jax.numpy as jnp, numpy as np
from tsar_jax.meta.evolution import *
evolution = Evolution(population=10)
strategy = begin(evolution, Genome({"a": np.ones((3, 9000), np.float32)}, np.ones(5, np.float32)))
def fitness_of(genome, key):
    noise = jax.random.normal(key, genome.main["a"].shape)
    return -jnp.square(genome.main["a"] - noise).mean() - jnp.abs(genome.coevolved).sum()
def generation(strategy, key):
    return tell(evolution, strategy, key, population_fitness(evolution, strategy, key, fitness_of))
generation = jax.jit(generation)
for number in range(3):
    strategy = generation(strategy, jax.random.fold_in(jax.random.key(0), number))
found = jax.device_get(jax.tree.leaves(strategy))
print(len(jax.devices()), *[np.float64(leaf).sum().hex() for leaf in found])
"""


def generations(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", GENERATIONS, *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


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


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"population": 5}, "population must be an even number of at least 2, but is 5"),
        ({"population": 0}, "population must be an even number of at least 2, but is 0"),
        ({"sigma": 0.0}, "sigma must be positive, but is 0.0"),
        ({"penalty": -1.0}, "penalty must be at least 0, but is -1.0"),
    ],
)
def test_impossible_settings_are_named(changes, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        Evolution(**changes)
