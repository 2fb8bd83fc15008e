"""Meta-training of a composition: learner, modulation, stream and meta-optimiser together."""

from functools import partial
from typing import Any

import jax
import optax
from flax import struct

from tsar_jax.devices import map_over, on_all_devices
from tsar_jax.errors import UserError
from tsar_jax.systems.compose.composition import ENCODER, Composition, compose
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.learners import FEEDBACK, WEIGHTS, Theta
from tsar_jax.systems.compose.lifetimes import environment_objective, image_objective, init_lifetime
from tsar_jax.systems.compose.meta_optimisers import (
    META_OPTIMISERS,
    MetaObjective,
    MetaOptimiser,
    find_descent,
)
from tsar_jax.systems.compose.streams import ImageStream, Stream
from tsar_jax.training.system import Arrays, Metrics, System


@struct.dataclass
class State:
    """State of meta-training: the meta-learned parts of theta, the state of Adam or SGD, and what
    the meta-optimiser keeps.
    """

    theta: Theta
    opt_state: optax.OptState
    estimator: Any


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
    forgets = (
        isinstance(stream, ImageStream) and stream.forgets and WEIGHTS in composition.meta_learned
    )
    if forgets and meta.lifetime_keys is None:
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

    def init(key: jax.Array) -> State:
        theta_key, estimator_key = jax.random.split(key)
        theta = composition.first(theta_key)
        estimator = meta.init(partial(init_lifetime, composition, stream), theta, estimator_key)
        return on_all_devices(State(theta, optimiser.init(theta), estimator))

    def step(state: State, data: Any, key: jax.Array) -> tuple[State, Metrics, Arrays]:
        theta = state.theta
        objective = make_objective(config, stream, data, side_by_side=side_by_side)
        if meta.lifetime_keys is not None:
            theta = objective.prepare(theta, meta.lifetime_keys(key))
        estimate, estimator = meta.estimate(objective, theta, state.estimator, key)
        updates, opt_state = optimiser.update(estimate.gradient, state.opt_state, theta)
        theta = optax.apply_updates(theta, updates)
        after = on_all_devices(State(theta, opt_state, estimator))
        return after, {"loss": estimate.loss, **estimate.metrics}, {}

    def evaluate(state: State, data: Any, key: jax.Array) -> Metrics:
        keys = jax.random.split(key, config.eval_lifetimes)
        losses, metrics = evaluate_lifetimes(config, stream, state.theta, data, keys)
        return {"loss": losses.mean(), **jax.tree.map(lambda leaf: leaf.mean(0), metrics)}

    return System(init, step, evaluate)


def make_objective(
    config: ComposeConfig, stream: Stream, data: Any, *, side_by_side: int = 1, test: bool = False
) -> MetaObjective:
    """Return the loss of a lifetime of a composition.

    Args:
        config, stream, data: as of `make_system`.
        side_by_side: number of lifetimes that are lived together.
        test: whether they are those of evaluations.
    """
    if not isinstance(stream, ImageStream):
        return environment_objective(config, compose(config, stream), stream)
    classes = stream.eval_classes if test else config.classes
    draw, images = stream.drawing(test=test), data["test" if test else "train"]
    episode = jax.eval_shape(lambda images: draw(images, jax.random.key(0), classes), images)
    composition = compose(config, stream, images=episode.labels.shape[0] * side_by_side)
    return image_objective(config, composition, stream, images, classes, test=test)


def evaluate_lifetimes(
    config: ComposeConfig, stream: Stream, theta: Theta, data: Any, keys: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Return losses [n] and metrics [n] of evaluations' lifetimes, one of each key [n].

    Args:
        config, stream, data: as of `make_system`.
        theta: the meta-learned parts.
        keys: of the lifetimes.
    """

    def of_lifetime(key: jax.Array, shared: Any) -> tuple[jax.Array, Metrics]:
        theta, data = shared
        objective = make_objective(config, stream, data, test=True)
        return objective.whole(objective.prepare(theta, key[None]), key)

    scores: tuple[jax.Array, Metrics] = map_over(of_lifetime, len(keys))(keys, (theta, data))
    return scores
