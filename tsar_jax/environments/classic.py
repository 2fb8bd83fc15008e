"""Two classic control tasks as pure functions, equal to Gymnasium's CartPole-v1 and Pendulum-v1.

Barto, Sutton and Anderson (1983), "Neuronlike adaptive elements that can solve difficult learning
control problems", IEEE Transactions on Systems, Man, and Cybernetics 13, give the cart and pole,
here without friction. The pendulum, and the constants of both, are those of Gymnasium's
documentation (gymnasium.farama.org/environments/classic_control).
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from tsar_jax.environments.types import Environment

CART_MASS = 1.0  # kg
POLE_MASS = 0.1  # kg
TOTAL_MASS = CART_MASS + POLE_MASS
HALF_POLE = 0.5  # m, from the joint to the pole's centre of mass
PUSH = 10.0  # N
CART_GRAVITY = 9.8  # m/s^2
CART_INTERVAL = 0.02  # s
CART_TRACK = 2.4  # m, to either side
CART_TILT = math.radians(12)

PENDULUM_MASS = 1.0  # kg
PENDULUM_LENGTH = 1.0  # m
PENDULUM_GRAVITY = 10.0  # m/s^2
PENDULUM_INTERVAL = 0.05  # s
MAX_TORQUE = 2.0  # N m
MAX_SPEED = 8.0  # rad/s


class CartPole(NamedTuple):
    """State of a cart on a track and the pole on it; all scalars.

    x: m from the middle, x_dot: m/s, theta: rad from upright, theta_dot: rad/s.
    """

    x: jax.Array
    x_dot: jax.Array
    theta: jax.Array
    theta_dot: jax.Array


class Pendulum(NamedTuple):
    """State of a rod on a fixed joint; scalars. theta: rad from upright, not wrapped, theta_dot:
    rad/s.
    """

    theta: jax.Array
    theta_dot: jax.Array


def cart_pole() -> Environment:
    """Return the task of balancing a pole by pushing its cart left (action 0) or right (1).

    The reward is 1 per step. Observation [4]: the fields of `CartPole`. Done when the pole has
    tilted by more than 12 degrees or the cart has left the track.
    """
    return Environment(
        reset=_reset_cart_pole,
        observe=lambda state: jnp.stack(state),
        act=_left_or_right,
        step=_step_cart_pole,
        observation_shape=(4,),
        num_actions=2,
        max_episode_steps=500,
    )


def pendulum() -> Environment:
    """Return the task of swinging a rod up and holding it by a torque [1], clipped to 2 N m.

    The reward is -16.3 to 0. Observation [3]: cos theta, sin theta, theta_dot. Never done before
    max_episode_steps.
    """
    return Environment(
        reset=_reset_pendulum,
        observe=_observe_pendulum,
        act=_clipped_torque,
        step=_step_pendulum,
        observation_shape=(3,),
        num_actions=1,
        max_episode_steps=200,
    )


def pole_acceleration(state: CartPole, force: jax.Array) -> jax.Array:
    """Return theta_ddot, rad/s^2 (Barto et al. 1983, appendix).

    (g sin theta - cos theta (F + m_pole l theta_dot^2 sin theta) / M)
    / (l (4/3 - m_pole cos^2 theta / M)), with M = m_cart + m_pole and l half the pole.
    """
    sin, cos = jnp.sin(state.theta), jnp.cos(state.theta)
    pushed = (force + POLE_MASS * HALF_POLE * state.theta_dot**2 * sin) / TOTAL_MASS
    inertia = HALF_POLE * (4 / 3 - POLE_MASS * cos**2 / TOTAL_MASS)
    return (CART_GRAVITY * sin - cos * pushed) / inertia


def cart_acceleration(state: CartPole, force: jax.Array, theta_ddot: jax.Array) -> jax.Array:
    """Return x_ddot, m/s^2 (Barto et al. 1983, appendix).

    (F + m_pole l (theta_dot^2 sin theta - theta_ddot cos theta)) / M, with M = m_cart + m_pole and
    l half the pole.
    """
    turning = state.theta_dot**2 * jnp.sin(state.theta) - theta_ddot * jnp.cos(state.theta)
    return (force + POLE_MASS * HALF_POLE * turning) / TOTAL_MASS


def pendulum_acceleration(theta: jax.Array, torque: jax.Array) -> jax.Array:
    """Return theta_ddot = 3 g / (2 l) sin theta + 3 torque / (m l^2), rad/s^2, of a uniform rod."""
    gravity = 3 * PENDULUM_GRAVITY / (2 * PENDULUM_LENGTH) * jnp.sin(theta)
    return gravity + 3 / (PENDULUM_MASS * PENDULUM_LENGTH**2) * torque


def pendulum_reward(state: Pendulum, torque: jax.Array) -> jax.Array:
    """Return -(theta^2 + 0.1 theta_dot^2 + 0.001 torque^2), theta wrapped to -pi..pi."""
    theta = (state.theta + jnp.pi) % (2 * jnp.pi) - jnp.pi
    return -(theta**2 + 0.1 * state.theta_dot**2 + 0.001 * torque**2)


def _reset_cart_pole(key: jax.Array) -> CartPole:
    return CartPole(*jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05))


def _left_or_right(outputs: jax.Array) -> jax.Array:
    chex.assert_shape(outputs, (2,))
    return jnp.argmax(outputs)


def _step_cart_pole(state: CartPole, action: jax.Array) -> tuple[CartPole, jax.Array, jax.Array]:
    """Step by Euler's method: both positions move by the velocities before the push."""
    chex.assert_shape(action, ())
    force = PUSH * (2 * action - 1)
    theta_ddot = pole_acceleration(state, force)
    x_ddot = cart_acceleration(state, force, theta_ddot)
    new = CartPole(
        x=state.x + CART_INTERVAL * state.x_dot,
        x_dot=state.x_dot + CART_INTERVAL * x_ddot,
        theta=state.theta + CART_INTERVAL * state.theta_dot,
        theta_dot=state.theta_dot + CART_INTERVAL * theta_ddot,
    )
    done = (jnp.abs(new.x) > CART_TRACK) | (jnp.abs(new.theta) > CART_TILT)
    return new, jnp.ones_like(new.x), done


def _reset_pendulum(key: jax.Array) -> Pendulum:
    high = jnp.array([jnp.pi, 1.0])
    return Pendulum(*jax.random.uniform(key, (2,), minval=-high, maxval=high))


def _observe_pendulum(state: Pendulum) -> jax.Array:
    return jnp.stack([jnp.cos(state.theta), jnp.sin(state.theta), state.theta_dot])


def _clipped_torque(outputs: jax.Array) -> jax.Array:
    chex.assert_shape(outputs, (1,))
    return jnp.clip(outputs, -MAX_TORQUE, MAX_TORQUE)


def _step_pendulum(state: Pendulum, action: jax.Array) -> tuple[Pendulum, jax.Array, jax.Array]:
    """Step by semi-implicit Euler: the angle moves by the velocity after the torque."""
    chex.assert_shape(action, (1,))
    torque = action[0]
    theta_ddot = pendulum_acceleration(state.theta, torque)
    faster = state.theta_dot + PENDULUM_INTERVAL * theta_ddot
    theta_dot = jnp.clip(faster, -MAX_SPEED, MAX_SPEED)
    new = Pendulum(state.theta + PENDULUM_INTERVAL * theta_dot, theta_dot)
    return new, pendulum_reward(state, torque), jnp.array(False)
