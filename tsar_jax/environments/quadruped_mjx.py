"""The quadruped in MuJoCo's JAX version, compiled together with the policy that acts in it."""

import contextlib
import io
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.environments import quadruped as rules
from tsar_jax.environments.quadruped import Body, Episode
from tsar_jax.environments.types import Environment
from tsar_jax.errors import missing_extra


class State(NamedTuple):
    """Positions qpos [15] and velocities qvel [14] in MuJoCo's order, and the episode's state."""

    qpos: jax.Array
    qvel: jax.Array
    episode: Episode


def quadruped(body: Body) -> Environment:
    """Return the quadruped as an `Environment`; rewards are progress, m/s.

    The state is small, because each control step starts the solver cold, as the other engine does.
    MJX differs from MuJoCo in one thing: where a limb on the floor is within 30 degrees of upright,
    it lays the pyramid that stands for the friction cone along fixed axes, not along the limb.
    It computes in 64 bits where `jax.enable_x64` is on both when this is called and when it is
    compiled, else in 32.

    Raises:
        UserError: mujoco, mujoco-mjx or gymnasium is missing.
    """
    model = rules.build_model(body)
    try:
        # mjx prints that it cannot import warp, which this engine does not use.
        with contextlib.redirect_stdout(io.StringIO()):
            from mujoco import mjx
    except ImportError:
        raise missing_extra("The engine mjx", "mujoco-mjx", "environments") from None
    anatomy, motors = rules.find_anatomy(model), rules.motor_order(model)
    compiled, blank = mjx.put_model(model), mjx.make_data(model)

    def simulate(
        qpos: jax.Array, qvel: jax.Array, action: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        data = blank.replace(qpos=qpos, qvel=qvel, ctrl=action[motors])
        data = lax.fori_loop(
            0, rules.SIMULATOR_STEPS, lambda _, data: mjx.step(compiled, data), data
        )
        return data.qpos, data.qvel

    def reset(key: jax.Array) -> State:
        qpos, qvel = rules.draw_initial_state(key)
        episode = rules.init_episode(qpos)
        idle = jnp.zeros(rules.NUM_ACTIONS)
        qpos, qvel = lax.fori_loop(
            0, rules.IDLE_STEPS, lambda _, state: simulate(state[0], state[1], idle), (qpos, qvel)
        )
        return State(qpos, qvel, episode)

    def observe(state: State) -> jax.Array:
        return rules.observe(anatomy, state.qpos, state.qvel, state.episode.initial_height)

    def step(state: State, action: jax.Array) -> tuple[State, jax.Array, jax.Array]:
        qpos, qvel = simulate(state.qpos, state.qvel, action)
        episode, progress, done = rules.judge(state.episode, state.qpos[:2], qpos, qvel)
        return State(qpos, qvel, episode), progress, done

    return Environment(
        reset,
        observe,
        rules.act,
        step,
        rules.OBSERVATION_SHAPE,
        rules.NUM_ACTIONS,
        rules.MAX_EPISODE_STEPS,
    )
