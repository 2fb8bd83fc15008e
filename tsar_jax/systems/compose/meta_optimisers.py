"""Meta-optimisers of a composition: estimators of theta's gradient, which Adam or SGD follows.

One more is a function, registered by a module of yours:

    @META_OPTIMISERS.register("mine")
    def mine(config: ComposeConfig) -> MetaOptimiser: ...
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tsar_jax.finite import finite_mean
from tsar_jax.meta.evolution import (
    check_population,
    es_gradient,
    mean_square,
    standardised_ranks,
)
from tsar_jax.meta.gradient import Estimate, meta_gradient
from tsar_jax.meta.persistent import Parts, init_persistent, pes_gradient
from tsar_jax.meta.strategy import decay_past
from tsar_jax.registry import Registry
from tsar_jax.systems.compose.config import ComposeConfig, refuse_settings

Metrics = dict[str, jax.Array]
LOSS = "loss"


class MetaObjective(NamedTuple):
    """The loss of a lifetime, of all of it and of its parts.

    whole: (theta, key) -> (loss, metrics) of all of it. parts: the same in parts, each with a loss
    of its own. prepare: (theta, keys of lifetimes [n]) -> theta before them, such as with output
    rows forgotten; it lasts.
    """

    whole: Callable[[Any, jax.Array], tuple[jax.Array, Metrics]]
    parts: Parts
    prepare: Callable[[Any, jax.Array], Any] = lambda theta, keys: theta


class MetaOptimiser(NamedTuple):
    """An estimator of theta's gradient, which may keep a state from step to step.

    init: (init_lifetime, theta, key) -> state, () where there is none; init_lifetime as init of
        `Parts`.
    estimate: (objective, theta, state, key) -> (estimate, state).
    needs_gradient: whether lifetimes have to be differentiable.
    by_parts: whether it takes the parts of lifetimes, not the whole.
    lifetime_keys: (key of a step) -> keys of its lifetimes [n]; None: theta cannot be prepared for
        them, since each member of a population has others.
    """

    init: Callable[[Callable[[Any, jax.Array], Any], Any, jax.Array], Any]
    estimate: Callable[[MetaObjective, Any, Any, jax.Array], tuple[Estimate, Any]]
    needs_gradient: bool = False
    by_parts: bool = False
    lifetime_keys: Callable[[jax.Array], jax.Array] | None = None


META_OPTIMISERS: Registry[Callable[[ComposeConfig], MetaOptimiser]] = Registry("meta-optimiser")
"""Every meta-optimiser by the name that a config gives it."""


OF_EVOLUTION = ("sigma_decay", "min_sigma", "weight_decay")
"""Settings of openai_es alone."""


def find_descent(config: ComposeConfig) -> optax.GradientTransformation:
    """Return what follows the estimated gradient: Adam or SGD, with a config's learning rate."""
    rate: Any = config.meta_rate
    if config.meta_rate_decay != 1:  # a constant rate has no count of steps in its state
        rate = decay_past(config.meta_rate, config.meta_rate_decay, config.min_meta_rate)
    return {"adam": optax.adam, "sgd": optax.sgd}[config.meta_descent](rate)


@META_OPTIMISERS.register("gradient")
def gradient(config: ComposeConfig) -> MetaOptimiser:
    """Return backpropagation through whole lifetimes."""
    refuse_settings(config, "meta-optimiser gradient", *OF_EVOLUTION)

    def estimate(
        objective: MetaObjective, theta: Any, state: Any, key: jax.Array
    ) -> tuple[Estimate, Any]:
        def of_lifetime(theta: Any, key: jax.Array, _: Any) -> tuple[jax.Array, Metrics]:
            return objective.whole(theta, key)

        return meta_gradient(of_lifetime, theta, lifetime_keys(key), key), state

    def lifetime_keys(key: jax.Array) -> jax.Array:
        return jax.random.split(key, config.lifetimes)

    return MetaOptimiser(
        lambda init_lifetime, theta, key: (),
        estimate,
        needs_gradient=True,
        lifetime_keys=lifetime_keys,
    )


@META_OPTIMISERS.register("openai_es")
def openai_es(config: ComposeConfig) -> MetaOptimiser:
    """Return OpenAI's evolution strategy (arXiv 1703.03864) over whole lifetimes.

    Members of equal loss have equal ranks, so that a loss that all share moves nothing. The state
    is the number of the next generation, int32 [].
    """
    check_population(config.population)
    sigma: Any = decay_past(config.sigma, config.sigma_decay, config.min_sigma)

    def estimate(
        objective: MetaObjective, theta: Any, generation: Any, key: jax.Array
    ) -> tuple[Estimate, Any]:
        def of_lifetime(theta: Any, number: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
            del number  # the key distinguishes it
            loss, metrics = objective.whole(theta, key)
            decayed = loss + config.weight_decay * mean_square(theta)
            return decayed, {**metrics, LOSS: loss}

        estimated = es_gradient(
            of_lifetime,
            theta,
            jnp.arange(config.lifetimes),
            key,
            population=config.population,
            sigma=sigma(generation),
            shaping=partial(standardised_ranks, ties="average"),
        )
        loss = finite_mean(estimated.metrics.pop(LOSS))
        return _averaged(estimated._replace(loss=loss)), generation + 1

    return MetaOptimiser(lambda init_lifetime, theta, key: jnp.zeros((), jnp.int32), estimate)


@META_OPTIMISERS.register("pes")
def pes(config: ComposeConfig) -> MetaOptimiser:
    """Return persistent evolution strategies (arXiv 2112.13835): a step sees a part of a lifetime.

    The loss is that of predictions before each update, so that a part has one.
    """
    refuse_settings(config, "meta-optimiser pes", *OF_EVOLUTION)
    check_population(config.population)

    def init(init_lifetime: Callable[[Any, jax.Array], Any], theta: Any, key: jax.Array) -> Any:
        return init_persistent(init_lifetime, theta, key, config.population)

    def estimate(
        objective: MetaObjective, theta: Any, state: Any, key: jax.Array
    ) -> tuple[Estimate, Any]:
        estimated, state = pes_gradient(
            objective.parts, theta, state, key, population=config.population, sigma=config.sigma
        )
        return _averaged(estimated), state

    return MetaOptimiser(init, estimate, by_parts=True)


def _averaged(estimate: Estimate) -> Estimate:
    """Return the estimate with means over the population for metrics."""
    return estimate._replace(metrics=jax.tree.map(lambda leaf: leaf.mean(), estimate.metrics))
