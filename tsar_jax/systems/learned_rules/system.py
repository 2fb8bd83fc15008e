"""Meta-learn the coefficients of a rule through a lifetime of updates by it.

Shervani-Tabar and Rosenbaum (2023), arXiv 2210.16414. One meta-step is one episode: new random
forward and feedback weights, a few classes of handwriting learned image by image, and Adam on the
rule's coefficients by the loss on other images of those classes.
"""

import dataclasses
import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from flax import struct

from tsar_jax.data.rule_episodes import draw_rule_episode
from tsar_jax.errors import (
    UserError,
    check_known,
    check_limits,
    check_positive,
    check_rates,
    check_widths,
)
from tsar_jax.meta.gradient import meta_gradient
from tsar_jax.networks.feedback_network import (
    Feedback,
    init_weights,
)
from tsar_jax.plasticity.learner import Remat
from tsar_jax.plasticity.rule_learner import (
    Rule,
    RuleTheta,
)
from tsar_jax.plasticity.rules import find_terms
from tsar_jax.systems.learned_rules.objective import Metrics, meta_objective
from tsar_jax.training.config import FORMERLY_ZERO, earlier
from tsar_jax.training.loop import LoopConfig
from tsar_jax.training.system import System


@dataclasses.dataclass(frozen=True)
class LearnedRuleConfig(LoopConfig):
    """Settings of the meta-training of a learned rule.

    Raises:
        UserError: a value is impossible.
    """

    terms: tuple[str, ...] = ("pseudo_gradient", "ehebb", "oja")
    """Terms of the rule by name; --modules adds your own."""
    feedback: Feedback = "fix"
    """Weights through which errors are sent back: fixed random ones (fix), the forward weights
    (sym), or the random ones with the forward ones' signs (sign)."""
    per_layer: bool = False
    """Whether every layer has coefficients of its own, instead of one for each term."""
    start: float = 1e-3
    """Initial coefficient of the first term; the others begin at 0."""
    l1: float = 0.0
    """Weight of the coefficients' L1 norm in the meta-loss, at least 0."""
    meta_rate: float = 1e-3
    """Learning rate of Adam across lifetimes."""
    rate_shares: tuple[float, ...] = ()
    """Share of meta_rate at which each term's coefficient learns, positive; none given: all of it.
    Adam's steps are as long for every coefficient, so a term whose changes are many times longer
    than the first one's wants a small share, or its first step is the whole rule."""
    clip: float | None = dataclasses.field(default=None, metadata=FORMERLY_ZERO)
    """Largest norm of a seed's meta-gradient, longer ones being scaled down and infinite ones left
    out. None: any, as published. A lifetime at the edge of stability has a gradient that throws
    Adam off for many episodes. Each coefficient is measured in units of its share."""
    seeds: int = 20
    """Meta-trainings side by side, from `seed` on, each as if it were alone."""
    classes: int = 5
    """Classes of an episode."""
    learn: int = 50
    """Images of each class that are learned, one update each."""
    query: int = 10
    """Other images of each class, which the meta-loss scores."""
    split: Literal["test", "train"] = dataclasses.field(default="test", metadata=earlier("train"))
    """Split of EMNIST Balanced that episodes are drawn from, as published the test split. Where
    Balanced is not prepared, the packaged part of ByMerge's test split serves for either."""
    fixed_images: bool = dataclasses.field(default=True, metadata=earlier(False))
    """Whether an episode has the first learn + query images of a class in the data set's order, as
    published; otherwise random ones."""
    replacement: bool = dataclasses.field(default=True, metadata=earlier(False))
    """Whether an episode's classes are drawn with replacement, as published: of episodes of 5 of 47
    classes a fifth repeats one, with the same images. Otherwise an episode's classes differ."""
    held_out: int = 0
    """Number of the data's last classes that meta-training does not see, for
    plasticity_evaluate."""
    hidden: tuple[int, ...] = (170, 130, 100, 70)
    """Widths of the hidden layers."""
    beta: float = 10.0
    """Sharpness of the softplus, positive."""
    memory: Remat = "reconstruct"
    """Strategy by which the backward pass gets a lifetime's weights: by inverting update after
    update (reconstruct), by computing them again (rematerialise), or from memory (store). With a
    term that is a whole matrix they are always computed again."""
    segment: int = 25
    """Updates between stored weights where updates are inverted."""
    avg_window: int = dataclasses.field(default=10, metadata=earlier(10))
    """Episodes in the moving average of the figure's curves, at least 1; coefficients are drawn
    as they are. A resumed run keeps it: plasticity_compare --avg-window draws with another."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "steps", "classes", "learn", "query", "segment", "avg_window")
        check_rates(self, "meta_rate", "beta", "clip")
        check_known("feedback", self.feedback, get_args(Feedback))
        check_known("split", self.split, ("test", "train"))
        check_known("remat strategy", self.memory, get_args(Remat))
        for name in ("l1", "held_out"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"{name} must be at least 0, but is {getattr(self, name)}.")
        if not math.isfinite(self.start):
            raise UserError(f"start must be a number, but is {self.start}.")
        if self.rate_shares:
            check_rates(self, "rate_shares")
            if len(self.rate_shares) != len(self.terms):
                raise UserError(
                    f"rate_shares are {len(self.rate_shares)}, but there are {len(self.terms)} "
                    f"terms ({', '.join(self.terms)}): give one for each."
                )
        check_widths(self, "hidden")


def make_rule(config: LearnedRuleConfig) -> Rule:
    """Return the rule that a config describes, without its coefficients.

    Raises:
        UserError: a term has no such name.
    """
    return Rule(find_terms(config.terms), config.feedback, config.beta)


def check_data(config: LearnedRuleConfig, images: Any) -> None:
    """Raise UserError where images [classes, per_class, H, W] cannot serve the config."""
    classes, per_class = images.shape[:2]
    check_limits(
        ("held_out", config.held_out, classes - 1, "classes in the data, and one must remain"),
        ("learn + query", config.learn + config.query, per_class, "images of a class"),
    )
    if not config.replacement:
        available = classes - config.held_out
        check_limits(
            (
                *("classes", config.classes, available),
                "classes in the data to draw from without replacement",
            )
        )


def make_optimiser(config: LearnedRuleConfig) -> optax.GradientTransformation:
    """Return Adam, with clipped gradients and rates of the terms where the config asks for them."""
    shares = jnp.asarray(config.rate_shares or [1.0] * len(config.terms))
    in_shares = optax.stateless(lambda gradient, _: gradient * shares)
    adam = optax.adam(config.meta_rate)
    if config.clip is None:
        return optax.chain(adam, in_shares)
    clip = optax.clip_by_global_norm(config.clip)
    return optax.chain(in_shares, optax.stateless(finite_or_none), clip, adam, in_shares)


def finite_or_none(gradient: jax.Array, _: Any) -> jax.Array:
    """Return the gradient, or zeros if an entry of it is not finite."""
    return jnp.where(jnp.isfinite(gradient).all(), gradient, 0)


@struct.dataclass
class State:
    """State of meta-training: coefficients [terms] or [layers, terms], and Adam's moments."""

    coefficients: jax.Array
    opt_state: optax.OptState


def make_system(config: LearnedRuleConfig, outputs: int, pixels: int = 784) -> System:
    """Return meta-training as a system, a step of which is one episode.

    Its data are images uint8 [classes, per_class, H, W]. A step's arrays are "loss", "accuracy",
    "theta" (the coefficients during the episode), "angle" and "orthonormality": see `alignment`.

    Args:
        outputs: classes in the data, which are the units of the last layer.
        pixels: pixels of an image.

    Raises:
        UserError: a term has no such name.
    """
    rule, optimiser = make_rule(config), make_optimiser(config)
    sizes = (pixels, *config.hidden, outputs)

    def init(_: jax.Array) -> State:
        shape = record_shapes(config)["theta"]
        coefficients = jnp.zeros(shape).at[..., 0].set(config.start)
        return State(coefficients, optimiser.init(coefficients))

    def step(
        state: State, images: jax.Array, key: jax.Array
    ) -> tuple[State, Metrics, dict[str, jax.Array]]:
        def objective(theta: jax.Array, episode: jax.Array, _: Any) -> tuple[jax.Array, Metrics]:
            return run_episode(config, rule, sizes, theta, images, episode)

        batch = jax.random.split(key, 1)  # of one episode, which is drawn from its key
        estimate = meta_gradient(objective, state.coefficients, batch, key)
        updates, opt_state = optimiser.update(estimate.gradient, state.opt_state)
        coefficients = optax.apply_updates(state.coefficients, updates)
        recorded = {"loss": estimate.loss, "theta": state.coefficients, **estimate.metrics}
        return State(coefficients, opt_state), scalars(config, recorded), recorded

    def evaluate(state: State, images: jax.Array, key: jax.Array) -> Metrics:
        loss, recorded = run_episode(config, rule, sizes, state.coefficients, images, key)
        return {"loss": loss, "accuracy": recorded["accuracy"]}

    return System(init, step, evaluate)


def run_episode(
    config: LearnedRuleConfig,
    rule: Rule,
    sizes: tuple[int, ...],
    coefficients: jax.Array,
    images: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Draw an episode and its networks, run it, and return the result of `meta_objective`.

    Args:
        rule: the rule.
        sizes: units of every layer, the input's first.
        coefficients: the rule's, [terms] or [layers, terms].
        images: uint8 [classes, per_class, H, W].
        key: key of the draws.
    """
    lifetime_key, weights_key, feedback_key = jax.random.split(key, 3)
    lifetime = draw_rule_episode(
        lifetime_key,
        images[: images.shape[0] - config.held_out],
        classes=config.classes,
        learn=config.learn,
        query=config.query,
        fixed_images=config.fixed_images,
        replacement=config.replacement,
    )
    feedback_weights = () if rule.feedback == "sym" else init_weights(feedback_key, sizes)
    return meta_objective(
        rule,
        RuleTheta(coefficients, feedback_weights),
        init_weights(weights_key, sizes),
        lifetime,
        l1=config.l1,
        remat=config.memory,
        segment=config.segment,
    )


def record_shapes(config: LearnedRuleConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of one episode's and seed's arrays by name, in the order of the table."""
    layers, terms = len(config.hidden) + 1, len(config.terms)
    return {
        "loss": (),
        "accuracy": (),
        "theta": (layers, terms) if config.per_layer else (terms,),
        "angle": (layers + 1,),
        "orthonormality": (layers,),
    }


def scalars(config: LearnedRuleConfig, recorded: Metrics) -> Metrics:
    """Return an episode's arrays as a flat dictionary of scalars."""
    return {
        column: value[index]
        for name, value in recorded.items()
        for column, index in columns(config, name, value.shape)
    }


def columns(
    config: LearnedRuleConfig, name: str, shape: tuple[int, ...]
) -> list[tuple[str, tuple[int, ...]]]:
    """Return an array's columns with their indices in it.

    Columns are called theta_oja, or layer_2_theta_oja where layers have their own; layer_2_angle.

    Args:
        name: name of the array.
        shape: its shape in one episode.
    """
    if not shape:
        return [(name, ())]
    if name == "theta" and len(shape) == 1:
        return [(f"theta_{term}", (i,)) for i, term in enumerate(config.terms)]
    if name == "theta":
        return [
            (f"layer_{layer + 1}_theta_{term}", (layer, i))
            for layer in range(shape[0])
            for i, term in enumerate(config.terms)
        ]
    first = 0 if name == "angle" else 1
    return [(f"layer_{layer + first}_{name}", (layer,)) for layer in range(shape[0])]
