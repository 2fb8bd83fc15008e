"""Generations, in compiled environments and in simulators: what members earn and what follows."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.environments.car_racing.racing import car_racing
from tsar_jax.environments.classic import cart_pole
from tsar_jax.environments.types import HostEnvironments, Variants
from tsar_jax.errors import UserError
from tsar_jax.meta.evolution import lifetime_key, perturb
from tsar_jax.meta.strategy import EvolutionState
from tsar_jax.systems.hebbian.evolution import (
    Evolution,
    apply_weight_decay,
    make_strategy,
    sigma_schedule,
)
from tsar_jax.systems.hebbian.policy import PolicyConfig
from tsar_jax.systems.hebbian.rollouts import ENVIRONMENT_FOLD, INIT_FOLD, lifetime_fitness
from tsar_jax.systems.hebbian.system import (
    HOST_METRICS,
    HebbianConfig,
    compiled_system,
    host_system,
    make_system,
    policy_for,
    summary,
)
from tsar_jax.training.checkpoints import to_host
from tsar_jax.training.errors import TrainingDiverged
from tsar_jax.training.loop import Trained, make_keys, train
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.run import Run, checkpoint_steps

pytestmark = pytest.mark.usefixtures("quickly_compiled")

PENALTY = 6.0  # as large as what the members earn, so that neither alone decides their order
CONFIG = HebbianConfig(
    steps=4,
    chunk=2,
    eval_every=2,
    checkpoint_every=2,
    rollouts=2,
    evaluations=3,
    policy=PolicyConfig(hidden=(4,)),
    evolution=Evolution(population=4, weight_decay=PENALTY),
)
MEMBERS = range(CONFIG.evolution.population)
KEYS = jax.random.split(jax.random.key(5), 3)
LOOP_KEYS = make_keys(CONFIG.seed)


def sigma_of(state):
    return sigma_schedule(CONFIG.evolution)(state.generation)


@jax.jit
def member_genome(state, key, member):
    return perturb(state.genome, key, sigma_of(state), member)


def member_genomes(state, key):
    return [member_genome(state, key, member) for member in MEMBERS]


@jax.jit
def told(state, key, found, genomes):
    """The state after a generation whose members earned `found`."""
    fitness = [
        apply_weight_decay(CONFIG.evolution, *pair) for pair in zip(found, genomes, strict=True)
    ]
    strategy = make_strategy(CONFIG.evolution, state.genome)
    return strategy.tell(state, strategy.ask(state, key), -jnp.stack(fitness))


def assert_summary(metrics, found, sigma) -> None:
    """Metrics of a step whose members earned `found`."""
    wanted = {
        "fitness_mean": np.mean(found),
        "fitness_best": np.max(found),
        "fitness_worst": np.min(found),
        "nan_members": 0,
        "infinite_members": 0,
        "sigma": sigma,
    }
    assert set(metrics) == set(wanted) == set(HOST_METRICS.step)
    for name, value in wanted.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)


def assert_same(ours, theirs) -> None:
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


VARIANTS = Variants(
    lambda steps: cart_pole()._replace(max_episode_steps=steps), jnp.asarray([500, 6]), 2
)
ENVIRONMENTS = [cart_pole(), cart_pole()._replace(max_episode_steps=6)]
"""The same, each by itself."""


class Quiet:
    """Progress that says nothing."""

    def update(self, *_): ...

    def message(self, *_): ...

    def close(self): ...


def trained(system, path, config=CONFIG, resume=False):
    return train(system, (), config, Run(path, config, resume=resume), progress=Quiet())


class Compiled(NamedTuple):
    """Two generations by the loop: where they began and ended, and how often a step was traced."""

    start: EvolutionState
    trained: Trained
    traces: list[int]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    system, traces = compiled_system(CONFIG, VARIANTS), []

    def step(*arguments):
        traces.append(1)
        return system.step(*arguments)

    path, config = tmp_path_factory.mktemp("run"), dataclasses.replace(CONFIG, steps=2, chunk=1)
    ended = trained(system._replace(step=step), path, config)
    return Compiled(jax.jit(system.init)(LOOP_KEYS.init), ended, traces)


@pytest.fixture(scope="module")
def earned():
    """(genome, key) -> mean fitness over environments and rollouts, one lifetime after another."""
    policy = policy_for(CONFIG, ENVIRONMENTS[0])

    @jax.jit
    def fitness(genome, key, limit):
        return lifetime_fitness(policy, cart_pole()._replace(max_episode_steps=limit), genome, key)

    def mean(genome, key):
        keys = [jax.random.fold_in(key, rollout) for rollout in range(CONFIG.rollouts)]
        return np.mean(
            [fitness(genome, k, env.max_episode_steps) for k in keys for env in ENVIRONMENTS]
        )

    return mean


def test_generations_are_their_members_one_by_one(compiled, earned) -> None:
    state, scores = compiled.start, []
    for number in range(2):
        key = jax.random.fold_in(LOOP_KEYS.step, number)
        genomes = member_genomes(state, key)
        found = [
            earned(genome, lifetime_key(key, member // 2)) for member, genome in enumerate(genomes)
        ]
        row = compiled.trained.metrics[number]
        assert_summary({name: row[name] for name in HOST_METRICS.step}, found, sigma_of(state))
        state, scores = told(state, key, found, genomes), scores + found
    assert_same(compiled.trained.state, state)
    assert len(set(scores)) > 2


def test_a_generation_is_traced_once(compiled) -> None:
    assert len(compiled.traces) == 1


@pytest.mark.slow
def test_a_generation_of_drivers_earns_what_each_earns_alone() -> None:
    """From pixels, in compiled car racing."""
    config = dataclasses.replace(
        CONFIG,
        environment="car_racing",
        rollouts=1,
        evolution=Evolution(population=2),
        limit=2,
    )
    system = make_system(config)
    state = jax.jit(system.init)(jax.random.key(1))
    after, metrics, _ = jax.jit(system.step)(state, (), KEYS[0])
    env = car_racing()._replace(max_episode_steps=2)
    policy = policy_for(config, env)
    assert policy.learner.init(state.genome, KEYS[0])[0].shape == (4, 648)
    live = jax.jit(partial(lifetime_fitness, policy, env))
    alone = [
        live(member_genome(state, KEYS[0], member), jax.random.fold_in(lifetime_key(KEYS[0], 0), 0))
        for member in range(2)
    ]
    np.testing.assert_allclose(metrics["fitness_mean"], np.mean(alone), rtol=1e-5)
    assert metrics["fitness_mean"] > 5  # the tiles under the car at its start
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.genome, state.genome)
    assert min(jax.tree.leaves(moved)) > 0


def test_an_evaluation_is_of_the_centre_in_lifetimes_of_its_own(compiled, earned) -> None:
    row = compiled.trained.metrics[-1]
    keys = jax.random.split(jax.random.fold_in(LOOP_KEYS.evaluate, 2), CONFIG.evaluations)
    found = [earned(compiled.trained.state.genome, key) for key in keys]
    assert (row["split"], row["step"]) == ("eval", 2)
    assert set(HOST_METRICS.evaluate) < set(row)
    np.testing.assert_allclose(row["fitness"], np.mean(found), rtol=1e-6)
    np.testing.assert_allclose(row["fitness_std"], np.std(found), rtol=1e-5)


class Meadow(HostEnvironments):
    """A seed says where an agent begins and for how many steps; where it goes, what it earns."""

    observation_shape, num_actions, max_episode_steps = (3,), 2, 5
    sick = -1
    """Agent whose first reward is no number."""

    def __init__(self, count, value):
        self.count, self.value = count, value

    def reset(self, seeds):
        self.place = np.sin(np.outer(seeds % 97, [1, 2, 3])).astype(np.float32)
        self.left = 1 + seeds % 5
        return self.place

    def step(self, outputs):
        assert outputs.shape == (self.count, self.num_actions)
        moved = np.tanh(outputs + self.place[:, :2])
        self.place = np.concatenate([moved, self.place[:, :1]], axis=1)
        rewards = np.where(self.left > 0, self.value * moved.sum(1), 0)
        if self.sick >= 0:
            rewards[self.sick] = np.nan
        self.left = np.maximum(self.left, 1) - 1
        return self.place, rewards, self.left == 0

    def close(self):
        pass


VALUES = (1.0, -3.0)
OPENED = []


def open_meadows(count):
    envs = [Meadow(count, value) for value in VALUES]
    OPENED.extend(envs)
    return envs


@pytest.fixture(scope="module")
def host():
    return host_system(CONFIG, open_meadows)


@pytest.fixture(scope="module")
def host_start(host):
    return jax.jit(host.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def earned_alone():
    """(genome, key) -> what an agent without company earns, its mean over meadows and rollouts."""
    policy = policy_for(CONFIG, Meadow(1, 0.0))
    express, born, live = map(jax.jit, (policy.prepare, policy.learner.init, policy.learner.update))

    def lifetime(genome, key, value):
        meadow, total, done = Meadow(1, value), 0.0, False
        observation = meadow.reset(
            np.asarray([jax.random.bits(jax.random.fold_in(key, ENVIRONMENT_FOLD))])
        )
        genome = express(genome)
        weights = born(genome, jax.random.fold_in(key, INIT_FOLD))
        while not done:
            weights, outputs = live(genome, weights, observation[0])
            observation, rewards, (done,) = meadow.step(np.asarray(outputs)[None])
            total += rewards[0]
        return total

    def mean(genome, key):
        keys = [jax.random.fold_in(key, rollout) for rollout in range(CONFIG.rollouts)]
        return np.mean([lifetime(genome, k, value) for k in keys for value in VALUES])

    return mean


def test_every_member_earns_in_simulators_what_it_earns_alone(
    host, host_start, earned_alone
) -> None:
    state, key = host_start, KEYS[0]
    genomes = member_genomes(state, key)
    found = [
        earned_alone(genome, lifetime_key(key, member // 2))
        for member, genome in enumerate(genomes)
    ]
    penalties = [-apply_weight_decay(CONFIG.evolution, jnp.zeros(()), genome) for genome in genomes]
    order = np.argsort(np.subtract(found, penalties)).tolist()
    assert order not in (np.argsort(found).tolist(), np.argsort(np.negative(penalties)).tolist())
    after, metrics, _ = host.step(state, (), key)
    assert_summary(metrics, found, sigma_of(state))
    assert_same(after, told(state, key, found, genomes))


def test_an_evaluation_in_simulators_is_of_the_centre(host, host_start, earned_alone) -> None:
    metrics = host.evaluate(host_start, (), KEYS[1])
    keys = jax.random.split(KEYS[1], CONFIG.evaluations)
    found = [earned_alone(host_start.genome, key) for key in keys]
    assert set(metrics) == set(HOST_METRICS.evaluate)
    np.testing.assert_allclose(metrics["fitness"], np.mean(found), rtol=1e-4)
    np.testing.assert_allclose(metrics["fitness_std"], np.std(found), rtol=1e-4)


def test_a_member_whose_reward_is_no_number_is_counted_and_ranks_last(
    host, host_start, monkeypatch
) -> None:
    state, key = host_start, KEYS[2]
    _, whole, _ = host.step(state, (), key)
    sick, env = 2, next(w for w in OPENED if w.count == len(MEMBERS) and w.value == VALUES[1])
    monkeypatch.setattr(env, "sick", sick)
    after, metrics, _ = host.step(state, (), key)
    assert whole["nan_members"] == 0
    assert metrics["nan_members"] == 1
    for name, value in metrics.items():
        assert np.isfinite(value), name
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    # The sick one gives way to its twin, however good the pair may be.
    start = state.genome.main[0]
    to_sick, to_twin = (
        float(((genome.main[0] - start) * (after.genome.main[0] - start)).sum())
        for genome in member_genomes(state, key)[sick : sick + 2]
    )
    assert to_twin > 0 > to_sick


def test_an_infinite_fitness_is_counted_and_no_divergence() -> None:
    found = summary(jnp.asarray([jnp.inf, 1.0, 3.0, jnp.nan]), jnp.asarray(0.1))
    assert {name: float(value) for name, value in found.items() if name != "sigma"} == {
        **{"fitness_mean": 2, "fitness_best": 3, "fitness_worst": 1},
        **{"nan_members": 1, "infinite_members": 1},
    }


def test_where_no_fitness_is_finite_the_environment_is_named(host, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Meadow, "step", sick_step(Meadow.step))
    with pytest.raises(TrainingDiverged, match=f"in {CONFIG.environment} was a finite number"):
        trained(host, tmp_path)


def sick_step(step):
    """A simulator's step, whose rewards are all NaN."""

    def sick(self, outputs):
        observations, rewards, done = step(self, outputs)
        return observations, np.full_like(rewards, np.nan), done

    return sick


@pytest.fixture(scope="module")
def whole(host, tmp_path_factory):
    """A run of all generations, and its folder."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    return trained(host, path), path


def same_bits(one, other) -> bool:
    one, other = ({k: v.tobytes() for k, v in to_host(state).items()} for state in (one, other))
    return one == other


def test_a_run_in_simulators_is_its_generations_one_after_another(host, whole) -> None:
    state, found = jax.jit(host.init)(LOOP_KEYS.init), []
    for number in range(CONFIG.steps):
        state, metrics, _ = host.step(state, (), jax.random.fold_in(LOOP_KEYS.step, number))
        found.append(metrics)
    ended, _ = whole
    assert same_bits(ended.state, state)
    rows = [row for row in ended.metrics if row["split"] == "train"]
    assert [row["step"] for row in rows] == [2, 4]
    for row, pair in zip(rows, (found[:2], found[2:]), strict=True):
        for name in HOST_METRICS.step:
            wanted = np.mean([metrics[name] for metrics in pair])
            np.testing.assert_allclose(row[name], wanted, rtol=1e-6, err_msg=name)


def test_a_killed_run_resumes_to_the_same_bits(host, whole, tmp_path, monkeypatch) -> None:
    of_a_generation = len(VALUES) * CONFIG.rollouts
    resets = []
    original = Meadow.reset

    def reset(self, seeds):
        resets.append(self.count)
        if resets.count(len(MEMBERS)) > 3 * of_a_generation:
            raise RuntimeError("killed")
        return original(self, seeds)

    with monkeypatch.context() as patches:
        patches.setattr(Meadow, "reset", reset)
        with pytest.raises(RuntimeError, match="killed"):
            trained(host, tmp_path)
    assert checkpoint_steps(tmp_path / "checkpoints") == [0, 2]
    resumed = trained(host, tmp_path, resume=True)
    assert resumed.step == CONFIG.steps
    assert same_bits(resumed.state, whole[0].state)
    times = {"wall_s": 0, "steps_per_s": 0}
    killed, uninterrupted = ([row | times for row in read_rows(p)] for p in (tmp_path, whole[1]))
    assert killed == uninterrupted
    assert len(killed) == 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rollouts": 0}, "rollouts must be at least 1, but is 0"),
        ({"evaluations": 0}, "evaluations must be at least 1, but is 0"),
        ({"bodies": ()}, "bodies are none: name at least one"),
        ({"chunk": 0}, "chunk must be at least 1, but is 0"),
    ],
)
def test_impossible_settings_are_named(changes, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(CONFIG, **changes)
