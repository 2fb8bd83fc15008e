"""The Hebbian release's evolution: its schedules, its optimiser, its penalty, its settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.errors import UserError
from tsar_jax.meta.strategy import follow
from tsar_jax.systems.hebbian.evolution import (
    Evolution,
    Genome,
    apply_weight_decay,
    init_evolution,
    learning_rate_schedule,
    make_strategy,
    optimiser,
    optimisers,
    sigma_schedule,
)


def decayed(value: float, factor: float, least: float, generations: int) -> list[float]:
    """The release's loop."""
    found = [value]
    for _ in range(generations):
        value = value * factor if value > least else value
        found.append(value)
    return found


@pytest.mark.parametrize(
    ("first", "factor", "least"),
    [
        (0.2, 0.995, 0.001),
        (0.1, 0.999, 0.01),
        (0.2, 0.1, 0.001),
        (0.0005, 0.1, 0.001),
        (0.001, 0.1, 0.001),
        (0.2, 1.0, 0.001),
        (0.02, 1.001, 0.001),
    ],
)
def test_what_is_above_its_least_value_decays_until_it_is_below(first, factor, least) -> None:
    evolution = Evolution(
        **{"learning_rate": first, "learning_rate_decay": factor, "min_learning_rate": least},
        **{"sigma": first, "sigma_decay": factor, "min_sigma": least},
    )
    wanted = decayed(first, factor, least, 2500)
    for schedule in (learning_rate_schedule(evolution), sigma_schedule(evolution)):
        found = jax.vmap(lambda count, value=schedule: jnp.asarray(value(count)))(jnp.arange(2501))
        np.testing.assert_allclose(np.broadcast_to(found, 2501), wanted, rtol=3e-4)


def test_the_coevolved_part_moves_by_the_later_rate_and_sigma() -> None:
    evolution = Evolution(learning_rate_decay=0.5, sigma_decay=0.8)
    state = init_evolution(evolution, Genome(jnp.zeros(2), {"weights": jnp.zeros(3)}))
    gradient = jax.tree.map(jnp.ones_like, state.genome)
    for rate in (0.2, 0.1):
        after = follow(optimiser(evolution), state, gradient)
        moved = jax.tree.map(jnp.subtract, after.genome, state.genome)
        np.testing.assert_allclose(moved.main, -rate, rtol=1e-6)
        np.testing.assert_allclose(moved.coevolved["weights"], -rate * 0.5 / 0.8, rtol=1e-6)
        state = after
    assert state.generation == 2


def test_the_penalty_is_on_the_mean_square_of_the_main_part() -> None:
    genome = Genome((jnp.full(3, 2.0), jnp.zeros(1)), jnp.full(2, 100.0))
    found = apply_weight_decay(Evolution(weight_decay=0.1), jnp.asarray(1.0), genome)
    np.testing.assert_allclose(found, 1 - 0.1 * 3.0, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(optimisers()))
def test_every_optimiser_that_is_offered_moves_a_centre(name) -> None:
    genome = Genome(jnp.ones(3), jnp.ones(2))
    strategy = make_strategy(Evolution(optimiser=name, population=4), genome)
    state = strategy.init(genome)
    after = strategy.tell(state, strategy.ask(state, jax.random.key(0)), jnp.arange(4.0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    assert not np.array_equal(after.genome.main, genome.main)


def test_optimisers_are_those_of_optax_that_a_rate_completes() -> None:
    assert {"adam", "adamw", "sgd", "rmsprop", "lion"} <= set(optimisers())
    assert not {"polyak_sgd", "noisy_sgd", "lbfgs", "scale_by_learning_rate"} & set(optimisers())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"population": 5}, "population must be an even number of at least 2, but is 5"),
        ({"population": 0}, "population must be an even number of at least 2, but is 0"),
        ({"sigma": 0.0}, "sigma must be positive, but is 0.0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0, but is -1.0"),
    ],
)
def test_impossible_settings_are_named(changes, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        Evolution(**changes)
