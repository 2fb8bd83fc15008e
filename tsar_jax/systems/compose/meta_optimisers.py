"""Meta-optimisers of a composition: estimators of theta's gradient, which Adam follows.

One more is a function, registered by a module of yours:

    @META_OPTIMISERS.register("mine")
    def mine(config: ComposeConfig) -> MetaOptimiser: ...
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from tsar_jax.meta.evolution import check_population, es_gradient
from tsar_jax.meta.gradient import Estimate, meta_gradient
from tsar_jax.meta.persistent import Parts, init_persistent, pes_gradient
from tsar_jax.registry import Registry
from tsar_jax.systems.compose.config import ComposeConfig

Metrics = dict[str, jax.Array]


class Lives(NamedTuple):
    """A lifetime as meta-optimisers take it.

    whole: (theta, key) -> (loss, metrics) of all of it. parts: the same in parts, each with a loss
    of its own.
    """

    whole: Callable[[Any, jax.Array], tuple[jax.Array, Metrics]]
    parts: Parts


class MetaOptimiser(NamedTuple):
    """An estimator of theta's gradient, which may keep a state from step to step.

    init: (start, theta, key) -> state, () where there is none; start as of `Parts`.
    estimate: (lives, theta, state, key) -> (estimate, state).
    needs_gradient: whether lifetimes have to be differentiable.
    """

    init: Callable[[Callable[[Any, jax.Array], Any], Any, jax.Array], Any]
    estimate: Callable[[Lives, Any, Any, jax.Array], tuple[Estimate, Any]]
    needs_gradient: bool = False


META_OPTIMISERS: Registry[Callable[[ComposeConfig], MetaOptimiser]] = Registry("meta-optimiser")
"""Every meta-optimiser by the name that a config gives it."""


@META_OPTIMISERS.register("gradient")
def gradient(config: ComposeConfig) -> MetaOptimiser:
    """Return backpropagation through whole lifetimes."""

    def estimate(lives: Lives, theta: Any, state: Any, key: jax.Array) -> tuple[Estimate, Any]:
        keys = jax.random.split(key, config.lifetimes)

        def objective(theta: Any, item: jax.Array, _: Any) -> tuple[jax.Array, Metrics]:
            return lives.whole(theta, item)

        return meta_gradient(objective, theta, keys, key), state

    return MetaOptimiser(lambda start, theta, key: (), estimate, needs_gradient=True)


@META_OPTIMISERS.register("openai_es")
def openai_es(config: ComposeConfig) -> MetaOptimiser:
    """Return OpenAI's evolution strategy (arXiv 1703.03864) over whole lifetimes."""
    check_population(config.population)

    def estimate(lives: Lives, theta: Any, state: Any, key: jax.Array) -> tuple[Estimate, Any]:
        def objective(theta: Any, item: jax.Array, key: jax.Array) -> tuple[jax.Array, Metrics]:
            del item  # its key distinguishes it
            return lives.whole(theta, key)

        batch = jax.numpy.arange(config.lifetimes)
        estimated = es_gradient(
            objective, theta, batch, key, population=config.population, sigma=config.sigma
        )
        return _averaged(estimated), state

    return MetaOptimiser(lambda start, theta, key: (), estimate)


@META_OPTIMISERS.register("pes")
def pes(config: ComposeConfig) -> MetaOptimiser:
    """Return persistent evolution strategies (arXiv 2112.13835): a step sees a part of a lifetime.

    The loss is that of predictions before each update, so that a part has one.
    """

    def init(start: Callable[[Any, jax.Array], Any], theta: Any, key: jax.Array) -> Any:
        return init_persistent(start, theta, key, config.population)

    def estimate(lives: Lives, theta: Any, state: Any, key: jax.Array) -> tuple[Estimate, Any]:
        estimated, state = pes_gradient(
            lives.parts, theta, state, key, population=config.population, sigma=config.sigma
        )
        return _averaged(estimated), state

    return MetaOptimiser(init, estimate)


def _averaged(estimate: Estimate) -> Estimate:
    """Return the estimate with means over the population for metrics."""
    return estimate._replace(metrics=jax.tree.map(lambda leaf: leaf.mean(), estimate.metrics))
