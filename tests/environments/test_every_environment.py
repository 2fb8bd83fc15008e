"""What holds for every environment, compiled or simulated on the host."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.environments.gymnasium_env import GymnasiumEnvironments
from tsar_jax.environments.own import COMPILED, QUADRUPED
from tsar_jax.environments.quadruped_body import Body, find_body
from tsar_jax.environments.quadruped_mjx import quadrupeds
from tsar_jax.environments.quadruped_mujoco import MujocoQuadrupeds
from tsar_jax.environments.registry import find_environments
from tsar_jax.environments.types import Environment, Variants
from tsar_jax.errors import UserError
from tsar_jax.systems.hebbian.policy import PolicyConfig, make_policy
from tsar_jax.systems.hebbian.rollouts import (
    batch_policy,
    host_fitness,
    host_steps,
    lifetime_fitness,
    trace,
)
from tsar_jax.training.checkpoints import load_checkpoint, save_once, to_host

KEYS = jax.random.split(jax.random.key(0), 2)
STEPS = {"car_racing": 3, "mjx": 3}
"""Steps of an episode where they are dear; otherwise MANY."""
MANY = 30

MAKE: dict[str, Callable[[], Environment]] = {
    **COMPILED,
    "mjx": lambda: quadrupeds([Body(integrator="implicitfast")]).one(0),
}
NAMES = [*COMPILED, pytest.param("mjx", marks=pytest.mark.slow)]

pytestmark = pytest.mark.usefixtures("quickly_compiled")


class Compiled(NamedTuple):
    """Two episodes side by side, and what takes them on.

    outputs [2, steps, outputs]: of a network that does as it likes. start: states at the reset.
    go: (states, outputs) -> (states, (observations, rewards, done)), the latter [2, steps, ...].
    """

    environment: Environment
    outputs: jax.Array
    start: Any
    go: Callable[..., Any]


@functools.cache
def compiled(name: str) -> Compiled:
    environment = MAKE[name]()
    size = 2, STEPS.get(name, MANY), environment.num_actions

    def go(state: Any, outputs: jax.Array) -> Any:
        def step(state: Any, output: jax.Array) -> Any:
            state, reward, done = environment.step(state, environment.act(output))
            return state, (environment.observe(state), reward, done)

        return jax.lax.scan(step, state, outputs)

    return Compiled(
        environment,
        jax.random.normal(jax.random.key(1), size),
        jax.jit(jax.vmap(environment.reset))(KEYS),
        jax.jit(jax.vmap(go)),
    )


def find(name, bodies=("standard",), engine="mujoco", integrator="RK4", *, count=1, **limits):
    found = find_environments(name, bodies, engine, integrator, **limits)
    return [found.one(0)] if isinstance(found, Variants) else found(count)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_changes_no_shape_and_earns_a_number(name) -> None:
    environment = MAKE[name]()
    state = jax.eval_shape(environment.reset, KEYS[0])
    output = jax.ShapeDtypeStruct((environment.num_actions,), jnp.float32)
    action = jax.eval_shape(environment.act, output)
    after, reward, done = jax.eval_shape(environment.step, state, action)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert (reward.shape, reward.dtype) == ((), jnp.float32)
    assert (done.shape, done.dtype) == ((), jnp.bool_)
    assert jax.eval_shape(environment.observe, state).shape == environment.observation_shape
    assert environment.max_episode_steps >= 1


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_is_a_function_of_its_key_and_what_is_done(name) -> None:
    _, outputs, start, go = compiled(name)
    first, again = jax.device_get([go(start, outputs), go(start, outputs)])
    chex.assert_trees_all_equal(first, again)
    state, (observations, rewards, done) = first
    chex.assert_trees_all_equal_shapes_and_dtypes(state, jax.device_get(start))
    assert np.isfinite(rewards).all()
    assert np.isfinite(observations).all()
    assert done.shape == rewards.shape == outputs.shape[:2]
    equal = [np.array_equal(one, other) for one, other in jax.tree.leaves(jax.device_get(start))]
    assert not all(equal)
    # Whatever is seen there, the same actions lead elsewhere from another place.
    assert not np.array_equal(*observations)
    _, (seen_otherwise, _, _) = go(start, -outputs)
    assert not np.array_equal(observations, seen_otherwise)


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_goes_on_from_a_checkpoint_to_the_same_bits(name, tmp_path) -> None:
    _, outputs, start, go = compiled(name)
    halfway, _ = go(start, outputs)
    whole = jax.device_get(go(halfway, outputs))
    save_once(tmp_path / "checkpoints", 1, to_host(halfway), {})
    restored, _ = load_checkpoint(tmp_path, like=jax.eval_shape(lambda: halfway))
    chex.assert_trees_all_equal(jax.device_get(go(restored, outputs)), whole)


@pytest.mark.parametrize("name", COMPILED)
def test_a_lifetime_ends_at_the_limit_and_after_its_end_earns_nothing(name) -> None:
    limit = STEPS.get(name, MANY)
    (environment,) = find(name, max_episode_steps=limit)
    assert environment.max_episode_steps == limit
    (own,) = find(name, max_episode_steps=10**9)
    assert own.max_episode_steps == MAKE[name]().max_episode_steps
    config = PolicyConfig(rule="static", hidden=(2,))
    policy = make_policy(config, environment.observation_shape, environment.num_actions)
    genome = policy.init(KEYS[0])

    @jax.jit
    def live(genome, key):
        traced = trace(policy, environment, genome, key)
        return traced.rewards, traced.mask, lifetime_fitness(policy, environment, genome, key)

    rewards, lived, fitness = live(genome, KEYS[1])
    assert rewards.shape == lived.shape == (limit,)
    assert np.isfinite(rewards).all()
    assert not rewards[~lived].any()
    steps = int(lived.sum())
    assert lived.tolist() == [True] * steps + [False] * (limit - steps)
    np.testing.assert_allclose(fitness, rewards.sum(), rtol=1e-5)
    if name == "cart_pole":  # which falls
        assert 1 < steps < limit
    else:
        assert steps == limit


HOSTS: dict[str, Callable[[int], Any]] = {
    "gymnasium": lambda count: GymnasiumEnvironments("CartPole-v1", count),
    "quadruped": lambda count: MujocoQuadrupeds([find_body("standard")] * count),
}
OPENED_BY = {"gymnasium": "CartPole-v1", "quadruped": QUADRUPED}


@pytest.fixture(params=HOSTS)
def kind(request, tmp_path, monkeypatch) -> str:
    """A kind of host environments. What its simulator warns of is written to where a test is."""
    monkeypatch.chdir(tmp_path)
    return request.param


@pytest.fixture
def host(kind):
    environments = HOSTS[kind](2)
    yield environments
    environments.close()


def episode(environments, seeds, outputs):
    """Observations [steps + 1, count, ...], rewards and done [steps, count]."""
    observations, found = [environments.reset(seeds)], []
    for output in outputs:
        seen, *others = environments.step(output)
        observations.append(seen)
        found.append(others)
    return np.array(observations), *map(np.array, zip(*found, strict=True))


def outputs_of(environments, steps=6):
    size = steps, environments.count, environments.num_actions
    return np.random.default_rng(0).normal(size=size).astype(np.float32)


def test_host_environments_step_together_by_their_seeds(host) -> None:
    outputs = outputs_of(host)
    first, again = (episode(host, [3, 2**32 - 1], outputs) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    observations, rewards, done = first
    assert observations.dtype == np.float32
    assert observations.shape == (len(outputs) + 1, 2, *host.observation_shape)
    assert rewards.shape == done.shape == (len(outputs), 2)
    assert done.dtype == bool
    assert np.isfinite(rewards).all()
    assert not np.array_equal(observations[:, 0], observations[:, 1])
    exchanged, _, _ = episode(host, [2**32 - 1, 3], outputs[:, ::-1])
    np.testing.assert_array_equal(exchanged, observations[:, ::-1])


def test_a_host_environment_that_is_done_earns_nothing_until_its_reset(host) -> None:
    outputs = outputs_of(host)
    outputs[1, 0] = np.nan  # which ends an episode
    observations, rewards, done = episode(host, [0, 1], outputs)
    assert done[:, 0].tolist() == [False] + [True] * 5
    assert not done[:, 1].any()
    assert np.isnan(rewards[1, 0])
    assert not rewards[2:, 0].any()
    assert np.isfinite(rewards[:, 1]).all()
    assert observations.shape == (7, 2, *host.observation_shape)
    assert np.isfinite(episode(host, [0, 1], outputs_of(host))[1]).all()


def test_a_lifetime_on_the_host_ends_at_the_limit(kind) -> None:
    own, opened = HOSTS[kind](2), []
    for limit, wanted in ((10**9, own.max_episode_steps), (3, 3)):
        (environments,) = find(OPENED_BY[kind], count=2, max_episode_steps=limit)
        assert environments.max_episode_steps == wanted
        opened.append(environments)
    config = PolicyConfig(rule="static", hidden=(2,))
    policy = make_policy(config, environments.observation_shape, environments.num_actions)
    policies, genome = batch_policy(policy, 2, one_genome=True), policy.init(KEYS[0])
    steps = [step.rewards for step in host_steps(policies, environments, genome, KEYS)]
    assert len(steps) == 3
    np.testing.assert_allclose(
        host_fitness(policies, environments, genome, KEYS), np.sum(steps, 0), rtol=1e-6
    )
    for environments in (own, *opened):
        environments.close()


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        ([1], "seed has 1 entries, but there are 2 environments"),
        (np.zeros(3, np.uint32), "seed has 3 entries, but there are 2 environments"),
        (7, "seed is 7, but there are 2 environments"),
        ([0, -1], r"seed of environment 1 must be in \[0, 2\*\*32\), but is -1"),
        ([2**32, 0], r"seed of environment 0 must be in \[0, 2\*\*32\), but is 4294967296"),
        ([0.5, 0], "seed of environment 0 must be an integer.*0.5"),
        ([True, 0], "seed of environment 0 must be an integer.*True"),
    ],
)
def test_bad_seeds_are_named(host, seeds, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        host.reset(seeds)


def test_what_a_host_environment_holds_can_be_freed_twice(kind) -> None:
    environments = HOSTS[kind](1)
    environments.close()
    environments.close()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: find("cart_pol"), "no environment 'cart_pol': the nearest are cart_pole and"),
        (lambda: find("CartPole-v7"), "no environment 'CartPole-v7': the nearest are CartPole-v1"),
        *(
            (
                lambda name=name, limit=limit: find(name, max_episode_steps=limit),
                f"max_episode_steps .*1, but is {limit}",
            )
            for name in ("cart_pole", "CartPole-v1", QUADRUPED)
            for limit in (0, -1)
        ),
        (
            lambda: find("CartPole-v1", default_episode_steps=0),
            "default_episode_steps must be at least 1, but is 0",
        ),
        (
            lambda: GymnasiumEnvironments("CartPole-v1", 1, max_episode_steps=0),
            "max_episode_steps .* at least 1, but is 0",
        ),
        (lambda: GymnasiumEnvironments("CartPole-v1", 0), "count must be at least 1, but is 0"),
        (lambda: MujocoQuadrupeds([]), "no quadruped without a body: name at least one"),
        (lambda: find(QUADRUPED, ["left_fron"]), "no body 'left_fron'.*nearest is left_front"),
        (lambda: find(QUADRUPED, engine="mujico"), "no engine 'mujico'.*nearest is mujoco"),
        (lambda: find(QUADRUPED, integrator="RK5"), "no integrator 'RK5'.*RK4, implicitfast"),
    ],
)
def test_what_there_is_not_is_named_in_a_sentence(make, sentence) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        make()
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)
