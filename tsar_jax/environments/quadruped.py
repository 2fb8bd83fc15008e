"""The quadruped of Najarro & Risi (2020): its bodies, observations and rewards.

The original is pybullet's AntBulletEnv-v0. The body here is gymnasium's MuJoCo Ant (ant.xml as it
ships; a control step is five of 0.01 s, as Ant-v5's). The observation is pybullet's; reward and end
are the paper's, by progress alone, without pybullet's bonus and costs. A simulator supplies `qpos`
[15] and `qvel` [14] as MuJoCo orders them (torso: x, y, z, quaternion w, x, y, z; then hip and
ankle of each of `LEGS`), and everything else is here.

Differences from the original:
- A control step lasts 0.05 s, not 0.0165 s: 1000 of them are 50 s of life. Progress is in m/s in
  both, so that the fitness is distance over the length of a step in both.
- Motors: 150 N m against 250; hips within 30 degrees of the middle against 40, ankles within
  30..70 degrees against 30..100; friction 1 against 1.5.
- Contacts are MuJoCo's soft ones. A foot's contact is felt at once, in the original a step later.
- A reset draws as Ant-v5 does: uniform within 0.1 of upright for each of qpos, the height too, and
  normal with deviation 0.1 for each of qvel. The original draws the joint angles alone.
- Angle and distance to the target are the torso's; in the original, of the mean over all parts.
- The 40 idle steps are not part of the 1000; in the original a time limit of 1000 counts them.
- The first observation is made after the idle steps, in the original before.
"""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.errors import UserError, check_known, missing_extra

LEGS = {
    "left_front": "left_ankle_geom",
    "right_front": "right_ankle_geom",
    "left_back": "third_ankle_geom",
    "right_back": "fourth_ankle_geom",
}
"""Geom of each leg's ankle segment. Names are the model's, for which y, not x, is ahead."""

HEALTHY, DAMAGED = 0.4, 0.1  # an ankle segment's length, m along x and as many along y
SHORTEST, LONGEST = 0.01, 1.0  # m, range of an ankle segment's length
INTEGRATORS = ("RK4", "implicitfast")
"""MuJoCo's integrators. RK4 is Ant-v5's and evaluates the forces four times a step, the other once.
"""
SIMULATOR_STEPS = 5  # in a control step
CONTROL_STEP = 0.05  # s
IDLE_STEPS = 40  # control steps without torque, before an episode begins
MAX_EPISODE_STEPS = 1000  # control steps
GRACE, PATIENCE = 200, 30  # when an episode can be done, and after how many steps back
NOISE = 0.1  # of a reset: half the range of qpos, standard deviation of qvel
UPRIGHT_HEIGHT = 0.75  # m, of the torso at a reset without noise
LOWEST = 0.26  # m: a torso that is not above it has fallen
TARGET = 1000.0  # m along x
TOUCH = 0.01  # m: a foot that near to the floor touches it
OBSERVATION_SHAPE = (28,)
NUM_ACTIONS = 8


@dataclasses.dataclass(frozen=True)
class Body:
    """A quadruped, standard or with one ankle segment of another length.

    leg: one of `LEGS`, or None for the standard body.
    length: m along x and as many along y, as ant.xml gives it: 0.4 is healthy, 0.1 the damage.
    integrator: one of `INTEGRATORS`, by which it is simulated.

    Raises:
        UserError: the leg or integrator is unknown, or the length is out of range.
    """

    leg: str | None = None
    length: float = HEALTHY
    integrator: str = INTEGRATORS[0]

    def __post_init__(self) -> None:
        if self.leg is not None:
            check_known("leg", self.leg, LEGS)
        check_known("integrator", self.integrator, INTEGRATORS)
        if not SHORTEST <= self.length <= LONGEST:
            raise UserError(
                f"The length of an ankle segment must be between {SHORTEST} and {LONGEST} m, "
                f"but is {self.length}."
            )


def find_body(name: str, integrator: str = INTEGRATORS[0]) -> Body:
    """Return the body of a name: "standard", a damaged leg's ("left_front") or "left_front:0.2".

    Raises:
        UserError: the name is none of these, or the integrator is unknown.
    """
    if name == "standard":
        return Body(integrator=integrator)
    leg, colon, length = name.partition(":")
    if leg not in LEGS:
        known = ("standard", *LEGS)
        check_known("body", name, known, ", or give a leg a length (left_front:0.2)")
    try:
        metres = float(length) if colon else DAMAGED
    except ValueError:
        raise UserError(
            f"{length!r} in the body {name!r} is no length: give metres, as in left_front:0.2."
        ) from None
    return Body(leg, metres, integrator)


def load_simulator() -> Any:
    """Import the module mujoco and return it. Raises UserError where it is missing."""
    try:
        import mujoco
    except ImportError:
        raise missing_extra("The quadruped", "MuJoCo and gymnasium", "environments") from None
    return mujoco


def build_model(body: Body) -> Any:
    """Return the body as a mujoco.MjModel. Raises UserError where a package is missing."""
    mujoco = load_simulator()
    # Located, not imported: the import takes longer than all the rest, and only a file is needed.
    gymnasium = importlib.util.find_spec("gymnasium")
    if gymnasium is None or gymnasium.origin is None:
        raise missing_extra("The quadruped", "gymnasium's model of it", "environments")
    path = Path(gymnasium.origin).parent / "envs" / "mujoco" / "assets" / "ant.xml"
    spec = mujoco.MjSpec.from_file(str(path))
    if body.leg is not None:
        segment = spec.geom(LEGS[body.leg])
        segment.fromto = segment.fromto * (body.length / HEALTHY)
    spec.option.integrator = getattr(mujoco.mjtIntegrator, f"mjINT_{body.integrator.upper()}")
    return spec.compile()


class Anatomy(NamedTuple):
    """Measures of a body that observations and rewards need; rows are legs in the order of `LEGS`.

    middle, reach [8]: each joint's range, rad, is middle +- reach.
    hip [4, 3]: place of the hip, from the torso's centre, m.
    knee [4, 3]: place of the ankle joint, from the hip, all joints at zero, m.
    foot [4, 3]: place of the ankle segment's far end, from its joint, all joints at zero, m.
    swing [4, 3]: the ankle's axis x foot, m.
    radius: of the ankle segments, m.
    """

    middle: Any
    reach: Any
    hip: Any
    knee: Any
    foot: Any
    swing: Any
    radius: Any


def find_anatomy(model: Any) -> Anatomy:
    """Return the anatomy of a mujoco.MjModel made by `build_model`."""
    segment = [model.geom(name).id for name in LEGS.values()]
    below = model.geom_bodyid[segment]
    above = model.body_parentid[below]
    # A segment begins at its joint, so that its far end is twice as far away as its centre.
    foot = 2 * model.geom_pos[segment]
    axis = model.jnt_axis[model.body_jntadr[below]]
    low, high = model.jnt_range[1:].T  # without the torso's free joint
    return Anatomy(
        middle=(low + high) / 2,
        reach=(high - low) / 2,
        hip=model.body_pos[above],
        knee=model.body_pos[below],
        foot=foot,
        swing=np.cross(axis, foot),
        radius=model.geom_size[segment[0], 0],
    )


def motor_order(model: Any) -> np.ndarray:
    """Return for each motor of the model [8] the index of its joint: actions are in the joints'
    order.
    """
    return model.actuator_trnid[:, 0] - 1


def draw_initial_state(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw qpos [15] and qvel [14] at a reset, as Ant-v5 does, before the idle steps."""
    place, speed = jax.random.split(key)
    # Always 32 bits: in 64 the same key gives other numbers.
    noise = jax.random.uniform(place, (15,), jnp.float32, -NOISE, NOISE)
    qpos = noise.at[2].add(UPRIGHT_HEIGHT).at[3].add(1.0)
    # Normalised here, because the two simulators do so at different moments.
    qpos = qpos.at[3:7].divide(jnp.linalg.norm(qpos[3:7]))
    return qpos, NOISE * jax.random.normal(speed, (14,), jnp.float32)


def act(outputs: jax.Array) -> jax.Array:
    """Map network outputs [8], which a policy bounds by tanh itself, to torques in -1..1."""
    return jnp.clip(outputs, -1, 1)


def turned(vector: jax.Array, angle: jax.Array) -> jax.Array:
    """Return vectors [..., 3] turned about z by angles [...], rad."""
    x, y, z = jnp.moveaxis(vector, -1, 0)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos * x - sin * y, sin * x + cos * y, jnp.broadcast_to(z, angle.shape)], -1)


def foot_contacts(anatomy: Anatomy, qpos: jax.Array) -> jax.Array:
    """Return whether each ankle segment touches the floor, bool [4].

    This uses the heights of its two ends rather than the simulator's contacts: a capsule touches a
    plane where one of its ends does, and so both engines feel the same in the same state.
    """
    hip, ankle = qpos[7::2], qpos[8::2]
    knee = anatomy.hip + turned(anatomy.knee, hip)
    # The axis is at a right angle to the foot: turning about it mixes foot and axis x foot.
    foot = anatomy.foot * jnp.cos(ankle)[:, None] + anatomy.swing * jnp.sin(ankle)[:, None]
    ends = jnp.stack([knee, knee + turned(foot, hip)])
    w, x, y, z = qpos[3:7]
    up = jnp.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)])
    return (qpos[2] + (ends * up).sum(-1)).min(0) - anatomy.radius <= TOUCH


def euler(quaternion: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return roll, pitch and yaw, rad, of a unit quaternion w, x, y, z: about fixed x, then y, then
    z.
    """
    w, x, y, z = quaternion
    roll = jnp.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = jnp.arcsin(jnp.clip(2 * (w * y - z * x), -1, 1))
    return roll, pitch, jnp.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def joint_positions(anatomy: Anatomy, qpos: jax.Array) -> jax.Array:
    """Return each joint's position [8] in its range: -1 at the lower limit, 1 at the upper."""
    return (qpos[7:] - anatomy.middle) / anatomy.reach


def observe(
    anatomy: Anatomy, qpos: jax.Array, qvel: jax.Array, initial_height: jax.Array
) -> jax.Array:
    """Return the observation of pybullet's walkers, float [28], each within -5..5.

    Height above the initial one, sine and cosine of the angle to the target, 0.3 * the torso's
    velocity ahead, leftwards and upwards, roll, pitch; for each joint its position in its range and
    0.1 * its velocity; for each foot 1 if it touches the floor. m, m/s, rad, rad/s.
    """
    chex.assert_shape([qpos, qvel], [(15,), (14,)])
    roll, pitch, yaw = euler(qpos[3:7])
    angle = jnp.arctan2(-qpos[1], TARGET - qpos[0]) - yaw
    torso = jnp.stack([qpos[2] - initial_height, jnp.sin(angle), jnp.cos(angle)])
    joints = jnp.stack([joint_positions(anatomy, qpos), 0.1 * qvel[6:]], axis=1).ravel()
    parts = [torso, 0.3 * turned(qvel[:3], -yaw), jnp.stack([roll, pitch]), joints]
    return jnp.clip(jnp.concatenate([*parts, foot_contacts(anatomy, qpos)]), -5, 5)


def progress(before: jax.Array, after: jax.Array) -> jax.Array:
    """Return how much nearer to the target, m/s, a control step brought the torso; places x, y [2].

    The difference of two distances of a kilometre, d0 - d1 = (d0^2 - d1^2) / (d0 + d1), has the
    squares' difference multiplied out: computed directly it would lose the millimetres in 32 bits.
    """
    target = jnp.array([TARGET, 0.0])
    distances = jnp.linalg.norm(target - before) + jnp.linalg.norm(target - after)
    return (after - before) @ (2 * target - before - after) / distances / CONTROL_STEP


class Episode(NamedTuple):
    """State of an episode besides the body's.

    initial_height: the torso's at the reset, m.
    steps: control steps so far.
    negatives: number of the latest steps in a row with negative progress.
    """

    initial_height: jax.Array
    steps: jax.Array
    negatives: jax.Array


def init_episode(qpos: jax.Array) -> Episode:
    """Return an episode's state from qpos [15] at its reset."""
    return Episode(qpos[2], jnp.int32(0), jnp.int32(0))


def judge(
    episode: Episode, before: jax.Array, qpos: jax.Array, qvel: jax.Array
) -> tuple[Episode, jax.Array, jax.Array]:
    """Return an episode's state after a control step, the step's reward, and whether it is done.

    The reward is the progress, m/s. After step `GRACE`, counted from 0, an episode is done when the
    torso is not above `LOWEST` or more than `PATIENCE` rewards in a row, all after that step, were
    negative. A body whose state is not finite gets a reward of NaN and is done.

    Args:
        episode: the state before the step.
        before: the torso's x and y before the step, float [2].
        qpos, qvel: after the step, float [15] and [14].
    """
    chex.assert_shape([before, qpos, qvel], [(2,), (15,), (14,)])
    gained, fallen = progress(before, qpos[:2]), qpos[2] <= LOWEST
    judged = episode.steps > GRACE
    negatives = jnp.where(judged & (gained < 0), episode.negatives + 1, 0)
    diverged = ~(jnp.isfinite(qpos).all() & jnp.isfinite(qvel).all())
    done = diverged | (judged & (fallen | (negatives > PATIENCE)))
    after = Episode(episode.initial_height, episode.steps + 1, negatives)
    return after, jnp.where(diverged, jnp.nan, gained), done
