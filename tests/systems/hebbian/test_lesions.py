"""What a lesion does to a lifetime, and what it leaves alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environment import COMPILED, OUTPUTS, SHAPE, Simulated

from tsar_jax.environments.types import unvaried
from tsar_jax.errors import UserError
from tsar_jax.systems.hebbian.lesions import Lesion, lesioned
from tsar_jax.systems.hebbian.policy import PolicyConfig, make_policy
from tsar_jax.systems.hebbian.rollouts import traces

pytestmark = pytest.mark.usefixtures("quickly_compiled")

INPUTS, LIFETIMES, STEPS = 32, 6, 7
# Two layers of one shape, which could lose the same synapses.
POLICY = make_policy(PolicyConfig(hidden=(INPUTS,)), (INPUTS,), INPUTS)
OBSERVATIONS = np.random.default_rng(0).normal(size=(STEPS, INPUTS)).astype(np.float32)


@pytest.fixture(scope="module")
def genome():
    return POLICY.prepare(POLICY.init(jax.random.key(0)))


@pytest.fixture(scope="module")
def live(genome):
    """(policy) -> states before every step and after the last, and outputs; lifetimes first."""

    @functools.partial(jax.jit, static_argnums=0)
    def all_steps(policy, genome, keys):
        def step(state, observation):
            new, outputs = policy.learner.update(genome, state, observation)
            return new, (state, outputs)

        def lifetime(key):
            end, (states, outputs) = jax.lax.scan(
                step, policy.learner.init(genome, key), OBSERVATIONS
            )
            states = jax.tree.map(lambda kept, last: jnp.append(kept, last[None], 0), states, end)
            return states, outputs

        return jax.vmap(lifetime)(keys)

    keys = jax.random.split(jax.random.key(1), LIFETIMES)
    return lambda policy: jax.device_get(all_steps(policy, genome, keys))


@pytest.fixture(scope="module")
def plain(live):
    return live(POLICY)


@pytest.fixture(scope="module")
def with_lesion(live):
    """(settings of a lesion) -> weights of every layer and outputs, as `live` has them."""

    def live_with(**settings):
        (weights, _, _), outputs = live(lesioned(POLICY, Lesion(**settings)))
        return weights, outputs

    return live_with


def assert_same(found, wanted):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def between(states, first, end):
    return jax.tree.map(lambda leaf: leaf[:, first:end], states)


def test_without_a_lesion_life_is_as_it_was(plain, with_lesion) -> None:
    assert_same(with_lesion(), plain)
    assert lesioned(POLICY, Lesion()).plastic


@pytest.fixture(scope="module")
def hurt(with_lesion):
    """Saturated in steps 1 and 2, frozen from step 4 on."""
    return with_lesion(saturate=(1, 3), freeze_from=4)


def test_frozen_weights_stay_from_their_step_on(plain, hurt) -> None:
    weights, outputs = hurt
    assert_same(outputs[:, 4], plain[1][:, 4])
    for layer, whole in zip(weights, plain[0], strict=True):
        np.testing.assert_allclose(layer[:, :5], whole[:, :5], atol=1e-5)
        np.testing.assert_array_equal(layer[:, 5:], layer[:, 4:5].repeat(STEPS - 4, 1))
        assert np.abs(layer[:, 4] - layer[:, 3]).max() > 0.1
    assert np.abs(np.diff(outputs[:, 4:], axis=1)).max() > 0.1  # it still acts


def test_saturated_actuators_are_all_the_world_sees_of_the_network(plain, hurt) -> None:
    weights, outputs = hurt
    np.testing.assert_array_equal(outputs[:, 1:3], 1)
    assert np.abs(plain[1][:, 1:3] - 1).min() > 1e-3
    assert_same(outputs[:, [0, 3]], plain[1][:, [0, 3]])
    # Observations are the same here whatever it does: so is what its own plasticity makes of them.
    assert_same(between(weights, 0, 5), between(plain[0], 0, 5))


@pytest.fixture(scope="module")
def lost(with_lesion):
    """Weights that lost a share of .3 of their synapses at step 2, when they froze, per layer."""
    return with_lesion(zero_at=2, freeze_from=2, zeroed=0.3)[0]


def test_a_share_of_synapses_is_lost_at_its_step(plain, lost) -> None:
    for layer, (weights, whole) in enumerate(zip(lost, plain[0], strict=True)):
        np.testing.assert_allclose(weights[:, :3], whole[:, :3], atol=1e-5)
        after = weights[:, 3]
        gone = after == 0
        np.testing.assert_array_equal(after[~gone], weights[:, 2][~gone])
        deviation = np.sqrt(0.3 * 0.7 / gone.size)
        assert abs(gone.mean() - 0.3) < 4 * deviation, layer


def test_every_lifetime_and_layer_loses_others(lost) -> None:
    first, second = ((layer[:, 3] == 0).reshape(LIFETIMES, -1) for layer in lost)
    alike = np.corrcoef(np.concatenate([first, second])) - np.eye(2 * LIFETIMES)
    assert np.abs(alike).max() < 0.15


def test_what_is_lost_does_not_depend_on_the_weights_at_birth(lost) -> None:
    for layer in lost:
        birth, gone = layer[:, 0], layer[:, 3] == 0
        assert abs(np.corrcoef(birth.ravel(), gone.ravel())[0, 1]) < 0.05


live_once = jax.jit(POLICY.learner.update)


def test_the_step_of_the_loss_is_lived_without_the_lost_synapses(
    genome, plain, lost, with_lesion
) -> None:
    weights, outputs = with_lesion(zero_at=2, zeroed=0.3)
    assert_same(between(weights, 0, 3), between(plain[0], 0, 3))
    injured = tuple(jnp.asarray(layer[0, 3]) for layer in lost)
    for time in range(2, STEPS):  # and only that step loses any
        injured, wanted = live_once(genome, injured, OBSERVATIONS[time])
        np.testing.assert_allclose(outputs[0, time], wanted, rtol=1e-3, atol=1e-4)
        for layer, ours in zip(weights, injured, strict=True):
            np.testing.assert_allclose(layer[0, time + 1], ours, rtol=1e-3, atol=1e-4)


def test_all_may_be_lost_and_at_birth(with_lesion) -> None:
    weights, outputs = with_lesion(zero_at=0, freeze_from=0, zeroed=1.0)
    for layer in weights:
        assert layer[:, 0].all()
        assert not layer[:, 1:].any()
    assert not outputs.any()


def test_a_lesion_is_the_same_in_a_compiled_world_and_a_simulated_one() -> None:
    small = make_policy(PolicyConfig(hidden=()), SHAPE, OUTPUTS)
    policy = lesioned(small, Lesion(freeze_from=5, saturate=(3, 5), zero_at=2))
    genome, keys = small.init(jax.random.key(0)), jax.random.split(jax.random.key(1), 3)
    compiled, simulated = (
        next(traces(policy, worlds, genome, keys, (2, 3)))
        for worlds in (unvaried(COMPILED), [Simulated(3)])
    )
    assert_same(simulated[:2], compiled[:2])
    assert_same(simulated.watched[0], compiled.watched[0])
    np.testing.assert_array_equal(simulated.watched[1], [[2, 3]] * 3)  # its time


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"zeroed": -0.1}, "zeroed must be a share of 0 to 1, but is -0.1"),
        ({"zeroed": 1.1}, "zeroed must be a share of 0 to 1, but is 1.1"),
        ({"saturate": (5, 3)}, "saturate must end after it begins, but is 5 to 3"),
    ],
)
def test_impossible_lesions_are_named(settings, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        Lesion(**settings)
