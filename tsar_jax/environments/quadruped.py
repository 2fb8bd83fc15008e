"""The quadruped of Najarro & Risi (2020): its observations, rewards and ends.

The original is pybullet's AntBulletEnv-v0. The body here is gymnasium's MuJoCo Ant (ant.xml as it
ships; a control step is five of 0.01 s, as Ant-v5's). The observation is pybullet's; reward and end
are the paper's, by progress alone, without pybullet's bonus and costs. A simulator supplies `qpos`
[15] and `qvel` [14] as MuJoCo orders them (torso: x, y, z, quaternion w, x, y, z; then hip and
ankle of each of `LEGS`); its bodies are in quadruped_body.

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

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from tsar_jax.environments.quadruped_body import Anatomy

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
