"""Meta-learn the coefficients of a plasticity rule through a lifetime of online updates.

Shervani-Tabar and Rosenbaum (2023), arXiv 2210.16414. One meta-step is one episode: new random
forward and feedback weights, a few classes of handwriting learned image by image, and Adam on the
rule's coefficients by the loss on other images of those classes.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from tsar_jax.data.rule_episodes import draw_lifetime
from tsar_jax.devices import map_over
from tsar_jax.errors import UserError, check_limits, check_positive, check_rates, check_widths
from tsar_jax.meta.gradient import meta_gradient
from tsar_jax.networks.feedback_network import Feedback, init_weights
from tsar_jax.plasticity.learner import Remat
from tsar_jax.plasticity.rule_learner import Rule, RuleTheta
from tsar_jax.plasticity.rules import find_terms
from tsar_jax.systems.learned_rules.objective import Metrics, meta_objective
from tsar_jax.training.config import FORMERLY_ZERO, earlier
from tsar_jax.training.loop import LoopConfig
from tsar_jax.training.programs import all_finite, finite_mean
from tsar_jax.training.system import System

LOST = float(jnp.finfo(jnp.float32).max)
"""Stands in records for what is not finite, which no state may hold."""


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
    """Independent meta-trainings, in one program."""
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
    modules: tuple[str, ...] = ()
    """Python modules to import first, which define terms of your own."""
    avg_window: int = dataclasses.field(default=10, metadata=earlier(10))
    """Episodes in the moving average of the figure's curves, at least 1; coefficients are drawn
    as they are. A resumed run keeps it: plasticity_compare --avg-window draws with another."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "steps", "seeds", "classes", "learn", "query", "segment", "avg_window")
        check_rates(self, "meta_rate", "beta", "clip")
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
    """Of every seed (leading axis): coefficients, Adam's moments, and what each episode gave.

    coefficients [seeds, terms] or [seeds, layers, terms]. episode [seeds]: how many are over; a
    seed is lost in the episode that would have made its coefficients or moments infinite or NaN,
    and this one, its coefficients and its moments stay as they were before. records: arrays
    [seeds, episodes, ...], 0 where an episode is still to come, `LOST` where its lifetime diverged
    or its seed was lost before: "loss", "accuracy", "theta" (the coefficients that the episode was
    lived with), "angle", "orthonormality".
    """

    coefficients: jax.Array
    opt_state: optax.OptState
    episode: jax.Array
    records: dict[str, jax.Array]


def make_system(config: LearnedRuleConfig, outputs: int, pixels: int = 784) -> System:
    """Return meta-training as init, step and evaluate. data: uint8 [classes, per_class, H, W].

    A step is one episode of every seed.

    Args:
        config: every setting.
        outputs: classes in the data, units of the last layer.
        pixels: of an image, inputs of the first layer.
    """
    optimiser = make_optimiser(config)
    sizes = (pixels, *config.hidden, outputs)
    objective = partial(episode_objective, config, make_rule(config), sizes)
    spread = partial(map_over, count=config.seeds)

    def init(key: jax.Array) -> State:
        keys = jax.random.split(key, config.seeds)
        return spread(lambda key, _: init_seed(config, optimiser))(keys, ())

    def step(state: State, images: jax.Array, key: jax.Array) -> tuple[State, Metrics]:
        def one(state_and_key: Any, shared: Any) -> tuple[State, Metrics]:
            (state, key), (number, images) = state_and_key, shared
            return step_seed(objective, optimiser, state, number, images, key)

        keys = jax.random.split(key, config.seeds)
        state, recorded = spread(one)((state, keys), (state.episode.max(), images))
        return state, scalars(config, recorded)

    def evaluate(state: State, images: jax.Array, key: jax.Array) -> Metrics:
        def one(theta_and_key: Any, images: jax.Array) -> tuple[jax.Array, Metrics]:
            coefficients, key = theta_and_key
            return objective(coefficients, images, key)

        keys = jax.random.split(key, config.seeds)
        loss, recorded = spread(one)((state.coefficients, keys), images)
        found = {"loss": loss, "accuracy": recorded["accuracy"]}
        going_on = state.episode == state.episode.max()
        return {n: finite_mean(jnp.where(going_on, v, jnp.nan)) for n, v in found.items()}

    return System(init, step, evaluate, lost=lost_seeds)


def init_seed(config: LearnedRuleConfig, optimiser: optax.GradientTransformation) -> State:
    """Return the state of one seed before its first episode."""
    shapes = record_shapes(config)
    coefficients = jnp.zeros(shapes["theta"]).at[..., 0].set(config.start)
    records = {name: jnp.zeros((config.steps, *shape)) for name, shape in shapes.items()}
    return State(coefficients, optimiser.init(coefficients), jnp.zeros((), jnp.int32), records)


def episode_objective(
    config: LearnedRuleConfig,
    rule: Rule,
    sizes: tuple[int, ...],
    coefficients: jax.Array,
    images: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Return the meta-objective of one episode, with its weights and its lifetime drawn from `key`.

    Args:
        sizes: units of each layer, the input first.
        coefficients: of the rule, [terms] or [layers, terms].
        images: uint8 [classes, per_class, H, W].
    """
    lifetime_key, weights_key, feedback_key = jax.random.split(key, 3)
    seen = images[: images.shape[0] - config.held_out]
    lifetime = draw_lifetime(
        lifetime_key,
        seen,
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


def step_seed(
    objective: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Metrics]],
    optimiser: optax.GradientTransformation,
    state: State,
    number: jax.Array,
    images: jax.Array,
    key: jax.Array,
) -> tuple[State, Metrics]:
    """Return one seed's state after an episode, and what was recorded of it.

    Args:
        objective: (coefficients, images, key) -> (loss, metrics) of an episode.
        number: of episodes that are over for all seeds that go on.
        images: uint8 [classes, per_class, H, W].
    """
    episodes = jax.random.split(key, 1)  # an episode is drawn from its key
    loss, gradient, recorded = meta_gradient(
        lambda theta, episode, _: objective(theta, images, episode),
        *(state.coefficients, episodes, key),
    )
    updates, opt_state = optimiser.update(gradient, state.opt_state)
    coefficients = optax.apply_updates(state.coefficients, updates)
    going_on = state.episode == number
    recorded = {
        name: jnp.where(going_on, value, jnp.nan)
        for name, value in {"loss": loss, "theta": state.coefficients, **recorded}.items()
    }
    records = {
        name: past.at[number].set(jnp.where(jnp.isfinite(recorded[name]), recorded[name], LOST))
        for name, past in state.records.items()
    }
    sound = going_on & all_finite((coefficients, opt_state))
    learned = State(coefficients, opt_state, state.episode + 1, records)
    state = jax.tree.map(lambda new, old: jnp.where(sound, new, old), learned, state)
    # Of a seed lost just now the loss is left out too, so that where all are, there is none.
    recorded["loss"] = jnp.where(sound, recorded["loss"], jnp.nan)
    return State(state.coefficients, state.opt_state, state.episode, records), recorded


def lost_seeds(state: State) -> list[int]:
    """Numbers, from 0, of the seeds that are lost: those that others have left behind."""
    episode = np.asarray(state.episode)
    return np.flatnonzero(episode < episode.max()).tolist()


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
    """Means over seeds as a flat dictionary; recorded: arrays [seeds, ...].

    A seed that is lost or whose lifetime diverged is left out; a NaN says that all are.
    """
    means = {name: finite_mean(value) for name, value in recorded.items()}
    return {
        column: means[name][index]
        for name, value in means.items()
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
