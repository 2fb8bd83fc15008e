"""Bodies, observation, reward and end of the quadruped against MuJoCo, scipy and plain loops."""

import subprocess
import sys
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tsar_jax.environments import quadruped
from tsar_jax.environments.quadruped import (
    draw_initial_state,
    init_episode,
    judge,
    observe,
    progress,
)
from tsar_jax.environments.quadruped_body import (
    LEGS,
    MOTORS,
    Body,
    build_model,
    find_anatomy,
    find_body,
    motor_order,
)
from tsar_jax.errors import UserError

NAMES = ["standard", "left_front", "right_front", "left_back:0.8", "right_back:0.01"]


def original():
    assets = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    return mujoco.MjModel.from_xml_path(str(assets / "ant.xml"))


def capsule_mass(length):
    """Density 5 kg/m^3, radius 0.08 m: a cylinder and two half spheres."""
    return 5 * np.pi * 0.08**2 * (length + 4 / 3 * 0.08)


@pytest.mark.parametrize(
    ("name", "leg", "length"),
    [
        ("standard", None, 0.4),
        ("left_front", "left_front", 0.1),
        ("right_front", "right_front", 0.1),
        ("left_back:0.8", "left_back", 0.8),
        ("right_back:0.4", "right_back", 0.4),
    ],
)
def test_a_body_differs_from_the_original_in_one_segment(name, leg, length) -> None:
    model, standard = build_model(find_body(name)), original()
    lengths = tuple(length if other == leg else 0.4 for other in LEGS)
    assert find_body(name) == Body(lengths)
    for geom in range(1, standard.ngeom):
        changed = leg is not None and standard.geom(geom).name == LEGS[leg]
        scale = length / 0.4 if changed else 1.0
        half = standard.geom_size[geom, 1] * scale
        np.testing.assert_allclose(model.geom_size[geom], [standard.geom_size[geom, 0], half, 0])
        np.testing.assert_allclose(model.geom_pos[geom], standard.geom_pos[geom] * scale)
        body = model.geom_bodyid[geom]
        if changed:
            np.testing.assert_allclose(model.body_mass[body], capsule_mass(length * np.sqrt(2)))
        else:
            np.testing.assert_allclose(model.body_mass[body], standard.body_mass[body])
    assert model.opt.timestep * quadruped.SIMULATOR_STEPS == quadruped.CONTROL_STEP


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tail", "There is no body 'tail': choose from standard, left_front, .*left_front:0.2"),
        ("standard:0.2", "There is no body 'standard:0.2'"),
        ("left_front:short", "'short' in the body 'left_front:short' is no length: give a number"),
        ("left_front:", "'' in the body 'left_front:' is no length"),
        ("left_front:0", "must be between 0.01 and 1.0 m, but is 0.0"),
        ("left_front:-0.1", "must be between 0.01 and 1.0 m, but is -0.1"),
        ("left_front:40", "must be between 0.01 and 1.0 m, but is 40.0"),
        ("left_front:nan", "must be between 0.01 and 1.0 m, but is nan"),
        ("friction", "'' in the body 'friction' is no coefficient: .* as in friction:0.2"),
        ("friction:0", "coefficient of friction must be between 0.01 and 10.0, but is 0.0"),
        ("left_front_hip:11", "motor left_front_hip must be between 0.0 and 10.0, but is 11.0"),
        ("left_front+left_front:0.2", "'left_front.left_front:0.2' says twice what left_front is"),
        ("left_front+tail", "There is no body 'tail': choose from standard, .*, friction"),
        ("standard+left_front", "standard has no value and joins nothing, but the body is"),
        ("left_front+", "There is no body ''"),
    ],
)
def test_impossible_bodies_are_named(name, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        find_body(name)


def test_parts_of_a_body_are_joined_in_any_order() -> None:
    joined = find_body("friction:0.3+right_back_hip+left_front:0.2+left_back_ankle:0.5")
    strengths = {"right_back_hip": 0.0, "left_back_ankle": 0.5}
    assert joined == Body(
        (0.2, 0.4, 0.4, 0.4), tuple(strengths.get(motor, 1.0) for motor in MOTORS), 0.3
    )


def test_motors_have_their_strength_and_contacts_their_friction() -> None:
    model, standard = build_model(find_body("right_back_hip:0.25+friction:0.3")), original()
    names = [f"{leg}_{joint}" for leg in LEGS for joint in ("hip", "ankle")]
    for motor, joint in enumerate(motor_order(model)):
        strength = 0.25 if names[joint] == "right_back_hip" else 1.0
        assert (
            model.actuator_gear[motor, 0]
            == strength * standard.actuator_gear[motor, 0]
            == (strength * 150)
        )
    # ant.xml counts its legs, and joints, from 1: hip_4 is the right back leg's.
    assert standard.joint(1 + names.index("right_back_hip")).name == "hip_4"
    data = mujoco.MjData(model)
    for _ in range(200):
        mujoco.mj_step(model, data)
    assert data.ncon
    np.testing.assert_allclose(data.contact.friction[:, 0], 0.3)


@pytest.mark.parametrize("name", ["standard", "left_front"])
def test_a_body_may_be_integrated_in_another_way(name) -> None:
    usual, other = (build_model(find_body(name, way)) for way in ("RK4", "implicitfast"))
    assert usual.opt.integrator == original().opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    assert other.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    assert other.opt.timestep == usual.opt.timestep
    np.testing.assert_array_equal(other.body_mass, usual.body_mass)
    with pytest.raises(UserError, match="no integrator 'euler': choose from RK4, implicitfast"):
        find_body(name, "euler")


@pytest.mark.parametrize("missing", ["mujoco", "gymnasium"])
def test_a_missing_simulator_is_named(monkeypatch, missing) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r'pip install "tsar_jax\[environments\]"'):
        build_model(Body())


def test_importing_the_environments_imports_no_simulator() -> None:
    modules = ", ".join(
        f"tsar_jax.environments.quadruped{end}" for end in ("", "_mujoco", "_mjx", "_video")
    )
    code = f"import sys, {modules}; sys.exit('mujoco' in sys.modules or 'gymnasium' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def random_states(model, count, seed=0):
    """Postures of every kind, upside down too, near the floor and above it."""
    rng = np.random.default_rng(seed)
    qpos, qvel = rng.normal(size=(count, 15)), 20 * rng.normal(size=(count, 14))
    qpos[:, :2] *= 30
    qpos[:, 2] = rng.uniform(0, 1.2, count)
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    low, high = model.jnt_range[1:].T
    qpos[:, 7:] = low + (high - low) * rng.uniform(-0.05, 1.05, (count, 8))
    return qpos, qvel


def felt(model, qpos, qvel, initial_height):
    """The observation from MuJoCo's kinematics and contacts and scipy's angles, joint by joint."""
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(model, data)
    roll, pitch, yaw = Rotation.from_quat(qpos[3:7], scalar_first=True).as_euler("xyz")
    angle = np.arctan2(0 - qpos[1], 1000 - qpos[0]) - yaw
    velocity = Rotation.from_euler("z", -yaw).apply(qvel[:3])
    numbers = [qpos[2] - initial_height, np.sin(angle), np.cos(angle), *(0.3 * velocity)]
    numbers += [roll, pitch]
    for joint in range(1, 9):
        low, high = model.jnt_range[joint]
        position = qpos[model.jnt_qposadr[joint]]
        numbers += [2 * (position - (low + high) / 2) / (high - low)]
        numbers += [0.1 * qvel[model.jnt_dofadr[joint]]]
    pairs = {model.geom(geom).name for c in data.contact if c.dist <= 0.01 for geom in c.geom}
    numbers += [float(LEGS[leg] in pairs) for leg in LEGS]
    return np.clip(numbers, -5, 5)


observe_all = jax.jit(jax.vmap(observe, (None, 0, 0, 0)))


@pytest.mark.parametrize("name", NAMES)
def test_the_observation_is_what_the_simulator_shows(name) -> None:
    model = build_model(find_body(name))
    qpos, qvel = random_states(model, 150)
    heights = np.linspace(0.5, 1, 150)
    with jax.enable_x64(True):
        ours = observe_all(find_anatomy(model), qpos, qvel, heights)
    wanted = np.stack([felt(model, *row) for row in zip(qpos, qvel, heights, strict=True)])
    np.testing.assert_allclose(ours, wanted, atol=1e-9)
    assert ours.shape[1:] == quadruped.OBSERVATION_SHAPE
    assert 0.1 < wanted[:, -4:].mean() < 0.9
    assert np.abs(wanted).max() == 5


def advance(before, qpos):
    """m/s towards the target, by the plain difference of two distances."""
    target = np.array([1000.0, 0.0])
    return (np.linalg.norm(target - before) - np.linalg.norm(target - qpos[:2])) / 0.05


def ends(rewards, fallen):
    """At which steps the paper's episode would have been done, from step 0 on."""
    negatives, done = 0, []
    for step, reward in enumerate(rewards):
        if step > 200:
            negatives = negatives + 1 if reward < 0 else 0
        done.append(step > 200 and (fallen[step] or negatives > 30))
    return done


@jax.jit
def judged(episode, *states):
    def one(episode, state):
        episode, gained, done = judge(episode, *state)
        return episode, (gained, done)

    return jax.lax.scan(one, episode, states)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.9, 0.97, 1.0]), st.booleans())
def test_progress_and_end_follow_the_rules_step_by_step(seed, unlucky, falls) -> None:
    rng = np.random.default_rng(seed)
    qpos, qvel = random_states(MODEL, 300, seed)
    qpos[:, 2] = np.where(falls & (rng.random(300) < 0.01), 0.25, 0.3)
    before = qpos[:, :2].copy()
    before[:, 0] += np.where(rng.random(300) < unlucky, 1, -1)
    with jax.enable_x64(True):
        _, (gained, done) = judged(init_episode(qpos[0]), before, qpos, qvel)
    wanted = [advance(*row) for row in zip(before, qpos, strict=True)]
    np.testing.assert_allclose(gained, wanted, atol=1e-8)
    np.testing.assert_array_equal(done, ends(wanted, qpos[:, 2] <= 0.26))


MODEL = build_model(Body())


def a_step(**changes):
    """Standing still at the origin."""
    qpos = np.zeros(15)
    qpos[2:4] = 0.5, 1  # m above the floor, and upright
    return {"before": np.zeros(2), "qpos": qpos, "qvel": np.zeros(14)} | changes


@pytest.mark.parametrize(
    ("x", "steps", "negatives"),
    [(0, 201, 0), (-1e-3, 201, 0), (1e-3, 201, 8), (1e-3, 200, 0)],
)
def test_only_steps_back_after_the_grace_are_counted(x, steps, negatives) -> None:
    """Standing still is not going back; a step ahead begins the count anew."""
    state = a_step(before=np.array([x, 0]))
    episode = init_episode(state["qpos"])._replace(steps=steps, negatives=7)
    after, _, _ = judge(episode, **state)
    assert (after.steps, after.negatives) == (steps + 1, negatives)


def test_progress_keeps_the_millimetres_in_32_bits() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(-50, 50, (200, 2)).astype(np.float32)
    after = before + rng.normal(size=(200, 2)).astype(np.float32) * np.float32(0.01)
    target = np.array([1000.0, 0.0])
    distance = np.linalg.norm(target - np.stack([before, after]).astype(np.float64), axis=2)
    ours = jax.vmap(progress)(before, after)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, (distance[0] - distance[1]) / 0.05, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["qpos", "qvel"])
def test_a_diverged_body_earns_nan_and_is_done(bad, where) -> None:
    state = a_step()
    _, gained, done = judge(init_episode(state["qpos"]), **state)
    assert (float(gained), bool(done)) == (0, False)
    state[where][5] = bad
    _, gained, done = judge(init_episode(state["qpos"]), **state)
    assert np.isnan(gained)
    assert done


def test_a_reset_is_ant_v5s() -> None:
    keys = jax.random.split(jax.random.key(0), 2000)
    qpos, qvel = (
        np.asarray(array, np.float64) for array in jax.jit(jax.vmap(draw_initial_state))(keys)
    )
    upright = original().qpos0
    outside = np.abs(qpos - upright)[:, [0, 1, 2, *range(7, 15)]]
    assert 0.099 < outside.max() <= 0.1
    np.testing.assert_allclose(outside.mean(0), 0.05, atol=0.005)
    np.testing.assert_allclose(np.linalg.norm(qpos[:, 3:7], axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(qpos[:, 4:7].std(0), 0.2 / np.sqrt(12), atol=0.003)
    np.testing.assert_allclose(qvel.std(0), 0.1, atol=0.01)
    np.testing.assert_allclose(qvel.mean(0), 0, atol=0.01)
    with jax.enable_x64(True):
        again, _ = draw_initial_state(keys[7])
    np.testing.assert_array_equal(again, np.float32(qpos[7]))


def test_motors_are_in_the_models_order_and_actions_in_the_joints() -> None:
    names = [MODEL.joint(1 + joint).name for joint in motor_order(MODEL)]
    assert names == [MODEL.joint(joint).name for joint in MODEL.actuator_trnid[:, 0]]
    assert names[:2] == ["hip_4", "ankle_4"]
    np.testing.assert_array_equal(quadruped.act(jnp.array([-3.0, 0.5, 2.0])), [-1, 0.5, 1])
