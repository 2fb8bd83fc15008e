"""Meta-train a network on episodes of Omniglot: what ANML, OML and TSAR share.

One meta-step (Beaulieu et al. 2020, algorithm 1): forget a class, learn its images one after
another, and improve the slow weights by the loss on the query set: those images, and random ones
of all training classes.
"""

import dataclasses
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from flax import struct

from tsar_jax.data.episodes import Episode, Pixels, draw_episode, scale_omniglot
from tsar_jax.devices import divide_last_axis, on_all_devices, spreads
from tsar_jax.errors import (
    UserError,
    check_known,
    check_limits,
    check_positive,
    check_rates,
    check_side,
)
from tsar_jax.meta.gradient import meta_gradient
from tsar_jax.networks import (
    Activations,
    Network,
    Params,
    forget_classes,
    frozen_stages,
    init_params,
    run_stages,
)
from tsar_jax.ops.mixed_precision import cast_to_float32, stochastic_round_like, to_bfloat16
from tsar_jax.plasticity.gradient_learner import current_params, network_learner
from tsar_jax.plasticity.learner import Remat, unroll
from tsar_jax.plasticity.losses import accuracy, cross_entropy
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.episodic.meta_test_lifetime import (
    LifetimeSpec,
    default_memory_budget,
    frozen_activations,
    run_lifetimes,
)
from tsar_jax.training.config import FORMERLY_ZERO, earlier
from tsar_jax.training.loop import LoopConfig
from tsar_jax.training.system import Arrays, Metrics, System


def inner_loop(
    network: Network,
    theta: Params,
    plastic: Params,
    activations: Activations,
    labels: jax.Array,
    *,
    learning_rate: float,
    first_order: bool,
    remat: bool = False,
) -> Params:
    """Learn examples one after another by SGD and return the fast weights that result.

    Args:
        theta: the slow weights.
        plastic: tree of booleans, True where they learn.
        activations: activations [T, ...] that enter the first plastic stage; they do not change
            within the loop.
        labels: classes [T].
        learning_rate: of SGD.
        first_order: whether inner gradients are constants of the meta-gradient.
        remat: whether the backward pass recomputes the loop's states.
    """
    depth = frozen_stages(network, plastic)
    sgd = optax.sgd(learning_rate)
    learner = network_learner(network, plastic, depth, sgd, first_order=first_order)
    strategy: Remat = "rematerialise" if remat else "store"
    examples = activations, labels
    fast, _ = unroll(learner, theta, learner.init(theta, None), examples, remat=strategy)
    return current_params(theta, plastic, fast)


def meta_objective(
    network: Network,
    theta: Params,
    plastic: Params,
    episode: Episode,
    *,
    learning_rate: float,
    first_order: bool,
    remat: bool = False,
) -> tuple[jax.Array, Metrics]:
    """Return the query set's cross-entropy and accuracy after the inner loop.

    Stages that do not learn see each image once, for the trajectory and the query set alike.

    Args:
        theta: the slow weights.
        plastic: tree of booleans, True where they learn.
        episode: with images normalised, [N, H, W, C].
        learning_rate, first_order, remat: see `inner_loop`.

    Returns:
        The loss [] and {"accuracy": []}.
    """
    depth = frozen_stages(network, plastic)
    activations = run_stages(network, theta, episode.images, 0, depth)

    def at(rows: jax.Array | None) -> tuple[Activations, jax.Array]:
        examples = activations, episode.labels
        return examples if rows is None else jax.tree.map(lambda x: x[rows], examples)

    fast = inner_loop(
        network,
        theta,
        plastic,
        *at(episode.trajectory),
        learning_rate=learning_rate,
        first_order=first_order,
        remat=remat,
    )
    query, labels = at(episode.query)
    logits = run_stages(network, fast, query, depth)
    return cross_entropy(logits, labels), {"accuracy": accuracy(logits, labels)}


@struct.dataclass
class State:
    """Slow weights and Adam's moments."""

    params: Params
    opt_state: optax.OptState


class Storage(NamedTuple):
    """How some parameters, by name, and Adam's moments of them are kept.

    in_bfloat16: parameters in bfloat16.
    divided: parameters divided among the devices by their last axis, where it has a multiple of
        their number.
    """

    in_bfloat16: tuple[str, ...] = ()
    divided: tuple[str, ...] = ()


WHOLE = Storage()
"""Every parameter in float32, and whole on each device that has it."""


@dataclasses.dataclass(frozen=True)
class EpisodicConfig(LoopConfig):
    """Settings of meta-training on Omniglot, whatever the network.

    Raises:
        UserError: a value is impossible.
    """

    pixels: Pixels = dataclasses.field(
        default="byte-normalised", metadata=earlier("byte-normalised")
    )
    """Input for a pixel v in 0..255: byte-normalised, (v - 236.05) / 5522.06, as in TSAR's release;
    unit-normalised, (v / 255 - 236.05) / 5522.06, as in ANML's release; or unit, v / 255."""
    outputs: int = 1000
    """Output units, at least one for each class."""
    order: Literal["first", "second"] = "first"
    """Order of the meta-gradient: first, inner gradients being constants, as in the releases; or
    second, through the inner loop."""
    remat: bool = False
    """Whether the backward pass recomputes the inner loop: memory grows with the root of its
    length."""
    plastic: tuple[str, ...] = ()
    """Parameters that learn in the inner loop, by name. None named: as published."""
    train_classes: int = 963
    """Number of background classes that are meta-trained on, the first ones."""
    tasks: int = 1
    """Classes of one trajectory."""
    inner_updates: int = 20
    """Images of a trajectory, equally many of each of its classes; one update each."""
    repeat_first: bool = False
    """Whether the first image is learned twice, one update more, as in TSAR's release."""
    reset: bool = dataclasses.field(default=True, metadata=earlier(True))
    """Whether the output rows of a trajectory's classes are drawn anew in the slow weights before
    it (the releases' --no-reset leaves them)."""
    remember: int = 64
    """Random images of all training classes in the query set, beside the trajectory's; at least
    0."""
    episodes: int = 1
    """Episodes averaged in one meta-step."""
    inner_rate: float = 0.1
    """Learning rate of the inner loop's SGD."""
    meta_rate: float = 1e-3
    """Learning rate of Adam across lifetimes."""
    microbatch: int | None = dataclasses.field(default=4, metadata=FORMERLY_ZERO)
    """Images that a convolution takes at a time on a CPU, to stay in its cache. None: all."""
    init: str | None = dataclasses.field(default=None, metadata=earlier(None))
    """Run whose weights meta-training begins with, of the same network. None: random weights."""
    eval_classes: int = 50
    """Unseen classes of the meta-test in training's evaluations (last layer learning)."""
    eval_runs: int = 3
    """Runs of the evaluations' meta-test at each learning rate."""
    eval_rates: tuple[float, ...] = (1e-3, 3e-3)
    """Learning rates of the evaluations' meta-test; the best one's mean accuracy counts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(
            self,
            "outputs",
            "tasks",
            "inner_updates",
            "episodes",
            "train_classes",
            "eval_classes",
            "eval_runs",
        )
        check_rates(self, "inner_rate", "meta_rate", "eval_rates")
        check_known("scale of pixels", self.pixels, get_args(Pixels))
        check_known("order of the meta-gradient", self.order, ("first", "second"))
        check_positive(self, "microbatch")
        if self.remember < 0:
            raise UserError(f"remember must be at least 0, but is {self.remember}.")
        if self.inner_updates % self.tasks:
            raise UserError(
                f"inner_updates ({self.inner_updates}) must be a multiple of tasks "
                f"({self.tasks}), so that each class gets an equal share."
            )


EVALUATION_POPULATION = 650
"""Number of evaluation classes that a meta-test draws its classes from, as the release does."""

EVALUATION_IMAGES = 400
"""Images of training classes on which an evaluation takes the accuracy: to within 2.5 % (standard
error)."""


def check_data(config: EpisodicConfig, data: dict[str, jax.Array]) -> None:
    """Raise UserError where the data cannot serve the config.

    Args:
        data: as in `meta_training`.
    """
    for split, array in data.items():
        check_side(f"The {split} images", array.shape[2:4])
    classes, per_class = data["background"].shape[:2]
    unseen, unseen_per_class = data["evaluation"].shape[:2]
    learned = LifetimeSpec(config.eval_classes).learn
    if unseen_per_class <= learned:
        raise UserError(
            f"The evaluation classes have {unseen_per_class} images each, but a meta-test learns "
            f"{learned} and needs others to test: use data with more."
        )
    drawn_from = min(EVALUATION_POPULATION, unseen)
    updates_per_task = config.inner_updates // config.tasks
    images = config.train_classes * per_class
    check_limits(
        ("train_classes", config.train_classes, classes, "background classes in the data"),
        ("train_classes", config.train_classes, config.outputs, "outputs"),
        ("tasks", config.tasks, config.train_classes, "training classes"),
        ("eval_classes", config.eval_classes, drawn_from, "evaluation classes to draw from"),
        ("eval_classes", config.eval_classes, config.outputs, "outputs"),
        ("inner_updates per task", updates_per_task, per_class, "images of a class"),
        ("remember", config.remember, images, "training images"),
    )


def first_state(config: EpisodicConfig, params: Params, storage: Storage = WHOLE) -> State:
    """Return the state of meta-training before its first step.

    It is on all devices where these share the episodes of a step, and in parts where parameters
    are divided.
    """
    state = State(params, optax.adam(config.meta_rate).init(params))
    state = to_bfloat16(state, storage.in_bfloat16)
    if storage.divided:
        return divide_last_axis(state, storage.divided)
    return on_all_devices(state) if spreads(config.episodes) else state


def meta_training(
    config: EpisodicConfig,
    network: Network,
    plastic_names: tuple[str, ...],
    storage: Storage = WHOLE,
) -> System:
    """Return meta-training as a system.

    Its data are {"background", "evaluation"}, images uint8 [classes, 20, 28, 28].

    Args:
        plastic_names: parameters that learn in the inner loop unless config.plastic names others.
        storage: how parameters are kept.
    """
    optimiser = optax.adam(config.meta_rate)

    def init(key: jax.Array) -> State:
        return first_state(config, init_params(network, key), storage)

    def step(
        state: State, data: dict[str, jax.Array], key: jax.Array
    ) -> tuple[State, Metrics, Arrays]:
        episode_key, forget_key, objective_key, rounding_key = jax.random.split(key, 4)
        episodes = jax.vmap(lambda k: draw(config, data["background"], k))(
            jax.random.split(episode_key, config.episodes)
        )
        theta = state.params
        if config.reset:
            theta = forget_classes(theta, episodes.reset_classes.reshape(-1), forget_key)
        plastic = mask(theta, config.plastic or plastic_names)

        def objective(theta: Params, episode: Episode, _: jax.Array) -> tuple[jax.Array, Metrics]:
            return meta_objective(
                network,
                theta,
                plastic,
                episode,
                learning_rate=config.inner_rate,
                first_order=config.order == "first",
                remat=config.remat,
            )

        estimate = meta_gradient(objective, theta, episodes, objective_key)
        updates, opt_state = optimiser.update(
            cast_to_float32(estimate.gradient), cast_to_float32(state.opt_state)
        )
        new = State(optax.apply_updates(cast_to_float32(theta), updates), opt_state)
        metrics = {"loss": estimate.loss, **estimate.metrics}
        return stochastic_round_like(new, state, rounding_key), metrics, {}

    def evaluate(state: State, data: dict[str, jax.Array], key: jax.Array) -> Metrics:
        return evaluate_params(network, config, state.params, data, key)

    return System(init, step, evaluate)


def draw(config: EpisodicConfig, background: jax.Array, key: jax.Array) -> Episode:
    """Draw an episode, with its images normalised.

    Args:
        background: images of the background classes, uint8 [classes, per_class, H, W].
    """
    episode = draw_episode(
        key,
        background[: config.train_classes],
        tasks=config.tasks,
        updates=config.inner_updates,
        random_query=config.remember,
    )
    trajectory = episode.trajectory
    if config.repeat_first:
        trajectory = jnp.concatenate([trajectory[:1], trajectory])
    return episode._replace(
        images=scale_omniglot(episode.images, config.pixels), trajectory=trajectory
    )


def evaluate_params(
    network: Network,
    config: EpisodicConfig,
    params: Params,
    data: dict[str, jax.Array],
    key: jax.Array,
) -> Metrics:
    """Return the slow weights' accuracy on training classes, and that of a small meta-test.

    The meta-test is on unseen classes; it lets the output layer alone learn, and takes the best of
    `eval_rates`.

    Args:
        data: as in `meta_training`.
    """
    sample_key, run_key = jax.random.split(key)
    background = data["background"][: config.train_classes]
    per_class = background.shape[1]
    sample = jax.random.randint(
        sample_key, (EVALUATION_IMAGES,), 0, config.train_classes * per_class
    )
    images = background.reshape(-1, *background.shape[2:])[sample]
    images = scale_omniglot(images, config.pixels)
    logits = run_stages(network, params, images)
    plastic = mask(params, ("head",))
    unseen = data["evaluation"]
    learning_rates = jnp.repeat(jnp.array(config.eval_rates), config.eval_runs)
    keys = jnp.tile(jax.random.split(run_key, config.eval_runs), len(config.eval_rates))
    spec = LifetimeSpec(config.eval_classes, population=min(EVALUATION_POPULATION, unseen.shape[0]))
    activations = frozen_activations(network, params, plastic, unseen, pixels=config.pixels)
    result = run_lifetimes(
        network,
        params,
        plastic,
        activations,
        spec,
        unseen.shape[1],
        keys,
        learning_rates,
        memory_budget=default_memory_budget(),
    )
    by_rate = {
        name: result[name].reshape(len(config.eval_rates), -1).mean(1) for name in ("train", "test")
    }
    best = by_rate["test"].argmax()
    return {
        "accuracy": accuracy(logits, sample // per_class),
        "meta_test_train": by_rate["train"][best],
        "meta_test_test": by_rate["test"][best],
    }
