"""Persistent evolution strategies against the gradient of the whole lifetime's loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.errors import UserError
from tsar_jax.meta.evolution import es_gradient, lifetime_key, perturb
from tsar_jax.meta.persistent import Parts, init_persistent, pes_gradient

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIGMA = 0.05
THETA = {"decay": jnp.array([1.2, -0.8]), "drive": jnp.array(0.5)}
NUMBER = 4


def start(theta, key):
    return jax.random.normal(key, (2,)) + theta["drive"]


def advance(theta, state, part, key):
    """A state that theta drives at each part, so that early parts matter to late losses."""
    state = jnp.tanh(theta["decay"]) * state + theta["drive"]
    loss = jnp.square(state).sum() * (1 + part)
    return state, loss, {"drawn": jax.random.uniform(key)}


PARTS = Parts(NUMBER, start, advance)


def whole_loss(theta, key):
    """The sum over the parts of one lifetime."""
    state, total = start(theta, key), 0.0
    for part in range(NUMBER):
        state, loss, _ = advance(theta, state, part, key)
        total += loss
    return total


@functools.partial(jax.jit, static_argnums=1)
def lifetime(key, population):
    """The sum over a lifetime's parts of the estimates, and the states after each."""
    state = init_persistent(start, THETA, key, population)

    def one(state, part):
        estimate, after = pes_gradient(
            PARTS,
            THETA,
            state,
            jax.random.fold_in(key, part),
            population=population,
            sigma=SIGMA,
        )
        return after, (estimate, after)

    return jax.lax.scan(one, state, jnp.arange(NUMBER))[1]


def test_a_lifetimes_estimates_sum_to_the_gradient_of_all_of_it() -> None:
    """In expectation; of estimates cut at each part, the sum would be another."""
    population = 8000
    estimates, _ = lifetime(jax.random.key(0), population)
    found = jax.tree.map(lambda leaf: leaf.sum(0), estimates.gradient)
    keys = jax.random.split(jax.random.key(1), population)

    def mean_loss(theta):
        return jax.vmap(lambda key: whole_loss(theta, key))(keys).mean()

    def truncated_loss(theta):
        """No gradient passes from a part to the next."""

        def of_one(key):
            state, total = jax.lax.stop_gradient(start(theta, key)), 0.0
            for part in range(NUMBER):
                state, loss, _ = advance(theta, jax.lax.stop_gradient(state), part, key)
                total += loss
            return total

        return jax.vmap(of_one)(keys).mean()

    wanted, truncated = (
        jax.jit(jax.grad(mean_loss))(THETA),
        jax.jit(jax.grad(truncated_loss))(THETA),
    )
    error = np.concatenate([np.ravel(found[n] - wanted[n]) for n in THETA])
    bias = np.concatenate([np.ravel(truncated[n] - wanted[n]) for n in THETA])
    size = np.concatenate([np.ravel(wanted[n]) for n in THETA])
    assert np.linalg.norm(error) < 0.05 * np.linalg.norm(size)
    assert np.linalg.norm(bias) > 0.2 * np.linalg.norm(size)


def test_one_part_is_the_plain_strategy() -> None:
    key, population = jax.random.key(3), 6
    parts = Parts(1, start, advance)
    state = init_persistent(start, THETA, key, population)
    found, _ = jax.jit(
        lambda state: pes_gradient(parts, THETA, state, key, population=population, sigma=SIGMA)
    )(state)
    noise_key, lifetimes = jax.random.split(key)

    def loss_of(theta, pair):
        own = lifetime_key(lifetimes, pair)
        return advance(theta, start(theta, own), jnp.int32(0), own)[1]

    total = jax.tree.map(jnp.zeros_like, THETA)
    for member in range(population):
        theta = perturb(THETA, noise_key, SIGMA, jnp.int32(member))
        loss = loss_of(theta, member // 2)
        total = jax.tree.map(
            lambda old, moved, centre, loss=loss: (
                old + loss * (moved - centre) / (population * SIGMA**2)
            ),
            total,
            theta,
            THETA,
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3), found.gradient, total)


def test_all_lifetimes_begin_anew_after_the_last_part() -> None:
    key, population = jax.random.key(4), 4
    _, states = lifetime(key, population)
    np.testing.assert_array_equal(states.part, [1, 2, 3, 0])
    assert np.unique(np.asarray(states.key), axis=0).shape[0] == 1
    last = jax.tree.map(lambda leaf: leaf[-1], states)
    new_key = jax.random.key(5)
    _, after = jax.jit(
        lambda: pes_gradient(PARTS, THETA, last, new_key, population=population, sigma=SIGMA)
    )()
    noise_key, lifetimes = jax.random.split(new_key)
    np.testing.assert_array_equal(after.key, jax.random.key_data(lifetimes))
    assert int(after.part) == 1
    for member in range(population):
        theta = perturb(THETA, noise_key, SIGMA, jnp.int32(member))
        own_key = lifetime_key(lifetimes, member // 2)
        state, _, _ = advance(theta, start(theta, own_key), 0, own_key)
        np.testing.assert_allclose(after.states[member], state, rtol=1e-5)
        if member % 2 == 0:
            for name, centre in THETA.items():
                drawn = theta[name] - centre
                np.testing.assert_allclose(after.noise[name][member // 2], drawn, atol=1e-6)


def test_a_pair_that_diverges_is_left_out() -> None:
    def diverging(theta, state, part, key):
        state, loss, metrics = advance(theta, state, part, key)
        diverges = metrics["drawn"] > 0.5
        return jnp.where(diverges, jnp.nan, state), jnp.where(diverges, jnp.inf, loss), metrics

    parts = Parts(1, start, diverging)
    key = jax.random.key(6)
    state = init_persistent(start, THETA, key, 20)
    estimate, after = pes_gradient(parts, THETA, state, key, population=20, sigma=SIGMA)
    drawn = np.asarray(estimate.metrics["drawn"])
    assert (drawn > 0.5).any()
    assert (drawn < 0.5).any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(estimate.gradient))
    assert np.isfinite(estimate.loss)
    assert np.isfinite(after.states).all()


def test_an_odd_population_is_named() -> None:
    with pytest.raises(UserError, match="population must be an even number"):
        init_persistent(start, THETA, jax.random.key(0), 3)


def test_es_and_pes_take_the_same_losses_as_the_gradient() -> None:
    """On a smooth loss the plain strategy's mean is the gradient of the whole, too."""
    batch = jnp.arange(1)

    def objective(theta, item, key):
        del item
        return whole_loss(theta, key), {}

    estimate = jax.jit(
        lambda: es_gradient(
            objective,
            THETA,
            batch,
            jax.random.key(0),
            population=2000,
            sigma=SIGMA,
            shaping=lambda fitness: fitness - fitness.mean(),
        )
    )()
    estimates, _ = lifetime(jax.random.key(0), 2000)
    summed = jax.tree.map(lambda leaf: leaf.sum(0), estimates.gradient)
    for name, part in estimate.gradient.items():
        scale = np.abs(np.asarray(part)).max()
        np.testing.assert_allclose(summed[name], part, atol=0.3 * scale)
