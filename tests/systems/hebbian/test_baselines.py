"""Recurrent policies and standardised observations, beside Flax and NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.errors import UserError
from tsar_jax.systems.hebbian.baselines import FARTHEST, SMALLEST_VARIANCE, standardise
from tsar_jax.systems.hebbian.policy import PolicyConfig, make_policy
from tsar_jax.systems.hebbian.presets import PRESETS

KEY = jax.random.key(0)
INPUTS, OUTPUTS, UNITS = 3, 2, 4
SEEN = np.random.default_rng(0).normal(1, 3, (6, INPUTS)).astype(np.float32)


def gru(**settings):
    config = PolicyConfig(rule="gru", hidden=(UNITS, 5), gain=2.0, bounded=True, **settings)
    return make_policy(config, (INPUTS,), OUTPUTS)


def test_a_recurrent_policy_is_flaxs_cell_and_dense_layers() -> None:
    policy = gru()
    genome = policy.init(KEY)
    assert not policy.plastic
    memory = policy.learner.init(genome, KEY)
    np.testing.assert_array_equal(memory, np.zeros(UNITS))
    cell, (first, second) = nn.GRUCell(UNITS), genome.main["layers"]
    assert (first.shape, second.shape) == ((5, UNITS), (OUTPUTS, 5))
    wanted = jnp.zeros(UNITS)
    for observation in SEEN:
        predicted = policy.learner.predict(genome, memory, observation[None])[0]
        memory, outputs = policy.learner.update(genome, memory, observation, None)
        wanted, _ = cell.apply({"params": genome.main["cell"]}, wanted, observation)
        np.testing.assert_allclose(memory, wanted, rtol=1e-5)
        answer = 2 * np.tanh(second @ np.tanh(first @ wanted))
        np.testing.assert_allclose(outputs, answer, rtol=1e-4)
        np.testing.assert_allclose(predicted, answer, rtol=1e-4)
    assert np.abs(memory).min() > 0


def test_observations_are_standardised_by_those_seen_so_far() -> None:
    plain = make_policy(PolicyConfig(rule="static", hidden=()), (INPUTS,), OUTPUTS)
    genome = plain.init(KEY)
    learner = standardise(plain.learner, INPUTS)
    state = learner.init(genome, KEY)
    for count in range(1, len(SEEN) + 1):
        seen = SEEN[:count].astype(np.float64)
        state, outputs = learner.update(genome, state, SEEN[count - 1], None)
        scaled = (seen[-1] - seen.mean(0)) / np.sqrt(seen.var(0) + SMALLEST_VARIANCE)
        np.testing.assert_allclose(outputs, genome.main[0] @ scaled, atol=1e-4)
    far = learner.predict(genome, state, np.full((1, INPUTS), 1e6, np.float32))[0]
    np.testing.assert_allclose(far, genome.main[0] @ np.full(INPUTS, FARTHEST), rtol=1e-4)


def test_a_lifetime_begins_with_nothing_seen() -> None:
    policy = gru(standardised=True)
    genome = policy.init(KEY)
    state = policy.learner.init(genome, KEY)
    assert (state.number, float(jnp.abs(state.mean).sum())) == (0, 0)
    _, outputs = policy.learner.update(genome, state, SEEN[0], None)
    _, same = policy.learner.update(genome, state, 100 * SEEN[0], None)
    np.testing.assert_array_equal(outputs, same)  # the first observation is its own mean


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: PolicyConfig(standardised=True), "standardised is for rules static and gru"),
        (lambda: PolicyConfig(rule="gru", hidden=()), "hidden is empty, but the rule gru needs"),
        (
            lambda: make_policy(
                PolicyConfig(rule="static", standardised=True), (84, 84, 3), OUTPUTS
            ),
            "observations that are vectors, not images",
        ),
    ],
)
def test_what_does_not_fit_is_named(make, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        make()


@pytest.mark.parametrize("name", ["cpu-mlp", "cpu-gru"])
def test_baselines_have_the_budget_of_the_hebbian_quadruped(name) -> None:
    ours, theirs = PRESETS["cpu"].config, PRESETS[name].config
    assert theirs.policy.standardised
    assert (ours.steps, ours.limit, ours.bodies) == (theirs.steps, theirs.limit, theirs.bodies)
    assert ours.evolution == theirs.evolution
