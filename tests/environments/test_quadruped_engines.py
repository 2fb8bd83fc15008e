"""The quadruped's two engines against gymnasium's Ant-v5, plain loops and each other."""

import gymnasium
import jax
import mujoco
import numpy as np
import pytest

from tsar_jax.environments import quadruped, quadruped_mjx, quadruped_mujoco
from tsar_jax.environments.quadruped_body import MOTORS, Body, build_model, find_body, motor_order
from tsar_jax.environments.quadruped_mjx import State, quadrupeds
from tsar_jax.environments.quadruped_mujoco import MujocoQuadrupeds
from tsar_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("quickly_compiled")

BODIES = [
    find_body(name)
    for name in ("standard", "left_front", "right_front", "left_back:0.7+friction:0.3")
]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """MuJoCo writes its warnings to a file in the working directory."""
    monkeypatch.chdir(tmp_path)


def random_actions(steps, count, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).uniform(-1, 1, (steps, count, 8))


def live(bodies, seeds, actions, threads=None):
    """qpos and qvel, observations, rewards and done of every step, [steps, count, ...]."""
    environments = MujocoQuadrupeds(bodies, threads)
    environments.reset(np.asarray(seeds))
    steps = []
    for action in actions:
        result = environments.step(action)
        steps.append([*environments.state, *result])
    environments.close()
    return [np.stack(array) for array in zip(*steps, strict=True)]


def test_the_standard_body_moves_as_gymnasiums_ant() -> None:
    environments = MujocoQuadrupeds([Body()] * 3)
    environments.reset(np.arange(3))
    ant = gymnasium.make("Ant-v5").unwrapped
    ant.reset(seed=0)
    order = motor_order(build_model(Body()))
    qpos, qvel = environments.state
    for action in random_actions(40, 3):
        environments.step(action)
        ours = environments.state
        for member in range(3):
            ant.set_state(qpos[member], qvel[member])
            ant.data.qacc_warmstart[:] = 0
            ant.step(action[member, order])
            np.testing.assert_allclose(ours[0][member], ant.data.qpos, atol=1e-12)
            np.testing.assert_allclose(ours[1][member], ant.data.qvel, atol=1e-10)
        qpos, qvel = ours
    assert np.ptp(qpos[:, 0]) > 0.1
    environments.close()


def test_the_solvers_cold_start_is_lost_in_its_tolerance() -> None:
    environments = MujocoQuadrupeds([Body()])
    environments.reset(np.array([5]))
    ant = gymnasium.make("Ant-v5").unwrapped
    ant.reset(seed=0)
    ant.set_state(*(array[0] for array in environments.state))
    for action in random_actions(10, 1):
        environments.step(action)
        ant.step(action[0, motor_order(build_model(Body()))])
        np.testing.assert_allclose(environments.state[0][0], ant.data.qpos, atol=1e-4)
    environments.close()


def test_a_life_depends_neither_on_other_members_nor_on_threads() -> None:
    bodies, seeds, actions = BODIES * 3, np.arange(12) % 5, random_actions(30, 12)
    together = live(bodies, seeds, actions, threads=1)
    for threads in (2, 3):
        for ours, wanted in zip(live(bodies, seeds, actions, threads), together, strict=True):
            np.testing.assert_array_equal(ours, wanted)
    for members in ([3], [1, 6, 11]):
        alone = live([bodies[m] for m in members], seeds[members], actions[:, members])
        for exact, ours, wanted in zip([1, 1, 0, 0, 1], alone, together, strict=True):
            # What is computed from the states in 32 bits may depend on how it is vectorised.
            tolerance = 0 if exact else 1e-5
            np.testing.assert_allclose(ours, wanted[:, members], rtol=0, atol=tolerance)


def test_seeds_begin_different_episodes_and_the_same_seed_the_same() -> None:
    environments = MujocoQuadrupeds([Body()] * 3)
    first = environments.reset(np.array([1, 2, 1]))
    np.testing.assert_array_equal(first[0], first[2])
    assert np.abs(first[0] - first[1]).max() > 0.01
    environments.step(np.ones((3, 8)))
    np.testing.assert_array_equal(environments.reset(np.array([1, 2, 1])), first)
    environments.close()


def test_idle_steps_are_simulated_first_without_torque() -> None:
    environments = MujocoQuadrupeds([find_body("left_front")])
    observation = environments.reset(np.array([7]))
    model = build_model(find_body("left_front"))
    data = mujoco.MjData(model)
    start = quadruped.draw_initial_state(jax.random.key(7))
    data.qpos[:], data.qvel[:] = start
    for _ in range(200):
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(environments.state[0][0], data.qpos, atol=1e-5)
    np.testing.assert_allclose(observation[0, 0], data.qpos[2] - start[0][2], atol=1e-5)
    environments.close()


def test_rewards_add_up_to_the_distance_walked() -> None:
    actions = random_actions(60, 4, seed=3)
    qpos, _, _, rewards, _ = live(BODIES, range(4), actions)
    distance = np.linalg.norm(np.array([1000.0, 0]) - qpos[..., :2], axis=2)
    np.testing.assert_allclose(0.05 * rewards[1:].sum(0), distance[0] - distance[-1], atol=1e-4)
    assert np.abs(rewards.sum(0)).min() > 0.1


def test_an_episode_ends_by_the_rules_and_is_not_simulated_any_more() -> None:
    actions = random_actions(260, 8, seed=1)
    qpos, _, _, rewards, done = live([Body()] * 8, range(8), actions)
    ended = done.any(0)
    assert not done[:201].any()
    assert ended.any()
    assert not ended.all()
    for member in range(8):
        first = done[:, member].argmax() if ended[member] else 260
        fallen = qpos[:, member, 2] <= 0.26
        assert not fallen[201:first].any()
        if ended[member]:
            assert fallen[first] or negative_streak(qpos, member, first)
            np.testing.assert_array_equal(np.ptp(qpos[first:, member], axis=0), 0)
        np.testing.assert_array_equal(done[first:, member], True)
        np.testing.assert_array_equal(rewards[first + 1 :, member], 0)


def negative_streak(qpos, member, first):
    """Whether 31 steps up to `first` led away from the target."""
    return (np.diff(qpos[first - 31 : first + 1, member, 0]) < 1e-4).all()


def test_a_diverging_member_earns_nan_and_the_others_go_on() -> None:
    actions = random_actions(5, 3)
    wanted = live([Body()] * 3, range(3), actions)
    actions[2, 1] = np.nan
    ours = live([Body()] * 3, range(3), actions)
    assert np.isnan(ours[3][2, 1])
    np.testing.assert_array_equal(ours[3][3:, 1], 0)
    np.testing.assert_array_equal(ours[4][:, 1], [False, False, True, True, True])
    for array, other in zip(ours, wanted, strict=True):
        np.testing.assert_array_equal(array[:, [0, 2]], other[:, [0, 2]])


def test_an_exploding_simulation_is_noticed_though_mujoco_begins_it_anew() -> None:
    environments = MujocoQuadrupeds([Body()] * 2)
    environments.reset(np.arange(2))
    environments._physics[1, quadruped_mujoco.QVEL][3] = 1e6
    _, rewards, done = environments.step(np.zeros((2, 8)))
    np.testing.assert_array_equal(np.isnan(rewards), [False, True])
    np.testing.assert_array_equal(done, [False, True])
    environments.close()


def test_before_a_reset_all_are_done() -> None:
    environments = MujocoQuadrupeds([Body()] * 2)
    observations, rewards, done = environments.step(np.zeros((2, 8)))
    assert observations.shape == (2, *environments.observation_shape)
    assert done.all()
    assert not rewards.any()
    environments.close()


def test_observing_is_compiled_once() -> None:
    quadruped_mujoco._step.clear_cache()
    for scale in (0.1, 1):
        live(BODIES, range(4), np.float32(random_actions(3, 4, scale=scale)))
    assert quadruped_mujoco._step._cache_size() == 1


def test_no_bodies_are_refused() -> None:
    with pytest.raises(UserError, match="There is no quadruped without a body"):
        MujocoQuadrupeds([])


def test_outputs_out_of_range_are_clipped_and_cost_no_more() -> None:
    outputs = random_actions(240, 2, scale=30)
    ours = live([Body()] * 2, range(2), outputs)
    wanted = live([Body()] * 2, range(2), np.clip(outputs, -1, 1))
    for array, other in zip(ours, wanted, strict=True):
        np.testing.assert_array_equal(array, other)
    # How long they live is a matter of versions, for a fall depends on the last bits.
    assert not ours[4][0].any()


COMPARED = find_body("right_front")
STEPS, MEMBERS = 12, 6


def compile_step(engine):
    """A step of every member in MJX, in 64 bits: (qpos, qvel, action) to all that it gives."""

    def step(qpos, qvel, action):
        state = State(qpos, qvel, quadruped.init_episode(qpos))
        state, *result = engine.step(state, engine.act(action))
        return state.qpos, state.qvel, engine.observe(state), *result

    shapes = [jax.ShapeDtypeStruct((MEMBERS, n), np.float64) for n in (15, 14, 8)]
    return jax.jit(jax.vmap(step)).lower(*shapes).compile()


def step_by_step():
    """What each step in MJX and in MuJoCo gives from the same states, on the way of the latter."""
    actions = random_actions(STEPS, MEMBERS, scale=0.2)
    environments = MujocoQuadrupeds([COMPARED] * MEMBERS)
    environments.reset(np.arange(MEMBERS))
    ours, wanted = [], []
    with jax.enable_x64(True):
        step = compile_step(quadrupeds([COMPARED]).one(0))
    for action in actions:
        with jax.enable_x64(True):
            ours.append(step(*environments.state, action))
        results = environments.step(action)
        wanted.append([*environments.state, *results])
    environments.close()
    stack = [[np.stack(array) for array in zip(*steps, strict=True)] for steps in (ours, wanted)]
    return zip(*stack, strict=True)


def share_alike(pairs, tolerances):
    """Which share of the steps agree within the tolerance of each of the pairs of arrays."""
    alike = np.ones(STEPS * MEMBERS, bool)
    for (ours, wanted), tolerance in zip(pairs, tolerances, strict=True):
        alike &= np.abs(ours - wanted).reshape(alike.size, -1).max(1) < tolerance
    return alike.mean()


def test_both_engines_take_the_same_step_from_the_same_state() -> None:
    """But for limbs within 30 degrees of upright, along which MJX turns no friction pyramid."""
    qpos, qvel, (ours, wanted), rewards, done = step_by_step()
    pairs = qpos, qvel, (ours[..., 1:], wanted[..., 1:]), rewards  # heights: of different resets
    assert share_alike(pairs, (2e-5, 1e-3, 1e-3, 1e-4)) > 0.4
    assert share_alike(pairs, (0.02, 1, 1, 0.3)) == 1
    np.testing.assert_array_equal(*done)


@pytest.fixture
def friction_cone(monkeypatch):
    """Bodies for which it does not matter along which axes a contact has its friction."""

    def build(body):
        model = build_model(body)
        model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        return model

    for module in (quadruped_mjx, quadruped_mujoco):
        monkeypatch.setattr(module, "build_model", build)


@pytest.mark.slow
def test_with_a_friction_cone_all_steps_are_the_same(friction_cone) -> None:
    qpos, qvel, _, rewards, _ = step_by_step()
    assert share_alike((qpos, qvel, rewards), (5e-5, 5e-3, 5e-4)) > 0.95


@pytest.mark.slow
def test_with_a_friction_cone_episodes_begin_and_go_on_alike(friction_cone) -> None:
    engine, traces = quadrupeds([COMPARED]).one(0), []
    keys = jax.vmap(jax.random.key)(np.arange(MEMBERS, dtype=np.uint32))

    @jax.jit
    @jax.vmap
    def step(state, action):
        traces.append(1)
        state, *result = engine.step(state, engine.act(action))
        return state, engine.observe(state), *result

    environments = MujocoQuadrupeds([COMPARED] * MEMBERS)
    wanted, state = environments.reset(np.arange(MEMBERS)), jax.jit(jax.vmap(engine.reset))(keys)
    ours = jax.vmap(engine.observe)(state)
    assert np.median(np.abs(ours - wanted).max(1)) < 5e-3
    for action in random_actions(STEPS, MEMBERS, scale=0.2):
        state, ours, rewards, done = step(state, np.float32(action))
        wanted, *others = environments.step(action)
        # In 32 bits; what little they differ by at first grows with every contact.
        assert np.median(np.abs(ours - wanted).max(1)) < 0.05
        assert np.median(np.abs(rewards - others[0])) < 0.05
        np.testing.assert_array_equal(done, others[1])
    environments.close()
    assert len(traces) == 1


def test_a_motor_that_has_failed_leaves_its_joint_alone() -> None:
    bodies = [find_body(name) for name in ("standard", "left_back_hip", "left_back_hip:0.5")]
    (joint,) = (MOTORS.index("left_back_hip"),)
    environments = MujocoQuadrupeds(bodies)
    environments.reset(np.zeros(3, np.uint32))
    before, _ = environments.state
    environments.step(np.eye(8)[[joint] * 3])
    moved = (environments.state[0] - before)[:, 7 + joint]
    environments.close()
    assert abs(moved[0]) > 1.5 * abs(moved[2]) > 3 * abs(moved[1])


VARIED = ("standard", "right_front:0.2+friction:0.3", "left_back_hip+right_back:0.6")


@pytest.mark.slow
def test_bodies_of_one_program_move_as_each_in_a_program_of_its_own() -> None:
    """In 64 bits, from states of MuJoCo's own motion; and MuJoCo's steps are near them."""
    bodies = [find_body(name) for name in VARIED]
    actions = random_actions(STEPS, len(bodies), scale=0.2)
    environments = MujocoQuadrupeds(bodies)
    environments.reset(np.arange(len(bodies)))
    with jax.enable_x64(True):
        variants = quadrupeds(bodies)
        alone = [quadrupeds([body]).one(0) for body in bodies]

    def taken(env, qpos, qvel, action):
        state = State(qpos, qvel, quadruped.init_episode(qpos))
        after, *result = env.step(state, env.act(action))
        return after.qpos, after.qvel, env.observe(after), *result

    @jax.jit
    @jax.vmap
    def together(parameters, *state):
        return taken(variants.make(parameters), *state)

    steps = [jax.jit(lambda *state, env=env: taken(env, *state)) for env in alone]
    differences = []
    for action in actions:
        state = (*environments.state, action)
        with jax.enable_x64(True):
            found = together(variants.parameters, *state)
            for row, step in enumerate(steps):
                wanted = step(*(array[row] for array in state))
                for ours, theirs in zip(found, wanted, strict=True):
                    np.testing.assert_allclose(ours[row], theirs, rtol=1e-9, atol=1e-9)
        environments.step(action)
        differences.append(np.abs(np.asarray(found[0]) - environments.state[0]).max(1))
    environments.close()
    assert (np.median(differences, axis=0) < 1e-3).all()
