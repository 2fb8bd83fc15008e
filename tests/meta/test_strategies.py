"""Every evolution strategy, of this package and of evosax, behind one ask and tell."""

import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tsar_jax.errors import NotInstalled, UserError
from tsar_jax.meta.evolution import es_gradient
from tsar_jax.meta.evosax_strategies import centred_algorithms, evosax_strategy, finite
from tsar_jax.meta.strategy import follow, openai_es

pytestmark = pytest.mark.usefixtures("quickly_compiled")

POPULATION, SIGMA, GENERATIONS = 16, 0.1, 3
KEY = jax.random.key(0)
CENTRE = {"a": jnp.zeros((6, 7)), "b": (jnp.ones(3), ())}
MEMBERS = jnp.arange(POPULATION)
EVOSAX = sorted(centred_algorithms())


def schedule(generation):
    return SIGMA * 0.9**generation


def strategy(name: str, optimiser=None):
    if name == "openai_es":
        return openai_es(optimiser or optax.sgd(0.1), schedule)
    return evosax_strategy(name, CENTRE, population=POPULATION, sigma=schedule, optimiser=optimiser)


def sphere(genome):
    return sum(jnp.square(leaf - 0.5).sum() for leaf in jax.tree.leaves(genome))


def generation_of(strategy, loss=sphere):
    def generation(state, key):
        asked = strategy.ask(state, key)
        members = jax.vmap(strategy.member, (None, 0))(asked, MEMBERS)
        return strategy.tell(state, asked, jax.vmap(loss)(members)), members

    return generation


@pytest.mark.parametrize("name", ["openai_es", *EVOSAX])
def test_every_strategy_keeps_a_centre_and_proposes_members_of_its_shapes(name) -> None:
    chosen, traces = strategy(name), []

    @jax.jit
    def generation(state, key):
        traces.append(1)
        return generation_of(chosen)(state, key)

    state = jax.jit(chosen.init)(CENTRE)
    chex.assert_trees_all_equal(state.genome, CENTRE)
    for number in range(GENERATIONS):
        before, (state, members) = state, generation(state, jax.random.fold_in(KEY, number))
        chex.assert_trees_all_equal_shapes_and_dtypes(before, state)
        chex.assert_tree_all_finite(state.genome)
        member = jax.tree.map(lambda leaf: leaf[0], members)
        chex.assert_trees_all_equal_shapes_and_dtypes(member, CENTRE)
        assert state.generation == number + 1
    assert np.asarray(members["a"]).std(0).min() > 0
    chex.assert_tree_all_finite(state)  # or it could not be saved
    chex.assert_tree_all_finite(jax.jit(chosen.init)(CENTRE))
    assert np.isfinite(chosen.sigma(state))
    assert len(traces) == 1


@pytest.mark.parametrize("name", ["CMA_ES", "Sep_CMA_ES", "SNES", "SimpleES"])
def test_a_sphere_is_descended(name) -> None:
    chosen = strategy(name)
    state, _ = jax.lax.scan(generation_of(chosen), chosen.init(CENTRE), jax.random.split(KEY, 120))
    assert sphere(state.genome) < sphere(CENTRE) / 20


@pytest.mark.parametrize("name", ["openai_es", "PGPE", "SNES"])
def test_an_optimiser_of_optax_moves_the_centre(name) -> None:
    """Adam's first step is the learning rate, whatever the gradient."""
    chosen = strategy(name, optax.adam(0.03))
    state, _ = jax.jit(generation_of(chosen))(chosen.init(CENTRE), KEY)
    moved = jax.tree.map(lambda after, before: jnp.abs(after - before), state.genome, CENTRE)
    for leaf in jax.tree.leaves(moved):
        np.testing.assert_allclose(leaf, 0.03, rtol=1e-3)


def test_openai_es_follows_the_estimated_gradient() -> None:
    optimiser, chosen = optax.adam(0.1), openai_es(optax.adam(0.1), schedule)

    @jax.jit
    def estimated(state, key):
        estimate = es_gradient(
            lambda genome, item, key: (sphere(genome), {}),
            state.genome,
            jnp.zeros(1),
            key,
            population=POPULATION,
            sigma=schedule(state.generation),
        )
        return follow(optimiser, state, estimate.gradient)

    told, state = jax.jit(generation_of(chosen)), chosen.init(CENTRE)
    for number in range(2):
        key = jax.random.fold_in(KEY, number)
        wanted = estimated(state, key)
        state, _ = told(state, key)
        chex.assert_trees_all_close(state, wanted, rtol=1e-5, atol=1e-6)


def test_the_noise_begins_as_asked() -> None:
    for name in ("openai_es", "SNES", "PGPE", "CMA_ES", "Open_ES"):
        chosen = strategy(name)
        np.testing.assert_allclose(chosen.sigma(chosen.init(CENTRE)), SIGMA, rtol=1e-6)
        _, members = jax.jit(generation_of(chosen))(chosen.init(CENTRE), KEY)
        noise = np.concatenate(
            [np.ravel(m - c) for m, c in zip(*map(jax.tree.leaves, (members, CENTRE)), strict=True)]
        )
        assert 0.07 < noise.std() < 0.13, name


@pytest.mark.parametrize("name", ["CMA_ES", "SNES", "PGPE"])
def test_a_loss_that_is_not_finite_is_the_worst(name) -> None:
    """Of strategies that rank losses: as if it were large, whichever member has it."""
    chosen = strategy(name)

    @jax.jit
    def generation(worst):
        asked = chosen.ask(chosen.init(CENTRE), KEY)
        losses = jax.vmap(sphere)(jax.vmap(chosen.member, (None, 0))(asked, MEMBERS))
        return chosen.tell(chosen.init(CENTRE), asked, losses.at[3].set(worst)).genome

    wanted = generation(1e6)
    for value in (np.nan, np.inf):
        chex.assert_trees_all_equal(generation(value), wanted)
    assert not np.array_equal(wanted["a"], generation(-1e6)["a"])


@pytest.mark.parametrize("name", ["openai_es", "PGPE", "Open_ES", "ARS"])
def test_antithetic_members_are_neighbours_and_are_told_their_own_losses(name) -> None:
    chosen = strategy(name)
    asked = chosen.ask(chosen.init(CENTRE), KEY)
    members = jax.vmap(chosen.member, (None, 0))(asked, MEMBERS)["a"]
    np.testing.assert_allclose(members[::2] + members[1::2], 0, atol=1e-6)  # the centre is 0
    # One member alone is good: the centre moves its way, and away from its mirror.
    losses = jnp.ones(POPULATION).at[6].set(-100)
    moved = chosen.tell(chosen.init(CENTRE), asked, losses).genome["a"]
    along = [float((moved * member).sum()) for member in members]
    assert np.argmax(along) == 6
    assert np.argmin(along) == 7


def test_losses_that_are_not_finite_are_bounded_by_those_that_are() -> None:
    losses = jnp.asarray([1.0, jnp.nan, -3.0, jnp.inf, -jnp.inf])
    found = finite(losses)
    np.testing.assert_allclose(found, [1, 1, -3, 1, -3], rtol=1e-6)
    assert np.argsort(found).tolist()[:3] == [4, 2, 0]  # minus infinity is the best
    assert found[1] == found[3] > found[0]
    np.testing.assert_array_equal(finite(jnp.asarray([jnp.nan, -jnp.inf])), [0, 0])


def test_what_cannot_be_is_said_in_a_sentence(monkeypatch) -> None:
    with pytest.raises(UserError, match=r"no strategy .SNESS.: .*nearest is SNES"):
        strategy("SNESS")
    with pytest.raises(UserError, match=r"PGPE does not take a population of 3 .* even"):
        evosax_strategy("PGPE", CENTRE, population=3, sigma=schedule)
    with pytest.raises(UserError, match="CMA_ES moves its centre without an optimiser"):
        strategy("CMA_ES", optax.adam(0.1))
    large = jax.ShapeDtypeStruct((61_440,), jnp.float32)
    with pytest.raises(UserError, match=r"CMA_ES would keep 30 GB for 61,440 parameters.*SNES"):
        evosax_strategy("CMA_ES", large, population=4, sigma=schedule)
    monkeypatch.setitem(sys.modules, "evosax.algorithms", None)
    with pytest.raises(NotInstalled, match=r'needs evosax: .*"tsar_jax\[evolution\]"'):
        strategy("SNES")
