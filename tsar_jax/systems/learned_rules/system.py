"""Meta-learn the coefficients of a plasticity rule through a lifetime of online updates.

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
    """Meta-training of a plasticity rule. Raises UserError for impossible values."""

    terms: tuple[str, ...] = ("pseudo_gradient", "ehebb", "oja")
    """Terms of the rule by name; --modules adds your own."""
    feedback: Feedback = "fix"
    """What errors travel back through: random weights, fixed (fix), the forward weights (sym), or
    the random ones with the forward ones' signs (sign)."""
    per_layer: bool = False
    """A coefficient for every layer and term, instead of one per term."""
    start: float = 1e-3
    """Coefficient that the first term begins with; the others begin at 0."""
    l1: float = 0.0
    """Weight of the coefficients' L1 norm in the meta-loss."""
    meta_rate: float = 1e-3
    """Learning rate of Adam across lifetimes."""
    rate_shares: tuple[float, ...] = ()
    """Of each term, the share of meta_rate that its coefficient learns at; none given: all of it.
    Adam's steps are as long for every coefficient, so a term whose changes are many times longer
    than the first one's wants a small share, or its first step is the whole rule."""
    clip: float | None = dataclasses.field(default=None, metadata=FORMERLY_ZERO)
    """Largest norm of a seed's meta-gradient, longer ones being scaled down and infinite ones left
    out; None: any, as published. A lifetime at the edge of stability has a gradient that throws
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
    """Always the first learn + query images of a class in the data set's order, as published;
    otherwise random ones in every episode."""
    replacement: bool = dataclasses.field(default=True, metadata=earlier(False))
    """Draw an episode's classes with replacement, as published: of episodes of 5 of 47 classes a
    fifth repeats one, with the same images. Otherwise all classes of an episode differ."""
    held_out: int = 0
    """Last classes of the data that meta-training does not see, for plasticity_evaluate."""
    hidden: tuple[int, ...] = (170, 130, 100, 70)
    """Widths of the hidden layers."""
    beta: float = 10.0
    """Sharpness of the softplus."""
    memory: Remat = "reconstruct"
    """How a lifetime's weights come back for its gradient: taken back update by update, computed
    anew, or stored. A term that is a whole matrix is always computed anew."""
    segment: int = 25
    """Updates between stored weights when they are taken back."""
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
    """The rule that a config describes, its coefficients left open. Raises UserError."""
    return Rule(find_terms(config.terms), config.feedback, config.beta)


def check_data(config: LearnedRuleConfig, images: Any) -> None:
    """Raises UserError where images [classes, per_class, H, W] cannot serve the config."""
    classes, per_class = images.shape[:2]
    check_limits(
        ("held_out", config.held_out, classes - 1, "classes in the data, and one must remain"),
        ("learn + query", config.learn + config.query, per_class, "images of a class"),
    )
    if not config.replacement:
        seen = classes - config.held_out
        check_limits(
            (
                *("classes", config.classes, seen),
                "classes in the data to draw from without replacement",
            )
        )


def make_optimiser(config: LearnedRuleConfig) -> optax.GradientTransformation:
    """Adam, of clipped gradients and at each term's own rate where the config asks for it."""
    shares = jnp.asarray(config.rate_shares or [1.0] * len(config.terms))
    in_shares = optax.stateless(lambda gradient, _: gradient * shares)
    adam = optax.adam(config.meta_rate)
    if config.clip is None:
        return optax.chain(adam, in_shares)
    clip = optax.clip_by_global_norm(config.clip)
    return optax.chain(in_shares, optax.stateless(finite_or_none), clip, adam, in_shares)


def finite_or_none(gradient: jax.Array, _: Any) -> jax.Array:
    """A gradient, or zeros if an entry of it is not finite."""
    return jnp.where(jnp.isfinite(gradient).all(), gradient, 0)


@struct.dataclass
class State:
    """Coefficients [terms] or [layers, terms], and Adam's moments of them."""

    coefficients: jax.Array
    opt_state: optax.OptState


def make_system(config: LearnedRuleConfig, outputs: int, pixels: int = 784) -> System:
    """Return meta-training as a system: a step is one episode. Raises UserError.

    data: uint8 [classes, per_class, H, W]. A step's arrays are "loss", "accuracy", "theta" (the
    coefficients that the episode was lived with), "angle" and "orthonormality", see `alignment`.

    Args:
        config: what is meta-trained, and how.
        outputs: classes in the data, units of the last layer.
        pixels: of an image.
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
            return live_episode(config, rule, sizes, theta, images, episode)

        batch = jax.random.split(key, 1)  # of one episode, which is drawn from its key
        estimate = meta_gradient(objective, state.coefficients, batch, key)
        updates, opt_state = optimiser.update(estimate.gradient, state.opt_state)
        coefficients = optax.apply_updates(state.coefficients, updates)
        recorded = {"loss": estimate.loss, "theta": state.coefficients, **estimate.metrics}
        return State(coefficients, opt_state), scalars(config, recorded), recorded

    def evaluate(state: State, images: jax.Array, key: jax.Array) -> Metrics:
        loss, recorded = live_episode(config, rule, sizes, state.coefficients, images, key)
        return {"loss": loss, "accuracy": recorded["accuracy"]}

    return System(init, step, evaluate)


def live_episode(
    config: LearnedRuleConfig,
    rule: Rule,
    sizes: tuple[int, ...],
    coefficients: jax.Array,
    images: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Draw an episode and its networks from a key, live it, and return `meta_objective`'s result.

    Args:
        sizes: units of every layer, pixels the first.
        images: uint8 [classes, per_class, H, W].
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
    random = () if rule.feedback == "sym" else init_weights(feedback_key, sizes)
    return meta_objective(
        rule,
        RuleTheta(coefficients, random),
        init_weights(weights_key, sizes),
        lifetime,
        l1=config.l1,
        remat=config.memory,
        segment=config.segment,
    )


def record_shapes(config: LearnedRuleConfig) -> dict[str, tuple[int, ...]]:
    """Of what is recorded of one episode and seed, by name, in the order of the table."""
    layers, terms = len(config.hidden) + 1, len(config.terms)
    return {
        "loss": (),
        "accuracy": (),
        "theta": (layers, terms) if config.per_layer else (terms,),
        "angle": (layers + 1,),
        "orthonormality": (layers,),
    }


def scalars(config: LearnedRuleConfig, recorded: Metrics) -> Metrics:
    """Return what an episode gave, arrays by name, as a flat dictionary of scalars."""
    return {
        column: value[index]
        for name, value in recorded.items()
        for column, index in columns(config, name, value.shape)
    }


def columns(
    config: LearnedRuleConfig, name: str, shape: tuple[int, ...]
) -> list[tuple[str, tuple[int, ...]]]:
    """A record's columns and where they are in it: theta_oja; layer_2_theta_oja; layer_2_angle.

    shape: of one episode's record.
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
