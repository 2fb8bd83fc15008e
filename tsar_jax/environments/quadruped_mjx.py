"""The quadruped in MuJoCo's JAX version, compiled together with the policy that acts in it."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.environments import quadruped as rules
from tsar_jax.environments.quadruped import Episode
from tsar_jax.environments.quadruped_body import (
    Anatomy,
    Body,
    build_model,
    find_anatomy,
    motor_order,
)
from tsar_jax.environments.types import Environment, Variants
from tsar_jax.errors import missing_extra


class State(NamedTuple):
    """Positions qpos [15] and velocities qvel [14] in MuJoCo's order, and the episode's state."""

    qpos: jax.Array
    qvel: jax.Array
    episode: Episode


class _Physics(NamedTuple):
    """What distinguishes a body in the simulation. anatomy: its measures; leaves: those of MJX's
    model in which the bodies differ.
    """

    anatomy: Anatomy
    leaves: tuple[jax.Array, ...]


def quadrupeds(bodies: Sequence[Body]) -> Variants:
    """Return the quadruped in several bodies, whose measures are parameters of one program.

    Args:
        bodies: at least one, all with the same integrator.

    Raises:
        UserError: mujoco, mujoco-mjx or gymnasium is missing.
    """
    try:
        # mjx prints that it cannot import warp, which this engine does not use.
        with contextlib.redirect_stdout(io.StringIO()):
            from mujoco import mjx
    except ImportError:
        raise missing_extra("The engine mjx", "mujoco-mjx", "environments") from None
    models = [build_model(body) for body in bodies]
    anatomies = [find_anatomy(model) for model in models]
    # Bodies of one file have models of one structure: MuJoCo's compiler finds masses, inertias and
    # all that follows from a length, and only what it finds otherwise is a parameter.
    alike, *others = [mjx.put_model(model) for model in models]
    template, structure = jax.tree.flatten(alike)
    rows = [template, *(jax.tree.leaves(other) for other in others)]
    differing = [
        index
        for index, leaves in enumerate(zip(*rows, strict=True))
        if any(not np.array_equal(leaf, leaves[0]) for leaf in leaves)
    ]
    motors, blank = motor_order(models[0]), mjx.make_data(models[0])

    def make(physics: _Physics) -> Environment:
        leaves = list(template)
        for index, leaf in zip(differing, physics.leaves, strict=True):
            leaves[index] = leaf
        model = jax.tree.unflatten(structure, leaves)
        return quadruped(model, blank, physics.anatomy, motors)

    def stack(*leaves: Any) -> jax.Array:
        # By way of the host: MJX's arrays are bound to one device, parameters may go to any.
        return jnp.asarray(np.stack(leaves))

    stacked = _Physics(
        jax.tree.map(stack, *anatomies),
        tuple(stack(*(leaves[index] for leaves in rows)) for index in differing),
    )
    return Variants(make, stacked, len(bodies))


def quadruped(model: Any, blank: Any, anatomy: Anatomy, motors: np.ndarray) -> Environment:
    """Return the quadruped of one body as an `Environment`; rewards are progress, m/s.

    The state is small, because each control step starts the solver cold, as the other engine does.
    MJX differs from MuJoCo in one thing: where a limb on the floor is within 30 degrees of upright,
    it lays the pyramid that stands for the friction cone along fixed axes, not along the limb.
    It computes in 64 bits where `jax.enable_x64` is on both when the model is put into MJX and when
    the environment is compiled, else in 32.

    Args:
        model: mjx.Model of the body, whose leaves may be traced.
        blank: mjx.Data of any such model.
        anatomy: of the body.
        motors: for each motor the index of its joint, [8].
    """
    from mujoco import mjx

    def simulate(
        qpos: jax.Array, qvel: jax.Array, action: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        data = blank.replace(qpos=qpos, qvel=qvel, ctrl=action[motors])
        data = lax.fori_loop(0, rules.SIMULATOR_STEPS, lambda _, data: mjx.step(model, data), data)
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
