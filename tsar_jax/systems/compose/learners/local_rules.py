"""Learned local rules, and feedback alignment, which is one of a single term."""

from functools import partial

import jax
import jax.numpy as jnp

from tsar_jax.networks.feedback_network import init_weights
from tsar_jax.plasticity.learner import adapt
from tsar_jax.plasticity.rule_learner import Rule, RuleTheta, rule_learner
from tsar_jax.plasticity.rules import find_terms
from tsar_jax.systems.compose.config import ComposeConfig, refuse_settings
from tsar_jax.systems.compose.learners.types import (
    COEFFICIENTS,
    FEEDBACK,
    LEARNERS,
    WEIGHTS,
    Component,
    Theta,
    need_labels,
    plain_component,
)
from tsar_jax.systems.compose.perceptron import draw_weights


def _rule(
    name: str,
    terms: tuple[str, ...] | None,
    config: ComposeConfig,
    sizes: tuple[int, ...],
    labelled: bool,
) -> Component:
    """Return the learner of a local rule with feedback weights of its own.

    terms: names of the rule's terms; None: config's.
    """
    need_labels(name, labelled)
    refuse_settings(config, f"learner {name}", "units", "distribution")
    if terms is not None:
        refuse_settings(config, f"learner {name}", "terms")
    rule = Rule(find_terms(terms or config.terms), config.feedback, config.beta)
    local = rule_learner(rule, sizes)

    def init(key: jax.Array) -> Theta:
        weights_key, feedback_key = jax.random.split(key)
        random_weights = () if rule.feedback == "sym" else init_weights(feedback_key, sizes)
        coefficients = jnp.zeros(len(rule.terms)).at[0].set(config.initial_coefficient)
        return {
            WEIGHTS: draw_weights(config, weights_key, sizes),
            COEFFICIENTS: coefficients,
            FEEDBACK: random_weights,
        }

    def constants(theta: Theta) -> RuleTheta:
        return RuleTheta(theta[COEFFICIENTS], theta[FEEDBACK])

    learner = adapt(local, theta=constants)._replace(init=lambda theta, key: theta[WEIGHTS])
    component = plain_component(init, learner, (COEFFICIENTS,))
    return component._replace(needs=(COEFFICIENTS, FEEDBACK))


LEARNERS.register("rule")(partial(_rule, "rule", None))
LEARNERS.register("feedback_alignment")(partial(_rule, "feedback_alignment", ("pseudo_gradient",)))
