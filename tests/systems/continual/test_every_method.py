"""What holds for every continual-learning method as part of a lifetime, and for its settings.

As a learner, each is among those of tests/plasticity/test_every_learner.py.
"""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_lifetimes import PART, life_of, live, lived, programs, step_keys

from tsar_jax.errors import UserError
from tsar_jax.plasticity.methods import METHODS, TaskData, make_method
from tsar_jax.systems.continual.system import ContinualConfig, make_system
from tsar_jax.training.checkpoints import load_checkpoint, save_once, to_host
from tsar_jax.training.system import System

KEY = jax.random.key(0)
SIDE_BY_SIDE = 3
METHOD_FIELDS = [
    (name, field.name, field.type)
    for name, method in METHODS.items()
    for field in dataclasses.fields(method)
]
DRAW_NOTHING = ("sgd", "joint", "ewc_on", "si", "lwf", "pnn")
"""Methods whose steps and tasks' ends depend on no key; nothing augments the toy images."""
SHARING = [name for name, method in METHODS.items() if method.filled_at_ends]

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def shapes(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize("name", METHODS)
def test_a_lifetime_is_a_system_s_state_of_the_same_shapes_at_every_step(name) -> None:
    life = life_of(name)
    system = make_system(ContinualConfig(method=name), life)
    assert isinstance(system, System)
    data = shapes(dict(life.stream.data))
    state = jax.eval_shape(system.init, KEY)
    after, scalars, arrays = jax.eval_shape(system.step, state, data, KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert {key: value.shape for key, value in scalars.items()} == {"loss": ()}
    assert arrays == {}
    evaluated = jax.eval_shape(system.evaluate, state, data, KEY)
    assert set(evaluated) == {"accuracy", "task_accuracy"}

    many = jax.eval_shape(lambda leaf: jax.random.split(leaf, SIDE_BY_SIDE), KEY)
    states = jax.eval_shape(jax.vmap(system.init), many)
    together, _, _ = jax.eval_shape(jax.vmap(system.step, (0, None, 0)), states, data, many)
    jax.tree.map(
        lambda all_, one: chex.assert_shape(all_, (SIDE_BY_SIDE, *one.shape)), together, state
    )


def same(one, other) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


@pytest.mark.parametrize("name", METHODS)
def test_a_lifetime_is_a_function_of_its_keys(name) -> None:
    whole = lived(name)
    for lifetime in whole.after:
        chex.assert_trees_all_equal_shapes_and_dtypes(lifetime, whole.begin)
    again = live(name)
    chex.assert_trees_all_equal(again, whole)
    assert not same(lived(name, start_seed=1).end.learner.net, whole.end.learner.net)
    drawn_otherwise = lived(name, step_seed=1).end.learner
    assert same(drawn_otherwise, whole.end.learner) == (name in DRAW_NOTHING)


@pytest.mark.parametrize("name", METHODS)
def test_a_lifetime_goes_on_from_a_checkpoint_to_the_same_bits(name, tmp_path) -> None:
    """Within an epoch of the last task: with a buffer, and what a task's end has left."""
    whole = lived(name)
    done = int(whole.after[-2].step)
    save_once(tmp_path / "checkpoints", done, to_host(whole.after[-2]), {})
    restored, step = load_checkpoint(tmp_path, like=shapes(whole.begin))
    assert step == done == life_of(name).stream.steps - PART
    _, part = programs(name)
    end, _ = part(restored, step_keys(name)[-1])
    chex.assert_trees_all_equal(jax.device_get(end), whole.end)


@pytest.mark.parametrize("name", METHODS)
def test_a_checkpoint_of_a_wider_network_is_refused_by_its_first_array(name, tmp_path) -> None:
    begin = lived(name).begin
    wider = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), begin.learner.net)
    save_once(
        tmp_path / "checkpoints",
        0,
        to_host(begin._replace(learner=begin.learner._replace(net=wider))),
        {},
    )
    with pytest.raises(UserError, match=r"step 0 in .* is of another model: 'learner/net/params/"):
        load_checkpoint(tmp_path, like=shapes(begin))


@pytest.mark.parametrize("name", METHODS)
def test_every_model_classifies_and_one_of_them_is_the_result(name) -> None:
    life = life_of(name)
    spec, method, state = life.spec, life.method, lived(name).end.learner
    images = spec.normalise(jnp.asarray(life.stream.data["test_images"])[:5])
    models = method.models(state)
    assert method.reported in models
    predicted = jax.jit(life.method_learner.predict)((), state, (images, jnp.int32(1)))
    for model, variables in models.items():
        logits = method.classify(spec, state, variables, images, jnp.int32(1))
        assert logits.shape == (5, spec.classes)
        assert np.isfinite(logits).any(1).all()
        if model == method.reported:
            np.testing.assert_allclose(predicted, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_a_task_s_end_changes_no_shape_and_nothing_without_boundaries(name) -> None:
    life = life_of(name)
    spec, method, state = life.spec, life.method, lived(name).begin.learner
    stored = jnp.zeros((11, *spec.image.shape), spec.image.dtype)
    task = TaskData(stored, jnp.zeros(11, jnp.int32), jnp.ones(11))

    def at_end(state, task, number, key):
        return method.at_task_end(spec, state, task, number, key)

    if not method.boundaries:
        chex.assert_trees_all_equal(at_end(state, task, jnp.int32(0), KEY), state)
    after = jax.eval_shape(at_end, state, task, jnp.int32(0), KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


@pytest.mark.parametrize(("name", "field", "kind"), METHOD_FIELDS)
def test_a_hyper_parameter_that_cannot_be_is_named(name, field, kind) -> None:
    wrong = ["much"] if kind is bool else [-1, math.nan if kind is float else 1.5, "much"]
    for value in wrong:
        with pytest.raises(UserError, match=field) as error:
            make_method(name, **{field: value})
        assert str(error.value).endswith(".")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", METHODS)
def test_a_hyper_parameter_that_there_is_not_is_named_with_those_there_are(name) -> None:
    fields = [field.name for field in dataclasses.fields(METHODS[name])]
    sentence = f"no hyper-parameter of {name} 'momentun'" if fields else "has no hyper-parameters"
    with pytest.raises(UserError, match=sentence) as error:
        make_method(name, momentun=0.9)
    assert all(field in str(error.value) for field in fields)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_static(name) -> None:
    """Of its values alone, so that a program that was compiled for it can be found again."""
    method = METHODS[name]()
    assert (method, hash(method)) == (METHODS[name](), hash(METHODS[name]()))
    for field in dataclasses.fields(method):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method, field.name, getattr(method, field.name))


def test_a_problem_spec_is_static() -> None:
    spec = life_of("er").spec
    same = dataclasses.replace(spec, task_classes=np.array(spec.task_classes))
    assert (spec, hash(spec)) == (same, hash(same))
    assert dataclasses.replace(spec, task_classes=np.ones((2, 4), bool)) != spec


@pytest.mark.parametrize("name", SHARING)
def test_a_buffer_that_tasks_or_classes_cannot_share_is_named(name) -> None:
    life = life_of(name, capacity=1)
    with pytest.raises(UserError, match=r"buffer is 1, but \d \w+ have to share it: raise it\."):
        jax.eval_shape(
            life.step, jax.eval_shape(life.init, KEY, life.stream.data), life.stream.data, KEY
        )


def test_a_method_that_there_is_not_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no method 'SYNERG'.*sgd, joint, er.*nearest is synergy"):
        make_method("SYNERG")
