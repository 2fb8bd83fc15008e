"""Quadrupeds in MuJoCo itself, many in lockstep on the cores of a CPU."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.devices import usable_cores
from tsar_jax.environments import quadruped
from tsar_jax.environments.quadruped import Episode
from tsar_jax.environments.quadruped_body import (
    Anatomy,
    Body,
    build_model,
    find_anatomy,
    load_simulator,
    motor_order,
)
from tsar_jax.environments.seeds import checked_seeds
from tsar_jax.environments.types import HostEnvironments
from tsar_jax.errors import UserError

QPOS, QVEL = slice(1, 16), slice(16, 30)
"""Slices of MuJoCo's physics state [30] that hold qpos and qvel; entry 0 is the time."""


class MujocoQuadrupeds(HostEnvironments):
    """Quadrupeds, each with its own body, in lockstep; a reward is a step's progress, m/s.

    How a member moves depends on its seed and its outputs alone, to the last bit: neither on the
    other members nor on the number of threads. A member whose simulation diverges gets a reward of
    NaN for that step and is done; one that is done is not simulated any more.
    """

    observation_shape = quadruped.OBSERVATION_SHAPE
    num_actions = quadruped.NUM_ACTIONS
    max_episode_steps = quadruped.MAX_EPISODE_STEPS

    def __init__(self, bodies: Sequence[Body], threads: int | None = None) -> None:
        """Create one member per body.

        Args:
            bodies: one for each member.
            threads: number of threads; None: all cores that this process may use.

        Raises:
            UserError: mujoco or gymnasium is missing, or there are no bodies.
        """
        if not bodies:
            raise UserError("There is no quadruped without a body: name at least one.")
        mujoco = load_simulator()
        from mujoco import rollout

        models = {body: build_model(body) for body in set(bodies)}
        anatomies = {body: find_anatomy(model) for body, model in models.items()}
        threads = threads or usable_cores()
        self.count = len(bodies)
        self._models = [models[body] for body in bodies]
        self._scratch = [mujoco.MjData(self._models[0]) for _ in range(threads)]
        self._pool = rollout.Rollout(nthread=threads)
        self._motors = motor_order(self._models[0])
        self._step_time = quadruped.SIMULATOR_STEPS * self._models[0].opt.timestep
        # Observations are computed on the CPU: for an accelerator the transfer would dominate.
        self._cpu = jax.local_devices(backend="cpu")[0]
        rows = [anatomies[body] for body in bodies]
        with jax.default_device(self._cpu):
            self._anatomy = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *rows)
            self._episode = jax.vmap(quadruped.init_episode)(jnp.zeros((self.count, 15)))
        self._physics = np.zeros((self.count, QVEL.stop))
        self._live = np.zeros(self.count, bool)

    @property
    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """Return every body's position and motion: MuJoCo's qpos [count, 15], qvel [count, 14]."""
        return self._physics[:, QPOS].copy(), self._physics[:, QVEL].copy()

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begin an episode in each, from seeds uint32 [count]; return observations [count, 28].

        A seed begins the episode that `jax.random.key(seed)` begins in the other engine.

        Raises:
            UserError: there is another number of seeds, or one is no integer in [0, 2**32).
        """
        with jax.default_device(self._cpu):
            # Drawn one by one: in a batch, the last bit would depend on the batch's size.
            starts = [_draw_initial_state(seed) for seed in checked_seeds(seeds, self.count)]
            qpos, qvel = (jnp.stack(part) for part in zip(*starts, strict=True))
            self._episode = jax.vmap(quadruped.init_episode)(qpos)
        self._physics[:, 0], self._physics[:, QPOS], self._physics[:, QVEL] = 0, qpos, qvel
        self._live[:] = True
        for _ in range(quadruped.IDLE_STEPS):
            self._simulate(np.zeros((self.count, self.num_actions)))
        with jax.default_device(self._cpu):
            return np.asarray(_observe(self._anatomy, self._episode, *self.state))

    def step(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Map network outputs [count, 8] to observations [count, 28], rewards and done [count]."""
        actions = np.clip(np.asarray(outputs, np.float64), -1, 1)
        qpos, _ = self.state
        self._simulate(actions)
        with jax.default_device(self._cpu):
            observations, self._episode, progress, ended = _step(
                self._anatomy, self._episode, qpos[:, :2], *self.state
            )
        rewards = np.where(self._live, progress, 0)
        self._live &= ~np.asarray(ended)
        return np.asarray(observations), rewards, ~self._live

    def close(self) -> None:
        """End the threads."""
        self._pool.close()

    def _simulate(self, actions: np.ndarray) -> None:
        """Simulate a control step, actions [count, 8], of members that are not done.

        The solver starts cold at each control step, so that a step depends on the state alone. The
        state of a member that diverges becomes NaN.
        """
        live = np.flatnonzero(self._live)
        if not live.size:
            return
        start = self._physics[live]
        control = np.repeat(actions[live][:, None, self._motors], quadruped.SIMULATOR_STEPS, 1)
        states = np.empty((*control.shape[:2], start.shape[1]))
        self._pool.rollout(
            [self._models[member] for member in live],
            self._scratch,
            start,
            control,
            nstep=quadruped.SIMULATOR_STEPS,
            state=states,
            sensordata=np.empty((*control.shape[:2], 0)),
            skip_checks=True,
        )
        end = states[:, -1]
        # MuJoCo resets a simulation that has diverged to time 0, and simulates it no further.
        elapsed = end[:, 0] - start[:, 0]
        end[~(np.abs(elapsed - self._step_time) < self._step_time / 10)] = np.nan
        self._physics[live] = end


@jax.jit
def _draw_initial_state(seed: jax.Array) -> tuple[jax.Array, jax.Array]:
    return quadruped.draw_initial_state(jax.random.key(seed))


@jax.jit
@jax.vmap
def _observe(anatomy: Anatomy, episode: Episode, qpos: jax.Array, qvel: jax.Array) -> jax.Array:
    return quadruped.observe(anatomy, qpos, qvel, episode.initial_height)


@jax.jit
@jax.vmap
def _step(
    anatomy: Anatomy,
    episode: Episode,
    before: jax.Array,
    qpos: jax.Array,
    qvel: jax.Array,
) -> tuple[jax.Array, Episode, jax.Array, jax.Array]:
    observation = quadruped.observe(anatomy, qpos, qvel, episode.initial_height)
    return observation, *quadruped.judge(episode, before, qpos, qvel)
