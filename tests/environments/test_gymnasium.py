"""Environments of Gymnasium behind the host interface, against plain ones with the same seeds."""

import subprocess
import sys
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from scipy.special import expit

from tsar_jax.environments.gymnasium_env import GymnasiumEnvironments
from tsar_jax.environments.registry import find_environments
from tsar_jax.errors import UserError

SEEDS = np.array([3, 2**32 - 1, 0], np.uint32)


def car(outputs):
    return np.array([np.tanh(outputs[0]), *expit(outputs[1:])], np.float32)


def one_of_sixteen(observation):
    return [float(observation == state) for state in range(16)]


# Name, steps, what a network's outputs mean to it, what the network sees of it, shape and outputs.
KINDS = {
    "CartPole-v1": (60, np.argmax, np.array, (4,), 2),
    "FrozenLake-v1": (30, np.argmax, one_of_sixteen, (16,), 4),
    "Ant-v5": (40, lambda outputs: np.clip(outputs, -1, 1), np.array, (105,), 8),
    "CarRacing-v3": (5, car, np.array, (96, 96, 3), 3),
}


def plain_episode(name, seed, outputs):
    """Observations and rewards of a plain environment, until it ends or the outputs do."""
    _, act, see, _, _ = KINDS[name]
    env = gymnasium.make(name)
    observations, rewards = [see(env.reset(seed=int(seed))[0])], []
    for output in outputs:
        observation, reward, terminated, truncated, _ = env.step(act(output))
        observations.append(see(observation))
        rewards.append(reward)
        if terminated or truncated:
            break
    env.close()
    return observations, rewards


def drawn(shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def rollout(envs, seeds, outputs):
    """Observations [steps + 1, count, ...], rewards and done [steps, count]."""
    observations, rewards, done = [envs.reset(seeds)], [], []
    for output in outputs:
        for values, new in zip((observations, rewards, done), envs.step(output), strict=True):
            values.append(new)
    return np.array(observations), np.array(rewards), np.array(done)


@pytest.mark.parametrize("name", KINDS)
def test_a_trajectory_is_that_of_a_plain_environment(name) -> None:
    steps, _, _, shape, outputs = KINDS[name]
    envs = GymnasiumEnvironments(name, 3)
    assert (envs.count, envs.observation_shape, envs.num_actions) == (3, shape, outputs)
    assert envs.max_episode_steps == gymnasium.spec(name).max_episode_steps
    given = drawn((steps, 3, outputs))
    seen, rewards, done = rollout(envs, SEEDS, given)
    assert seen.dtype == (np.uint8 if name == "CarRacing-v3" else np.float32)
    assert seen.shape == (steps + 1, 3, *shape)
    assert (rewards.shape, done.shape, done.dtype) == ((steps, 3), (steps, 3), bool)
    for i, seed in enumerate(SEEDS):
        wanted, wanted_rewards = plain_episode(name, seed, given[:, i])
        length = len(wanted_rewards)
        np.testing.assert_allclose(seen[: length + 1, i], wanted, rtol=1e-6)
        np.testing.assert_allclose(rewards[:length, i], wanted_rewards)
        assert not rewards[length:, i].any()
        assert not done[: length - 1, i].any()
        assert done[length - 1 :, i].all() or length == steps
    envs.close()


@pytest.fixture
def poles():
    envs = GymnasiumEnvironments("CartPole-v1", 3)
    yield envs
    envs.close()


def test_an_episode_does_not_depend_on_its_company(poles) -> None:
    given = drawn((20, 3, 2))
    together = rollout(poles, SEEDS, given)
    alone = GymnasiumEnvironments("CartPole-v1", 1)
    for i in range(3):
        by_itself = rollout(alone, SEEDS[i : i + 1], given[:, i : i + 1])
        for ours, wanted in zip(together, by_itself, strict=True):
            np.testing.assert_array_equal(ours[:, i], wanted[:, 0])


def test_done_lasts_until_a_reset_begins_the_same_episode_again(poles) -> None:
    always_left = np.tile(np.float32([1, 0]), (40, 3, 1))
    first = rollout(poles, SEEDS, always_left)
    _, rewards, done = first
    assert done[-20:].all()
    assert not rewards[1:][done[:-1]].any()
    for ours, again in zip(first, rollout(poles, SEEDS, always_left), strict=True):
        np.testing.assert_array_equal(ours, again)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite_ends_its_own_episode_alone(poles, bad) -> None:
    given = drawn((8, 3, 2))
    wanted = rollout(poles, SEEDS, given)
    given[2, 1, 0] = bad
    seen, rewards, done = rollout(poles, SEEDS, given)
    assert np.isnan(rewards[2, 1])
    assert not rewards[3:, 1].any()
    assert done[:, 1].tolist() == [False] * 2 + [True] * 6
    assert (seen[3:, 1] == seen[2, 1]).all()
    for ours, undisturbed in zip((seen, rewards, done), wanted, strict=True):
        np.testing.assert_array_equal(ours[:, [0, 2]], undisturbed[:, [0, 2]])


def test_a_limit_of_ones_own_ends_the_episode() -> None:
    envs = GymnasiumEnvironments("Pendulum-v1", 1, max_episode_steps=3)
    _, rewards, done = rollout(envs, SEEDS[:1], np.zeros((5, 1, 1), np.float32))
    assert envs.max_episode_steps == 3
    assert done[:, 0].tolist() == [False, False, True, True, True]
    assert (rewards[:, 0] != 0).tolist() == [True, True, True, False, False]


def test_arrays_of_another_shape_are_refused(poles) -> None:
    with pytest.raises(UserError, match="seed has 2 entries, but there are 3 environments"):
        poles.reset(SEEDS[:2])
    poles.reset(SEEDS)
    with pytest.raises(AssertionError):
        poles.step(drawn((3, 3)))


class Echo(gymnasium.Env):
    """Observes always the same, and keeps the actions that all of its kind were given."""

    actions: ClassVar[list] = []

    def __init__(self, seen, taken, observation=None):
        self.observation_space, self.action_space = seen, taken
        self.observation = observation

    def reset(self, *, seed=None, options=None):
        return self.observation, {}

    def step(self, action):
        assert self.action_space.contains(action)
        Echo.actions.append(action)
        return self.observation, 0.0, False, False, {}


@pytest.fixture
def echo():
    """Makes Echo with certain spaces as a registered environment: its name."""

    def register(seen, taken, observation=None, max_episode_steps=10):
        kwargs = {"seen": seen, "taken": taken, "observation": observation}
        gymnasium.register("Echo-v0", Echo, kwargs=kwargs, max_episode_steps=max_episode_steps)
        return "Echo-v0"

    yield register
    gymnasium.registry.pop("Echo-v0", None)
    Echo.actions.clear()


ONE = spaces.Discrete(1)


@pytest.mark.parametrize(
    ("space", "outputs", "action"),
    [
        (spaces.Discrete(3, start=-1), [0, 5, 1], 0),
        (spaces.Box(-1, 1, (2, 2)), [-3, 0.5, 2, -0.25], [[-1, 0.5], [1, -0.25]]),
        (spaces.Box(-np.inf, np.inf, (1,)), [1e30], [1e30]),
        (spaces.Box(np.float32([-np.inf, 0]), np.float32([0, np.inf])), [-1e9, 1e9], [-1e9, 1e9]),
        (spaces.Box(np.float32([-np.inf, 0]), np.float32([0, np.inf])), [1e9, -1e9], [0, 0]),
        (spaces.Box(0.1, 0.7, (2,), np.float64), [0, 1], [0.1, 0.7]),
        (spaces.Box(0, 5, (4,), np.int64), [-1, 1.4, 1.6, 9], [0, 1, 2, 5]),
    ],
)
def test_outputs_become_the_action_of_a_space(echo, space, outputs, action) -> None:
    envs = GymnasiumEnvironments(echo(ONE, space, 0), 1)
    assert envs.num_actions == len(outputs)
    rollout(envs, SEEDS[:1], np.float32(outputs)[None, None])
    [taken] = Echo.actions
    np.testing.assert_array_equal(taken, np.asarray(action, space.dtype))


FRAME = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize(
    ("space", "observation", "seen"),
    [
        (spaces.Discrete(3, start=5), 6, np.float32([0, 1, 0])),
        (spaces.Box(0, 255, FRAME.shape, np.uint8), FRAME, FRAME),
        (spaces.Box(0, 1, (2, 2), np.float64), np.eye(2), np.float32([1, 0, 0, 1])),
        (spaces.Box(0, 9, (), np.int64), np.array(7), np.float32([7])),
        (spaces.Box(0, 255, (4, 5), np.uint8), FRAME[..., 0], np.float32(FRAME[..., 0].ravel())),
    ],
)
def test_what_is_seen_of_a_space(echo, space, observation, seen) -> None:
    envs = GymnasiumEnvironments(echo(space, ONE, observation), 2)
    assert envs.observation_shape == seen.shape
    first, second = envs.reset(SEEDS[:2])
    for ours in (first, second):
        np.testing.assert_array_equal(ours, seen, strict=True)


def test_an_episode_that_is_over_is_not_simulated(echo) -> None:
    given = np.zeros((6, 2, 1), np.float32)
    given[1, 0] = np.nan
    rollout(GymnasiumEnvironments(echo(ONE, ONE, 0, max_episode_steps=3), 2), SEEDS[:2], given)
    assert len(Echo.actions) == 1 + 3


@pytest.mark.parametrize("side", ["action", "observation"])
@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"a": ONE}),
        spaces.Tuple([ONE, ONE]),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(4),
        spaces.Text(5),
    ],
    ids=repr,
)
def test_other_spaces_are_named(echo, space, side) -> None:
    name = echo(ONE, space) if side == "action" else echo(space, ONE)
    sentence = f"{side} space of Echo-v0 is {type(space).__name__}, but .*{side.title()}Wrapper"
    with pytest.raises(UserError, match=sentence):
        GymnasiumEnvironments(name, 1)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("CartPol-v1", "no environment 'CartPol-v1': the nearest are CartPole-v1 and "),
        ("CarRacing-v2", "no environment 'CarRacing-v2': the nearest are CarRacing-v3 and "),
        (
            "ALE/Pong-v5",
            "no environment 'ALE/Pong-v5': .* package with it .package:Name-v0",
        ),
        ("no name", "no environment 'no name': the nearest are "),
        ("nowhere:Echo-v0", r"nowhere:Echo-v0 cannot be made \(No module named 'nowhere'\): "),
        ("FrozenLake-v1", "max_episode_steps must be at least 1, but is 0."),
    ],
)
@pytest.mark.filterwarnings("ignore:.*out of date")
def test_what_cannot_be_made_is_named(name, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        GymnasiumEnvironments(
            name, 1, max_episode_steps=0 if "max_episode_steps" in sentence else None
        )


def test_an_environment_without_a_limit_asks_for_one(echo) -> None:
    name = echo(ONE, ONE, 0, max_episode_steps=None)
    with pytest.raises(UserError, match="Echo-v0 has no limit of steps of its own: give it one"):
        GymnasiumEnvironments(name, 1)
    assert GymnasiumEnvironments(name, 1, max_episode_steps=4).max_episode_steps == 4
    envs = GymnasiumEnvironments(name, 1, default_episode_steps=4)
    assert envs.max_episode_steps == 4
    _, _, done = rollout(envs, SEEDS[:1], np.zeros((5, 1, 1), np.float32))
    assert done[:, 0].tolist() == [False, False, False, True, True]


def test_a_limit_for_those_without_changes_no_other() -> None:
    assert GymnasiumEnvironments("Pendulum-v1", 1, default_episode_steps=3).max_episode_steps == 200


@pytest.mark.parametrize(("limit", "otherwise", "found"), [(4, None, 4), (None, 5, 5), (4, 5, 4)])
def test_environments_without_a_limit_are_found_with_one(echo, limit, otherwise, found) -> None:
    opened = find_environments(
        echo(ONE, ONE, 0, max_episode_steps=None), (), "auto", "RK4", limit, otherwise
    )
    assert [world.max_episode_steps for world in opened(1)] == [found]


STRANGER = """
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv
gymnasium.register("Stranger-v0", PendulumEnv, max_episode_steps=7)
"""


def test_a_module_in_the_working_folder_is_found(tmp_path, monkeypatch) -> None:
    # Both before the first import, which lists the folder's files for those after it.
    (tmp_path / "stranger_module.py").write_text(STRANGER)
    (tmp_path / "broken_module.py").write_text("def\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    try:
        assert GymnasiumEnvironments("stranger_module:Stranger-v0", 1).max_episode_steps == 7
    finally:
        gymnasium.registry.pop("Stranger-v0", None)
        sys.modules.pop("stranger_module", None)
    with pytest.raises(UserError, match=r"broken_module:X-v0 cannot be made \(invalid syntax"):
        GymnasiumEnvironments("broken_module:X-v0", 1)


def forget(monkeypatch, prefix):
    """Takes modules off the list of imported ones, for the length of a test."""
    for module in [module for module in sys.modules if module.startswith(prefix)]:
        monkeypatch.delitem(sys.modules, module)


def test_a_missing_simulator_names_what_to_install(monkeypatch) -> None:
    forget(monkeypatch, "gymnasium.envs.box2d")
    monkeypatch.setitem(sys.modules, "Box2D", None)
    with pytest.raises(
        UserError, match=r'CarRacing-v3 cannot .*Box2D.*pip install "tsar_jax\[environments\]"'
    ):
        GymnasiumEnvironments("CarRacing-v3", 1)


def test_missing_gymnasium_names_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(
        UserError, match=r'Ant-v5 needs Gymnasium.*pip install "tsar_jax\[environments\]"'
    ):
        GymnasiumEnvironments("Ant-v5", 1)


def test_importing_the_package_does_not_import_gymnasium() -> None:
    program = "import sys, tsar_jax, tsar_jax.environments.gymnasium_env as m\n"
    program += "assert 'gymnasium' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
