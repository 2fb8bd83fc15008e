"""Lifetimes of a composition, on a stream of images or in an environment, and their loss."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tsar_jax.environments.types import Environment
from tsar_jax.meta.persistent import Parts
from tsar_jax.plasticity.learner import unroll
from tsar_jax.plasticity.losses import accuracy, cross_entropy
from tsar_jax.systems.compose.composition import Composition
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.learners import WEIGHTS, Theta
from tsar_jax.systems.compose.meta_optimisers import MetaObjective
from tsar_jax.systems.compose.streams import ImageStream, Stream
from tsar_jax.training.system import Metrics


class LifetimeKeys(NamedTuple):
    """Keys of a lifetime: its draw of the stream or environment, what is not meta-learned, the
    learner's first state, its updates, and output rows that are forgotten before it.
    """

    stream: jax.Array
    theta: jax.Array
    state: jax.Array
    updates: jax.Array
    forget: jax.Array


def lifetime_keys(key: jax.Array) -> LifetimeKeys:
    """Return the keys of a lifetime from its own."""
    return LifetimeKeys(*jax.random.split(key, 5))


def image_objective(
    config: ComposeConfig,
    composition: Composition,
    stream: ImageStream,
    images: jax.Array,
    classes: int,
    *,
    test: bool = False,
) -> MetaObjective:
    """Return lifetimes on a stream of images.

    The loss of a whole one is the cross-entropy on its query set at the end; that of a part the
    mean cross-entropy of its predictions before each update. Metrics are "accuracy", on the query
    set, and "online_accuracy", of the predictions, unless updates are inverted.

    Args:
        config: the settings.
        composition: what learns.
        stream: of the images.
        images: that lifetimes are drawn from, uint8 [classes, per_class, H, W].
        classes: of a lifetime.
        test: whether lifetimes are drawn as in evaluations.
    """
    learner, sense = composition.learner, composition.sense
    draw = stream.drawing(test=test)

    def whole(theta: Theta, key: jax.Array) -> tuple[jax.Array, Metrics]:
        keys = lifetime_keys(key)
        episode = draw(images, keys.stream, classes)
        full = composition.complete(theta, keys.theta)
        sensed = sense(full, episode.images), episode.labels

        def at(rows: jax.Array | None) -> Any:
            return sensed if rows is None else jax.tree.map(lambda leaf: leaf[rows], sensed)

        examples, (query, labels) = at(episode.trajectory), at(episode.query)
        initial = learner.init(full, keys.state)
        given = full if composition.needs is None else {n: full[n] for n in composition.needs}
        state, outputs = unroll(learner, given, initial, examples, keys.updates, remat=config.remat)
        logits = learner.predict(full, state, query)
        metrics = {"accuracy": accuracy(logits, labels)}
        if jax.tree.leaves(outputs):
            metrics["online_accuracy"] = accuracy(outputs, examples[1])
        return cross_entropy(logits, labels), metrics

    length = stream.length(classes)
    segment = min(config.segment, length)

    def advance(
        theta: Theta, state: Any, part: jax.Array, key: jax.Array
    ) -> tuple[Any, jax.Array, Metrics]:
        keys = lifetime_keys(key)
        episode = draw(images, keys.stream, classes)
        full = composition.complete(theta, keys.theta)

        def at(rows: jax.Array | None) -> Any:
            inputs, labels = episode.images, episode.labels
            if rows is not None:
                inputs, labels = inputs[rows], labels[rows]
            return sense(full, inputs), labels

        learned = at(lax.dynamic_slice_in_dim(episode.trajectory, part * segment, segment))
        update_key = jax.random.fold_in(keys.updates, part)
        state, outputs = unroll(learner, full, state, learned, update_key)
        query, labels = at(episode.query)
        correct = accuracy(learner.predict(full, state, query), labels)
        metrics = {"accuracy": correct, "online_accuracy": accuracy(outputs, learned[1])}
        return state, cross_entropy(outputs, learned[1]), metrics

    def prepare(theta: Theta, keys: jax.Array) -> Theta:
        if not stream.forgets or WEIGHTS not in theta:
            return theta
        episodes = jax.vmap(lambda key: draw(images, lifetime_keys(key).stream, classes))(keys)
        forgotten = episodes.reset_classes.reshape(-1)
        forget_key = lifetime_keys(keys[0]).forget
        return theta | {WEIGHTS: composition.forget(theta[WEIGHTS], forgotten, forget_key)}

    init = partial(init_lifetime, composition, stream)
    return MetaObjective(whole, Parts(length // segment, init, advance), prepare)


def init_lifetime(composition: Composition, stream: Stream, theta: Theta, key: jax.Array) -> Any:
    """Return a lifetime's state before its first part: the learner's, and in an environment also
    that of the environment and whether the episode is over.
    """
    keys = lifetime_keys(key)
    state = composition.learner.init(composition.complete(theta, keys.theta), keys.state)
    if isinstance(stream, ImageStream):
        return state
    return state, stream.reset(keys.stream), jnp.zeros((), bool)


def environment_objective(
    config: ComposeConfig, composition: Composition, environment: Environment
) -> MetaObjective:
    """Return lifetimes in an environment: the loss is minus the sum of rewards, of a part too.

    The learner sees an observation at each step and no target; its outputs before the update act.
    """
    learner, sense = composition.learner, composition.sense
    segment = min(config.segment, environment.max_episode_steps)
    number = -(-environment.max_episode_steps // segment)
    init = partial(init_lifetime, composition, environment)

    def time_step(full: Theta, learned: Any, world: Any, update_key: jax.Array) -> tuple[Any, ...]:
        """Return learner and world after a step, its reward, and whether it ended the episode."""
        rows = sense(full, environment.observe(world)[None])
        inputs = jax.tree.map(lambda leaf: leaf[0], rows)
        learned, outputs = learner.update(full, learned, (inputs, jnp.zeros(0)), update_key)
        return learned, *environment.step(world, environment.act(outputs))

    def advance(
        theta: Theta, state: Any, part: jax.Array, key: jax.Array
    ) -> tuple[Any, jax.Array, Metrics]:
        keys = lifetime_keys(key)
        full = composition.complete(theta, keys.theta)

        def step(carry: Any, time: jax.Array) -> tuple[Any, jax.Array]:
            learned, world, done = carry
            update_key = jax.random.fold_in(keys.updates, time)
            *after, reward, ended = time_step(full, learned, world, update_key)
            over = done | (time >= environment.max_episode_steps)
            carry = jax.tree.map(partial(jnp.where, over), (learned, world), tuple(after))
            return (*carry, over | ended), jnp.where(over, 0.0, reward)

        state, rewards = lax.scan(step, state, part * segment + jnp.arange(segment))
        return state, -rewards.sum(), {"part_return": rewards.sum()}

    def whole(theta: Theta, key: jax.Array) -> tuple[jax.Array, Metrics]:
        keys = lifetime_keys(key)
        full = composition.complete(theta, keys.theta)

        def running(carry: Any) -> jax.Array:
            *_, time, done = carry
            return ~done & (time < environment.max_episode_steps)

        def step(carry: Any) -> Any:
            learned, world, episode_return, time, _ = carry
            update_key = jax.random.fold_in(keys.updates, time)
            learned, world, reward, done = time_step(full, learned, world, update_key)
            return learned, world, episode_return + reward, time + 1, done

        learned, world, done = init(theta, key)
        start = learned, world, jnp.zeros(()), jnp.zeros((), jnp.int32), done
        # No step is computed after the last lifetime's end, of those side by side.
        episode_return = lax.while_loop(running, step, start)[2]
        return -episode_return, {"episode_return": episode_return}

    return MetaObjective(whole, Parts(number, init, advance))
