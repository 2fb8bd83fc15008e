"""Modulated learners against the published networks, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tsar_jax.networks import ANML, TSAR, Ungated, init_params, run_stages
from tsar_jax.networks.layers import ALL_POOLED
from tsar_jax.plasticity.gradient_learner import GradientState, gradient_learner, network_learner
from tsar_jax.plasticity.learner import unroll
from tsar_jax.plasticity.losses import cross_entropy
from tsar_jax.plasticity.masks import mask
from tsar_jax.plasticity.modulation import (
    Modulated,
    gate_activations,
    modulate_updates,
    regulate_weights,
)
from tsar_jax.plasticity.rule_learner import Rule, RuleTheta, rule_learner
from tsar_jax.plasticity.rules import find_terms

pytestmark = pytest.mark.usefixtures("quickly_compiled")

CLASSES, LENGTH = 3, 4
KEYS = jax.random.split(jax.random.key(0), 4)
IMAGES = jax.random.uniform(KEYS[0], (LENGTH, 28, 28, 1))
LABELS = jnp.arange(LENGTH) % CLASSES
STREAM = IMAGES, LABELS


def all_of(params):
    return jax.tree.map(lambda _: True, params)


def assert_close(found, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), found, wanted)


def test_anml_is_its_output_layer_under_a_gate() -> None:
    network = ANML(channels=2, gate_channels=2, classes=CLASSES)
    params = init_params(network, KEYS[1])
    sgd = optax.sgd(0.5)

    def whole(params):
        learner = network_learner(network, mask(params, ("head",)), 0, sgd)
        state, _ = unroll(learner, params, learner.init(params, None), STREAM)
        logits = learner.predict(params, state, IMAGES)
        return cross_entropy(logits, LABELS), (state.params["head"], logits)

    def dense(head, features):
        return features @ head["kernel"] + head["bias"]

    def composed(params):
        def gate(modulator, images):
            return run_stages(network, params | {"neuromodulator": modulator}, images, 0, 1)[1]

        ones = jnp.ones((LENGTH, 18))
        features = run_stages(network, params, (IMAGES, ones), 1, 2)
        learner = gate_activations(gradient_learner(dense, all_of(params["head"]), sgd), gate)
        theta = Modulated(params["head"], params["neuromodulator"])
        inputs = IMAGES, features
        state, _ = unroll(learner, theta, learner.init(theta), (inputs, LABELS))
        logits = learner.predict(theta, state, inputs)
        return cross_entropy(logits, LABELS), (state.params, logits)

    (_, found), gradient = jax.jit(jax.value_and_grad(composed, has_aux=True))(params)
    (_, wanted), true = jax.jit(jax.value_and_grad(whole, has_aux=True))(params)
    assert_close(found, wanted)
    assert_close(gradient, true)
    assert np.abs(gradient["neuromodulator"]["gate"]["kernel"]).max() > 0


def test_tsar_is_its_classifier_under_regulation() -> None:
    network = TSAR(channels=2, regulator_channels=2, classes=CLASSES, initial_bias=0.0)
    classifier = Ungated(channels=2, classes=CLASSES, pools=ALL_POOLED)
    params = init_params(network, KEYS[1])
    names = ("trunk", "head")
    sgd = optax.sgd(0.5)

    def whole(params):
        learner = network_learner(network, mask(params, names), 0, sgd)
        state, _ = unroll(learner, params, learner.init(params, None), STREAM)
        logits = learner.predict(params, state, IMAGES)
        return cross_entropy(logits, LABELS), ({n: state.params[n] for n in names}, logits)

    def composed(params):
        start = {name: params[name] for name in names}

        def gate(modulator, images):
            gates = run_stages(network, params | modulator, images, 0, 2)[1]
            blocks = {name: gates[name] for name in gates if name != "head"}
            nothing = jax.tree.map(lambda _: None, start)
            trunk = {name: nothing["trunk"][name] | blocks[name] for name in start["trunk"]}
            return {"trunk": trunk, "head": nothing["head"] | gates["head"]}

        def predict(params, images):
            return run_stages(classifier, params, images)

        learner = regulate_weights(
            gradient_learner(predict, all_of(start), sgd),
            gate,
            weights_of=lambda state: state.params,
            with_weights=lambda state, weights: GradientState(weights, state.opt_state),
        )
        theta = Modulated(start, {name: params[name] for name in ("encoder", "regulator")})
        state, _ = unroll(learner, theta, learner.init(theta), STREAM)
        logits = learner.predict(theta, state, IMAGES)
        return cross_entropy(logits, LABELS), (state.params, logits)

    (_, found), gradient = jax.jit(jax.value_and_grad(composed, has_aux=True))(params)
    (_, wanted), true = jax.jit(jax.value_and_grad(whole, has_aux=True))(params)
    assert_close(found, wanted)
    assert_close(gradient, true)
    assert np.abs(gradient["regulator"]["head"]["kernel"]).max() > 0


def test_a_rule_changes_the_weights_that_its_gates_let_it() -> None:
    sizes = (5, 4, 3)
    rule = rule_learner(Rule(find_terms(["pseudo_gradient"]), "sym"), sizes)
    coefficients = RuleTheta(jnp.array([0.3]), ())
    weights = rule.init(coefficients, KEYS[2])
    example = jax.random.uniform(KEYS[3], (5,)), jnp.int32(1)
    fixed = tuple(jax.random.uniform(KEYS[3], w.shape) for w in weights)

    def gate(modulator, inputs):
        return tuple(jnp.broadcast_to(g, (len(inputs), *g.shape)) for g in modulator)

    learner = regulate_weights(rule, gate)
    theta = Modulated(coefficients, fixed)
    found, _ = learner.update(theta, weights, example, None)
    gated = tuple(g * w for g, w in zip(fixed, weights, strict=True))
    after, _ = rule.update(coefficients, gated, example, None)
    wanted = tuple(w + g * (a - b) for w, g, a, b in zip(weights, fixed, after, gated, strict=True))
    assert_close(found, wanted)
    inputs = jax.random.uniform(KEYS[0], (2, 5))
    assert_close(learner.predict(theta, weights, inputs), rule.predict(coefficients, gated, inputs))
    closed = Modulated(coefficients, (jnp.zeros_like(fixed[0]), fixed[1]))
    assert_close(learner.update(closed, weights, example, None)[0][0], weights[0])


def test_a_signal_multiplies_the_change_of_each_layer_and_nothing_else() -> None:
    sizes = (5, 4, 3)
    rule = rule_learner(Rule(find_terms(["pseudo_gradient"]), "sym"), sizes)
    coefficients = RuleTheta(jnp.array([0.3]), ())
    weights = rule.init(coefficients, KEYS[2])
    example = jax.random.uniform(KEYS[3], (5,)), jnp.int32(1)
    of_synapses = jax.random.uniform(KEYS[3], weights[1].shape)

    def signal(modulator, example, aux):
        assert aux == ()
        return modulator * example[0].sum(), of_synapses

    learner = modulate_updates(rule, signal)
    theta = Modulated(coefficients, jnp.float32(2.0))
    found, _ = learner.update(theta, weights, example, None)
    after, _ = rule.update(coefficients, weights, example, None)
    factors = 2 * example[0].sum(), of_synapses
    wanted = tuple(w + f * (a - w) for w, f, a in zip(weights, factors, after, strict=True))
    assert_close(found, wanted)
    inputs = jax.random.uniform(KEYS[0], (2, 5))
    assert_close(
        learner.predict(theta, weights, inputs), rule.predict(coefficients, weights, inputs)
    )
