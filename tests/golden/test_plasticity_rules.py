"""The numbers of the original plasticity-rule release: three episodes and Adam between them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden import close, files, load

from tsar_jax.data.rule_episodes import RuleEpisode
from tsar_jax.networks.feedback_network import logits
from tsar_jax.plasticity.learner import unroll
from tsar_jax.plasticity.rule_learner import Rule, RuleTheta, layer_sizes, rule_learner
from tsar_jax.plasticity.rules import POOL, find_terms
from tsar_jax.systems.learned_rules.objective import meta_objective


def weights_of(seed: int, episode: int, sizes, precision: str):
    """The release's Glorot weights, drawn as the golden arrays' README says."""
    return tuple(
        jnp.asarray(
            np.float32(
                np.random.RandomState(seed * 1000 + 10 * episode + i).uniform(-1, 1, (out, into))
                * np.sqrt(6 / (into + out))
            ),
            precision,
        )
        for i, (into, out) in enumerate(itertools.pairwise(sizes))
    )


def examples_of(golden: dict, episode: int, part: str, precision: str):
    images = golden[f"ep{episode}_{part}_images"].astype(precision) / 255
    return jnp.asarray(images), jnp.asarray(golden[f"ep{episode}_{part}_labels"])


def random_weights(seed: int, episode: int, sizes, precision: str):
    """Forward weights and feedback weights, whose seed is 500 more."""
    forward = weights_of(seed, episode, sizes, precision)
    back = tuple(
        jnp.asarray(
            np.float32(
                np.random.RandomState(seed * 1000 + 10 * episode + i + 500).uniform(-1, 1, w.shape)
                * np.sqrt(6 / sum(w.shape))
            ),
            precision,
        )
        for i, w in enumerate(forward)
    )
    return forward, back


@pytest.mark.parametrize("path", files("rule_"), ids=lambda path: path.stem)
def test_episodes(path, precision) -> None:
    golden = load(path, precision)
    count = len(golden["terms"])
    rule = Rule(
        find_terms([POOL[int(term)] for term in golden["terms"]]),
        str(golden["feedback"]),
        float(golden["beta"]),
    )
    theta = jnp.asarray(golden["theta_init"][:count])
    optimiser = optax.adam(float(golden["meta_lr"]))
    opt_state = optimiser.init(theta)
    l1 = float(golden["l1"])

    @jax.jit
    def step(theta, weights, random, lifetime):
        def objective(theta):
            return meta_objective(rule, RuleTheta(theta, random), weights, lifetime, l1=l1)

        return jax.value_and_grad(objective, has_aux=True)(theta)

    for episode in range(len(golden["meta_losses"])):
        sizes = golden["layer_sizes"]
        weights, random = random_weights(int(golden["weight_seed"]), episode, sizes, precision)
        lifetime = RuleEpisode(
            examples_of(golden, episode, "train", precision),
            examples_of(golden, episode, "query", precision),
        )
        (loss, recorded), gradient = step(theta, weights, random, lifetime)
        if episode == 0:
            check_lifetime(golden, rule, theta, weights, random, lifetime, precision)
        assert not golden["theta_grads"][episode][count:].any()
        close(loss, golden["meta_losses"][episode], precision)
        close(gradient, golden["theta_grads"][episode][:count], precision)
        close(recorded["accuracy"], golden["accuracies"][episode], precision)
        close(recorded["angle"], golden["angles"][episode], precision)
        close(recorded["orthonormality"], golden["orthonormality"][episode], precision)
        updates, opt_state = optimiser.update(gradient, opt_state)
        theta = optax.apply_updates(theta, updates)
        close(theta, golden["theta_after"][episode][:count], precision)


def check_lifetime(golden, rule, theta, weights, random, lifetime, precision) -> None:
    learner = rule_learner(rule, layer_sizes(weights))
    given = RuleTheta(theta, random)
    adapted, _ = jax.jit(lambda w: unroll(learner, given, w, lifetime.examples))(weights)
    for layer, ours in enumerate(adapted):
        close(ours, golden[f"weight_after_episode0_{layer}"], precision)
    of_query = jax.vmap(lambda image: logits(adapted, image, rule.beta))(lifetime.query[0])
    close(of_query, golden["query_logits_episode0"], precision)
