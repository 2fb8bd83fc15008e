"""What holds for everything that is a learner, whichever family it belongs to."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tsar_jax.errors import UserError
from tsar_jax.networks import ANML, init_params
from tsar_jax.networks.mlp import make_mlp
from tsar_jax.plasticity.gradient_learner import gradient_learner, network_learner
from tsar_jax.plasticity.hebbian import RULES
from tsar_jax.plasticity.learner import Learner, unroll
from tsar_jax.plasticity.masks import mask
from tsar_jax.plasticity.methods import METHODS, Batch, ProblemSpec, make_method
from tsar_jax.plasticity.modulation import (
    Modulated,
    gate_activations,
    modulate_updates,
    regulate_weights,
)
from tsar_jax.plasticity.rule_learner import Rule, RuleTheta, rule_learner
from tsar_jax.plasticity.rules import POOL, find_terms
from tsar_jax.systems.hebbian.lesions import Lesion, lesioned
from tsar_jax.systems.hebbian.policy import PolicyConfig, make_policy
from tsar_jax.training.checkpoints import from_host, load_checkpoint, save_once, to_host

LENGTH, LIFETIMES, INPUTS = 3, 2, 5
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, LIFETIMES)

pytestmark = pytest.mark.usefixtures("quickly_compiled")


class Kind(NamedTuple):
    """A learner, what it is given, a stream of LENGTH examples, and inputs to predict from."""

    learner: Learner
    theta: Any
    examples: Any
    inputs: Any


def ones_of(function, *arguments):
    """Ones in the shapes of what a function returns, which is not compiled for it."""
    shapes = jax.eval_shape(function, *arguments)
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)


def linear(optimiser) -> Kind:
    theta = {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}
    plastic = {"kernel": True, "bias": False}
    learner = gradient_learner(lambda p, x: x @ p["kernel"] + p["bias"], plastic, optimiser)
    return Kind(
        learner, theta, (jnp.ones((LENGTH, 4)), jnp.zeros(LENGTH, int)), jnp.ones((INPUTS, 4))
    )


def gated(optimiser) -> Kind:
    kind = linear(optimiser)
    learner = gate_activations(kind.learner, lambda scale, seen: jnp.tanh(scale * seen))
    inputs, labels = kind.examples
    examples, asked = ((inputs, inputs), labels), (kind.inputs, kind.inputs)
    return Kind(learner, Modulated(kind.theta, jnp.ones(4)), examples, asked)


def regulated(feedback) -> Kind:
    kind = local_rule(feedback)

    def gate(scale, inputs):
        return tuple(jnp.ones((len(inputs), *shape)) * scale for shape in ((3, 4), (2, 3)))

    learner = regulate_weights(kind.learner, gate)
    return Kind(learner, Modulated(kind.theta, jnp.float32(0.5)), kind.examples, kind.inputs)


def modulated(feedback) -> Kind:
    kind = local_rule(feedback)

    def signal(scale, example, aux):
        return scale, scale * example[0].sum()

    learner = modulate_updates(kind.learner, signal)
    return kind._replace(learner=learner, theta=Modulated(kind.theta, jnp.float32(0.5)))


def anml() -> Kind:
    network = ANML(channels=2, gate_channels=2, classes=3)
    theta = ones_of(lambda key: init_params(network, key), KEY)
    learner = network_learner(network, mask(theta, ("head",)), 0, optax.adam(1e-3))
    images = jnp.ones((LENGTH, 28, 28, 1))
    return Kind(learner, theta, (images, jnp.zeros(LENGTH, int)), jnp.ones((INPUTS, 28, 28, 1)))


def local_rule(feedback) -> Kind:
    sizes = (4, 3, 2)
    learner = rule_learner(Rule(find_terms(POOL), feedback), sizes)
    random = () if feedback == "sym" else tuple(jnp.ones(s) for s in ((3, 4), (2, 3)))
    theta = RuleTheta(jnp.full(len(POOL), 1e-3), random)
    examples = jnp.ones((LENGTH, 4)), jnp.zeros(LENGTH, int)
    return Kind(learner, theta, examples, jnp.ones((INPUTS, 4)))


def policy(rule, shape=(4,), lesion=None) -> Kind:
    made = make_policy(PolicyConfig(rule=rule, hidden=(3,)), shape, 2)
    made = made if lesion is None else lesioned(made, lesion)
    dtype = jnp.uint8 if len(shape) == 3 else jnp.float32
    theta = ones_of(lambda key: made.prepare(made.init(key)), KEY)
    examples, inputs = (jnp.ones((count, *shape), dtype) for count in (LENGTH, INPUTS))
    return Kind(made.learner, theta, examples, inputs)


def method(name) -> Kind:
    def scaled(images, key=None):
        return images.astype(jnp.float32) / 255

    shape, classes, tasks, count = (2, 2, 1), 4, 2, 6
    spec = ProblemSpec(
        net=make_mlp(shape, classes, (5,)),
        learning_rate=0.1,
        capacity=8,
        replay=4,
        tasks=tasks,
        classes=classes,
        task_classes=np.eye(tasks, dtype=bool).repeat(classes // tasks, 1),
        image=jax.ShapeDtypeStruct(shape, jnp.uint8),
        augment=scaled,
        normalise=scaled,
    )
    stored = jnp.ones((LENGTH, count, *shape), jnp.uint8)
    mask, labels = jnp.ones((LENGTH, count)), jnp.zeros((LENGTH, count), jnp.int32)
    batches = Batch(scaled(stored), stored, labels, mask, jnp.zeros(LENGTH, jnp.int32))
    inputs = scaled(stored[0]), jnp.int32(0)
    return Kind(METHODS[name]().learner(spec), (), batches, inputs)


KINDS = {
    "sgd": lambda: linear(optax.sgd(0.1)),
    "momentum": lambda: linear(optax.sgd(0.1, momentum=0.9)),
    "adam": lambda: linear(optax.adam(0.1)),
    "anml": anml,
    "gated": lambda: gated(optax.sgd(0.1)),
    "regulated": lambda: regulated("fix"),
    "modulated": lambda: modulated("fix"),
    **{f"rule-{kind}": lambda kind=kind: local_rule(kind) for kind in ("fix", "sym", "sign")},
    **{f"policy-{rule}": lambda rule=rule: policy(rule) for rule in (*RULES, "static")},
    "policy-lesioned": lambda: policy("ABCD_lr", lesion=Lesion(zero_at=1)),
    "policy-pixels": lambda: policy("ABCD_lr", (84, 84, 3)),
    **{f"method-{name}": lambda name=name: method(name) for name in METHODS},
}
DRAW_NOTHING = ("sgd", "momentum", "adam", "anml", "gated", "policy-static")
"""Learners whose state depends on no key; no other learner is one of them."""


class Compiled(NamedTuple):
    """A kind, its states before the first example, and how they advance along its stream.

    Two lifetimes side by side: keys and the states' arrays have a leading axis of LIFETIMES.

    advance: (states, keys) -> (states, aux), compiled
    """

    kind: Kind
    start: Any
    advance: Callable[[Any, jax.Array], tuple[Any, Any]]


@functools.cache
def compiled(name) -> Compiled:
    kind = KINDS[name]()

    def along(state, key):
        return unroll(kind.learner, kind.theta, state, kind.examples, key)

    start = jax.jit(jax.vmap(lambda key: kind.learner.init(kind.theta, key)))(KEYS)
    return Compiled(kind, start, jax.jit(jax.vmap(along)))


@pytest.mark.parametrize("name", KINDS)
def test_states_keep_their_shapes_and_dtypes_in_scans_and_batches(name) -> None:
    learner, theta, examples, inputs = KINDS[name]()
    state = jax.eval_shape(learner.init, theta, KEY)
    one = jax.tree.map(lambda leaf: leaf[0], examples)
    after, aux = jax.eval_shape(learner.update, theta, state, one, KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)

    def lifetime(key):
        return unroll(learner, theta, learner.init(theta, key), examples, key)

    end, all_aux = jax.eval_shape(lifetime, KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(end, state)
    jax.tree.map(lambda whole, each: chex.assert_shape(whole, (LENGTH, *each.shape)), all_aux, aux)
    ends, _ = jax.eval_shape(jax.vmap(lifetime), jax.random.split(KEY, LIFETIMES))
    jax.tree.map(lambda many, each: chex.assert_shape(many, (LIFETIMES, *each.shape)), ends, end)
    predicted = jax.eval_shape(learner.predict, theta, state, inputs)
    count = jax.tree.leaves(inputs)[0].shape[0]
    assert predicted.shape[0] == count
    assert jnp.issubdtype(predicted.dtype, jnp.floating)


@pytest.mark.parametrize("name", KINDS)
def test_a_lifetime_is_a_function_of_its_key(name) -> None:
    _, start, advance = compiled(name)
    first, again = jax.device_get([advance(start, KEYS), advance(start, KEYS)])
    chex.assert_trees_all_equal(first, again)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(first))
    lifetimes = [jax.tree.map(lambda leaf, i=i: leaf[i], first[0]) for i in range(LIFETIMES)]
    same = jax.tree.map(np.array_equal, *lifetimes)
    assert all(jax.tree.leaves(same)) == (name in DRAW_NOTHING)


@pytest.mark.parametrize("name", KINDS)
def test_a_lifetime_in_company_is_its_updates_one_by_one(name) -> None:
    (learner, theta, examples, _), start, advance = compiled(name)
    together = jax.tree.map(lambda leaf: leaf[1], advance(start, KEYS))
    update = jax.jit(learner.update)
    state, auxes = jax.tree.map(lambda leaf: leaf[1], start), []
    for time in range(LENGTH):
        example = jax.tree.map(lambda leaf, time=time: leaf[time], examples)
        state, aux = update(theta, state, example, jax.random.fold_in(KEYS[1], time))
        auxes.append(aux)
    alone = state, jax.tree.map(lambda *each: jnp.stack(each), *auxes)
    chex.assert_trees_all_equal_shapes_and_dtypes(alone, together)
    chex.assert_trees_all_close(alone, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_a_lifetime_goes_on_from_a_checkpoint_to_the_same_bits(name, tmp_path) -> None:
    _, start, advance = compiled(name)
    halfway, _ = advance(start, KEYS)
    whole = jax.device_get(advance(halfway, KEYS))
    save_once(tmp_path / "checkpoints", LENGTH, to_host(halfway), {})
    restored, step = load_checkpoint(tmp_path, like=jax.eval_shape(lambda: halfway))
    assert step == LENGTH
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, halfway)
    chex.assert_trees_all_equal(jax.device_get(advance(restored, KEYS)), whole)


@pytest.mark.parametrize("name", KINDS)
def test_a_checkpoint_of_another_learner_is_refused_by_its_first_array(name) -> None:
    _, start, _ = compiled(name)
    arrays = to_host(start)
    wrong = next(iter(arrays))
    shape = (7, *arrays[wrong].shape)
    with pytest.raises(UserError, match=f"The toy is of another model: '{wrong}'.*{shape[0]}"):
        from_host({**arrays, wrong: np.zeros(shape)}, start, "toy")
    with pytest.raises(UserError, match=f"'{wrong}' is absent there"):
        from_host({key: arrays[key] for key in arrays if key != wrong}, start, "toy")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: mask({"head": 1.0}, ("hed",)), "No parameter is called 'hed'.*nearest is head"),
        (lambda: find_terms(["oija"]), "no term 'oija'.*nearest is oja"),
        (lambda: find_terms([]), "The rule has no terms: name some of pseudo_gradient"),
        (lambda: PolicyConfig(rule="ABCE"), "no Hebbian rule 'ABCE'.*nearest is ABC"),
        (lambda: make_policy(PolicyConfig(), (84, 84), 2), r"shape \(84, 84\) suit no policy"),
        (lambda: make_method("synergie"), "no method 'synergie'.*nearest is synergy"),
    ],
)
def test_what_no_learner_can_be_made_of_is_named_in_a_sentence(make, sentence) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        make()
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["policy-ABCD_lr", "policy-static", "policy-lesioned"])
def test_a_policy_predicts_what_it_would_do(name) -> None:
    learner, theta, examples, _ = KINDS[name]()
    theta = jax.tree.map(lambda leaf: 0.1 * leaf, theta)
    state = learner.init(theta, KEY)
    outputs = jax.vmap(lambda example: learner.update(theta, state, example, None)[1])(examples)
    np.testing.assert_allclose(learner.predict(theta, state, examples), outputs, rtol=1e-6)


@pytest.mark.parametrize("name", ["er", "synergy"])
def test_a_method_predicts_by_the_model_that_is_its_result(name) -> None:
    learner, theta, batches, inputs = KINDS[f"method-{name}"]()

    @jax.jit
    def lifetime(key):
        return unroll(learner, theta, learner.init(theta, key), batches, key)[0]

    state = lifetime(KEY)
    own = METHODS[name]()
    models = own.models(state)
    found = learner.predict(theta, state, inputs)
    for model, variables in models.items():
        logits = make_mlp((2, 2, 1), 4, (5,)).logits(variables, inputs[0])
        assert np.allclose(found, logits) == (model == own.reported)


def test_no_gradient_passes_through_what_an_unroll_reports() -> None:
    learner, theta, examples, _ = KINDS["policy-static"]()

    def reported(theta):
        return unroll(learner, theta, learner.init(theta, KEY), examples)[1].sum()

    gradient = jax.grad(reported, allow_int=True)(theta)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
