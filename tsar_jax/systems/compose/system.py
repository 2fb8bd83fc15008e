"""Meta-training of a composition: learner, modulation, stream and meta-optimiser together."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from tsar_jax.devices import map_over, on_all_devices
from tsar_jax.environments.types import Environment
from tsar_jax.errors import SIDE, UserError, check_known
from tsar_jax.meta.persistent import Parts
from tsar_jax.networks.layers import Trunk
from tsar_jax.plasticity.learner import Learner, unroll
from tsar_jax.plasticity.losses import accuracy, cross_entropy
from tsar_jax.systems.compose.config import PERCEPTRON, ComposeConfig, refuse_settings
from tsar_jax.systems.compose.learners import FEEDBACK, WEIGHTS, Component, Theta
from tsar_jax.systems.compose.meta_optimisers import (
    META_OPTIMISERS,
    MetaObjective,
    MetaOptimiser,
    find_descent,
)
from tsar_jax.systems.compose.methods import find_learner
from tsar_jax.systems.compose.modulations import HEADS, MODULATIONS, MODULATOR, Widths
from tsar_jax.systems.compose.networks import MICROBATCH, perceptron
from tsar_jax.systems.compose.streams import STREAMS, ImageStream, Stream
from tsar_jax.training.system import Arrays, Metrics, System

GATES_IN_ADVANCE = 2**26
"""Most gates of synapses that are computed in advance, of all images together: 256 MB."""
ENCODER = "encoder"
"""Name in theta, and within the modulator, of convolutions that do not change in a lifetime."""


class Composition(NamedTuple):
    """A modulated learner with the encoders of its inputs.

    init: (key) -> all of theta.
    learner: theta as of complete, inputs pairs (code, features); aux of an update: the outputs
        before.
    sense: (theta, inputs [N, ...]) -> what modulator and network see of them: codes [N, code], or
        gates [N, ...] that are computed in advance; and features [N, features], or activations.
    meta_learned: names of the parts of theta that are meta-learned.
    forget: see `PlasticNetwork`. needs: see `Component`.
    prepare: (theta) -> theta as the learner takes it.
    """

    init: Callable[[jax.Array], Theta]
    learner: Learner
    sense: Callable[[Theta, jax.Array], tuple[Any, jax.Array]]
    meta_learned: tuple[str, ...]
    forget: Callable[[Any, jax.Array, jax.Array], Any]
    needs: tuple[str, ...] | None
    prepare: Callable[[Theta], Theta]

    def first(self, key: jax.Array) -> Theta:
        """Return the meta-learned parts of theta before the first step."""
        return {name: tree for name, tree in self.init(key).items() if name in self.meta_learned}

    def complete(self, meta_learned: Theta, key: jax.Array) -> Theta:
        """Return all of theta as a lifetime's learner takes it: what is not meta-learned is drawn
        with its key.
        """
        return self.prepare(self.init(key) | meta_learned)


def compose(config: ComposeConfig, stream: Stream, *, images: int = 1) -> Composition:
    """Return the composition that a config names, for a stream's inputs and outputs.

    Args:
        config: the choices.
        stream: what a lifetime learns.
        images: number of images that the modulator sees together, of all lifetimes side by side:
            where its gates of them are few enough, they are computed in advance.

    Raises:
        UserError: there is no learner or modulation of the name, they do not fit together or to the
            stream, or theta has no part of a name.
    """
    labelled = isinstance(stream, ImageStream)
    encoder = modulator_encoder = None
    if isinstance(stream, ImageStream):
        width, outputs = math.prod(stream.shape), stream.outputs
        if config.network == PERCEPTRON:
            encoder = find_trunk("encoder", config.encoder, config.channels, stream)
        if config.modulation != "none":
            modulator_encoder = find_trunk(
                "modulator_encoder", config.modulator_encoder, config.modulator_channels, stream
            )
    else:
        width, outputs = check_vector(config, stream), stream.num_actions
    sizes = (9 * config.channels if encoder else width, *config.hidden, outputs)
    code = 9 * config.modulator_channels if modulator_encoder else width
    plain = find_learner(config.learner)(config, sizes, labelled)
    network = plain.network or perceptron(config, sizes)
    check_network(config, plain, stream)
    gates = sum(math.prod(synapse.shape) for synapse in jax.tree.leaves(network.synapses))
    widths = Widths(
        code, network.width, network.synapses, labelled, images * gates <= GATES_IN_ADVANCE
    )
    component = MODULATIONS.find(config.modulation)(config, plain, widths)

    def init(key: jax.Array) -> Theta:
        own_key, encoder_key, modulator_key = jax.random.split(key, 3)
        theta = component.init(own_key)
        if encoder:
            theta[ENCODER] = init_trunk(encoder, encoder_key)
        if MODULATOR in theta and modulator_encoder:
            drawn = init_trunk(modulator_encoder, modulator_key)
            theta[MODULATOR] = {**theta[MODULATOR], ENCODER: drawn}
        return theta

    def sense(theta: Theta, inputs: jax.Array) -> tuple[Any, jax.Array]:
        flat = inputs.reshape(inputs.shape[0], -1)
        if encoder:
            features = run_trunk(encoder, theta[ENCODER], inputs)
        else:
            features = network.ahead(theta[WEIGHTS], inputs) if network.on_images else flat
        if MODULATOR not in theta:
            return jnp.zeros((len(flat), 0)), features
        own = theta[MODULATOR]
        codes = flat
        if modulator_encoder:
            codes = run_trunk(modulator_encoder, own[ENCODER], inputs)
        if component.in_advance is not None:
            return component.in_advance(own[HEADS], codes), features
        return codes, features

    parts = jax.eval_shape(lambda: init(jax.random.key(0)))
    recommended = (*component.recommended, ENCODER, MODULATOR)
    for name in config.meta_learned:
        check_known("part of theta", name, parts)
        if not jax.tree.leaves(parts[name]):
            raise UserError(f"{name} is empty under these settings: leave it out of meta_learned.")
    names = config.meta_learned or tuple(name for name in recommended if name in parts)
    inverted = config.remat == "reconstruct" and component.learner.inverse is not None
    needs = component.needs if inverted else None
    return Composition(
        init, component.learner, sense, names, network.forget, needs, component.prepare
    )


def check_network(config: ComposeConfig, component: Component, stream: Stream) -> None:
    """Raise UserError where the network that a config names fits neither learner nor stream."""
    if config.network == PERCEPTRON:
        return
    if component.network is None:
        raise UserError(
            f"The learner {config.learner} changes a perceptron, not the network {config.network}: "
            "take sgd or adam, or the network perceptron."
        )
    refuse_settings(config, f"network {config.network}", "units", "initial")
    if component.network.on_images and not (
        isinstance(stream, ImageStream) and stream.shape == (SIDE, SIDE)
    ):
        raise UserError(
            f"The network {config.network} takes images of {SIDE}x{SIDE}, which {config.stream} "
            "does not have: take the network perceptron."
        )


def check_vector(config: ComposeConfig, environment: Environment) -> int:
    """Return the length of an environment's observations. Raises UserError unless it has one."""
    if len(environment.observation_shape) != 1:
        raise UserError(
            f"The observations of {config.stream} are of shape {environment.observation_shape}, "
            "but a perceptron takes vectors: choose another stream."
        )
    return environment.observation_shape[0]


def find_trunk(setting: str, encoder: str, channels: int, stream: ImageStream) -> Trunk | None:
    """Return the convolutions that encode a stream's images; None: their pixels are taken.

    Args:
        setting: name of the encoder in the config, for the message.
        encoder, channels: its kind and width.
        stream: of images.

    Raises:
        UserError: the images are too small or large for the convolutions.
    """
    if encoder == "pixels":
        return None
    if stream.shape != (SIDE, SIDE):
        height, width = stream.shape
        raise UserError(
            f"{setting} is conv, whose images are {SIDE}x{SIDE}, but the stream's are "
            f"{height}x{width}: take pixels."
        )
    return Trunk(channels, MICROBATCH)


def init_trunk(trunk: Trunk, key: jax.Array) -> Any:
    """Return parameters of convolutions, without running them."""
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 1), jnp.float32)
    return trunk.lazy_init(key, image)["params"]


def run_trunk(trunk: Trunk, params: Any, images: jax.Array) -> jax.Array:
    """Return the features [N, 9 * channels] of images [N, 28, 28, 1]."""
    features: Any = trunk.apply({"params": params}, images)
    return jnp.asarray(features)


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
    draw = stream.draw_test if test and stream.draw_test else stream.draw

    def whole(theta: Theta, key: jax.Array) -> tuple[jax.Array, Metrics]:
        keys = lifetime_keys(key)
        episode = draw(images, keys.stream, classes)
        full = composition.complete(theta, keys.theta)
        seen = sense(full, episode.images), episode.labels

        def at(rows: jax.Array | None) -> Any:
            return seen if rows is None else jax.tree.map(lambda leaf: leaf[rows], seen)

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

    def live(full: Theta, learned: Any, world: Any, update_key: jax.Array) -> tuple[Any, ...]:
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
            *after, reward, ended = live(full, learned, world, update_key)
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
            learned, world, earned, time, _ = carry
            update_key = jax.random.fold_in(keys.updates, time)
            learned, world, reward, done = live(full, learned, world, update_key)
            return learned, world, earned + reward, time + 1, done

        learned, world, done = init(theta, key)
        start = learned, world, jnp.zeros(()), jnp.zeros((), jnp.int32), done
        # No step is computed after the last lifetime's end, of those side by side.
        earned = lax.while_loop(running, step, start)[2]
        return -earned, {"episode_return": earned}

    return MetaObjective(whole, Parts(number, init, advance))


@struct.dataclass
class State:
    """State of meta-training: the meta-learned parts of theta, the state of Adam or SGD, and what
    the meta-optimiser keeps.
    """

    theta: Theta
    opt_state: optax.OptState
    estimator: Any


def find_stream(config: ComposeConfig) -> Stream:
    """Return the stream that a config names. Raises UserError where there is none."""
    return STREAMS.find(config.stream)(config)


def check_meta_optimiser(
    config: ComposeConfig, composition: Composition, meta: MetaOptimiser, stream: Stream
) -> None:
    """Raise UserError where a meta-optimiser does not fit to what it is to improve."""
    if meta.needs_gradient and not isinstance(stream, ImageStream):
        raise UserError(
            f"The reward of {config.stream} has no gradient with respect to the weights, because "
            f"actions are chosen outside the learner: take openai_es or pes for {config.stream}."
        )
    if meta.needs_gradient and FEEDBACK in composition.meta_learned:
        raise UserError(
            "No gradient reaches the feedback weights: leave feedback out of meta_learned, or take "
            "openai_es or pes."
        )
    if (
        meta.needs_gradient
        and config.remat == "reconstruct"
        and composition.learner.inverse is not None
        and ENCODER in composition.meta_learned
    ):
        raise UserError(
            "Where updates are inverted (remat is reconstruct) no gradient reaches the encoder: "
            "take remat store, or name meta_learned parts without encoder."
        )
    if meta.lifetime_keys is None and isinstance(stream, ImageStream) and stream.forgets:
        raise UserError(
            f"The stream {config.stream} draws output rows anew before each meta-step, for which "
            f"{config.meta_optimiser} has too many lifetimes: take gradient, or the stream "
            "characters."
        )
    if meta.by_parts and isinstance(stream, ImageStream):
        length = stream.length(config.classes)
        if length % min(config.segment, length):
            raise UserError(
                f"segment is {config.segment}, which does not divide the {length} examples of a "
                "lifetime: choose a number that does."
            )


def make_system(config: ComposeConfig, stream: Stream) -> System:
    """Return the meta-training of a composition. Its data are those of an `ImageStream`, or ().

    Raises:
        UserError: a choice is unknown, or the four do not fit together.
    """
    composition = compose(config, stream)
    meta = META_OPTIMISERS.find(config.meta_optimiser)(config)
    optimiser = find_descent(config)
    check_meta_optimiser(config, composition, meta, stream)
    side_by_side = config.lifetimes * (1 if meta.needs_gradient else config.population)

    def objective(data: Any, split: str) -> MetaObjective:
        if not isinstance(stream, ImageStream):
            return environment_objective(config, composition, stream)
        train = split == "train"
        classes = config.classes if train else stream.eval_classes
        draw = stream.draw if train else stream.draw_test or stream.draw
        like = jax.eval_shape(lambda images: draw(images, jax.random.key(0), classes), data[split])
        seen_together = like.labels.shape[0] * (side_by_side if train else 1)
        composed = compose(config, stream, images=seen_together)
        return image_objective(config, composed, stream, data[split], classes, test=not train)

    def init(key: jax.Array) -> State:
        theta_key, estimator_key = jax.random.split(key)
        theta = composition.first(theta_key)
        estimator = meta.init(partial(init_lifetime, composition, stream), theta, estimator_key)
        return on_all_devices(State(theta, optimiser.init(theta), estimator))

    def step(state: State, data: Any, key: jax.Array) -> tuple[State, Metrics, Arrays]:
        lives, theta = objective(data, "train"), state.theta
        if meta.lifetime_keys is not None:
            theta = lives.prepare(theta, meta.lifetime_keys(key))
        estimate, estimator = meta.estimate(lives, theta, state.estimator, key)
        updates, opt_state = optimiser.update(estimate.gradient, state.opt_state, theta)
        theta = optax.apply_updates(theta, updates)
        after = on_all_devices(State(theta, opt_state, estimator))
        return after, {"loss": estimate.loss, **estimate.metrics}, {}

    def evaluate(state: State, data: Any, key: jax.Array) -> Metrics:
        def of_lifetime(key: jax.Array, shared: Any) -> tuple[jax.Array, Metrics]:
            theta, data = shared
            lives = objective(data, "test")
            return lives.whole(lives.prepare(theta, key[None]), key)

        keys = jax.random.split(key, config.eval_lifetimes)
        many = map_over(of_lifetime, config.eval_lifetimes)
        losses, metrics = many(keys, (state.theta, data))
        return {"loss": losses.mean(), **jax.tree.map(lambda leaf: leaf.mean(0), metrics)}

    return System(init, step, evaluate)
