"""The learning curves of rules on classes that they may never have met: accuracy over updates."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.data.rule_episodes import draw_rule_episode
from tsar_jax.devices import map_over
from tsar_jax.errors import UserError, check_limits, check_positive, check_seed, check_widths
from tsar_jax.networks.feedback_network import init_weights
from tsar_jax.networks.types import LayerArrays
from tsar_jax.plasticity.learner import unroll
from tsar_jax.plasticity.losses import accuracy, cross_entropy
from tsar_jax.plasticity.rule_learner import Examples, Rule, RuleTheta, rule_learner
from tsar_jax.plasticity.rules import find_terms
from tsar_jax.systems.learned_rules.rule_file import LearnedRule


@dataclasses.dataclass(frozen=True)
class CurveConfig:
    """Settings of the lifetimes that a rule is evaluated in.

    Raises:
        UserError: a value is impossible.
    """

    classes: int = 5
    """Classes of a lifetime, drawn at random."""
    learn: int = 50
    """Images of each class that are learned, one update each, in mixed order."""
    query: int = 10
    """Other images of each class, which are scored."""
    every: int = 10
    """Updates between two scores; it divides the number of updates."""
    runs: int = 20
    """Number of lifetimes, each with other classes, images, forward and feedback weights."""
    hidden: tuple[int, ...] = (170, 130, 100, 70)
    """Widths of the hidden layers."""
    seed: int = 0
    """Seed of the draws, in [0, 2**32)."""

    def __post_init__(self) -> None:
        check_positive(self, "classes", "learn", "query", "every", "runs")
        if self.classes * self.learn % self.every:
            raise UserError(
                f"every ({self.every}) must divide the number of updates, "
                f"{self.classes * self.learn} (classes x learn)."
            )
        check_widths(self, "hidden")
        check_seed(self)


def check_rule(rule: LearnedRule, config: CurveConfig, shape: tuple[int, ...], name: str) -> None:
    """Raise UserError where the rule or the images cannot serve the config.

    Args:
        shape: shape of the images [classes, per_class, ...].
        name: the rule's, for an error's sentence.
    """
    check_limits(
        ("classes", config.classes, shape[0], "classes in the data to draw from"),
        ("learn + query", config.learn + config.query, shape[1], "images of a class"),
    )
    coefficients, layers = np.asarray(rule.coefficients), len(config.hidden) + 1
    if coefficients.ndim == 2 and len(coefficients) != layers:
        raise UserError(
            f"{name} has coefficients for {len(coefficients)} layers, but a network with "
            f"{len(config.hidden)} hidden layers has {layers}: name as many widths in hidden."
        )
    find_terms(rule.terms)


def learning_curves(
    learned: LearnedRule, images: jax.Array, config: CurveConfig
) -> dict[str, np.ndarray]:
    """Return the curves of accuracy and loss on the query set.

    Args:
        images: uint8 [classes, per_class, H, W], ink bright. The network has an output for each
            class.

    Returns:
        "accuracy", in [0, 1], and "loss" [runs, 1 + updates / every], before the first update and
        after every `every` updates.
    """
    rule = Rule(find_terms(learned.terms), learned.feedback, learned.beta)
    run = map_over(partial(_curve, rule, config), config.runs)
    keys = jax.random.split(jax.random.key(config.seed), config.runs)
    coefficients = jnp.asarray(learned.coefficients, jnp.float32)
    curves = jax.jit(run)(keys, (coefficients, images))
    return {name: np.asarray(values) for name, values in curves.items()}


def _curve(
    rule: Rule, config: CurveConfig, key: jax.Array, inputs: tuple[jax.Array, jax.Array]
) -> dict[str, jax.Array]:
    """Return the curves [1 + updates / every] of one lifetime.

    Args:
        inputs: coefficients, and images uint8 [classes, per_class, H, W].
    """
    coefficients, images = inputs
    lifetime_key, weights_key, feedback_key = jax.random.split(key, 3)
    pixels = images.shape[2] * images.shape[3]
    sizes = (pixels, *config.hidden, images.shape[0])
    learner = rule_learner(rule, sizes)
    theta = RuleTheta(coefficients, init_weights(feedback_key, sizes))
    weights = learner.init(theta, weights_key)
    lifetime = draw_rule_episode(
        lifetime_key,
        images,
        classes=config.classes,
        learn=config.learn,
        query=config.query,
        fixed_images=False,
        replacement=False,
    )

    def score(weights: LayerArrays) -> dict[str, jax.Array]:
        query_images, labels = lifetime.query
        logits = learner.predict(theta, weights, query_images)
        return {"accuracy": accuracy(logits, labels), "loss": cross_entropy(logits, labels)}

    def step(weights: LayerArrays, examples: Examples) -> tuple[LayerArrays, dict[str, jax.Array]]:
        weights, _ = unroll(learner, theta, weights, examples)
        return weights, score(weights)

    segments: Any = jax.tree.map(
        lambda leaf: leaf.reshape(-1, config.every, *leaf.shape[1:]), lifetime.examples
    )
    _, scores = lax.scan(step, weights, segments)
    return jax.tree.map(lambda first, later: jnp.append(first, later), score(weights), scores)
