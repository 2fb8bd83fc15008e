"""Learners of a composition that are continual-learning methods of `tsar_jax.plasticity.methods`.

A method that needs no boundaries of tasks is a learner by its own name; an example is a batch of
one. One more is a subclass of `Method`, registered in `METHODS` by a module of yours.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from tsar_jax.errors import UserError
from tsar_jax.networks.classifier import Variables
from tsar_jax.networks.perceptron import make_perceptron
from tsar_jax.plasticity.learner import Learner
from tsar_jax.plasticity.methods import METHODS, Batch, Method, ProblemSpec, TrainState, make_method
from tsar_jax.plasticity.methods.published import alike_streams, hyper_parameters, nearest_row
from tsar_jax.plasticity.methods.settings import given_settings
from tsar_jax.systems.compose.config import ComposeConfig, refuse_settings
from tsar_jax.systems.compose.learners.types import (
    LEARNERS,
    RATES,
    WEIGHTS,
    Component,
    MakeLearner,
    Theta,
    need_labels,
)
from tsar_jax.systems.compose.perceptron import draw_weights

PUBLISHED_FOR = {"permuted": "perm-mnist"}
"""Stream of the published tables that a stream is most like, if it is not `OTHERWISE`."""
OTHERWISE = "seq-mnist"


def find_learner(name: str) -> MakeLearner:
    """Return the learner of a name, which may be that of a continual-learning method.

    Raises:
        UserError: there is none, or the method must be told about tasks.
    """
    if name in LEARNERS or name not in METHODS:
        return LEARNERS.find(name)
    if needs_tasks(METHODS[name]):
        able = ", ".join(other for other, method in METHODS.items() if not needs_tasks(method))
        raise UserError(
            f"The method {name} must be told about tasks, but a composition tells its learner of "
            f"none: choose from {able}."
        )
    return partial(method_component, name)


def needs_tasks(method: type[Method]) -> bool:
    """Return whether a method can learn only where it is told about tasks."""
    return method.boundaries or method.joint or "general" not in method.kinds


def find_method(name: str, config: ComposeConfig) -> Method:
    """Return a method with config's hyper-parameters, those left open as published.

    They are those of the stream most like config's.
    """
    streams = alike_streams(PUBLISHED_FOR.get(config.stream, OTHERWISE), colour=False, large=False)
    row = nearest_row(name, streams, config.buffer, "synergy")
    fields = [field.name for field in dataclasses.fields(METHODS[name])]
    published = hyper_parameters(row, name, fields).settings
    return make_method(name, **published | given_settings(config.settings))


def method_component(
    name: str, config: ComposeConfig, sizes: tuple[int, ...], labelled: bool
) -> Component:
    """Return the learner of a method, whose state is the method's `TrainState`.

    theta["rates"] is the natural logarithm of the only learning rate, so that it stays positive.
    Predictions are those of the model that is the method's result; the outputs before an update are
    the working model's.
    """
    need_labels(name, labelled)
    refuse_settings(config, f"learner {name}", "units", "distribution")
    method, spec = find_method(name, config), problem_spec(config, sizes)

    def init(key: jax.Array) -> Theta:
        return {
            WEIGHTS: draw_weights(config, key, sizes),
            RATES: jnp.full((), jnp.log(config.rate)),
        }

    def given(theta: Theta) -> Learner:
        """Return the method under a theta: first weights, and the learning rate."""
        net = spec.net._replace(init=lambda key: Variables(theta[WEIGHTS], {}))
        rate = jnp.exp(theta[RATES])
        return method.learner(dataclasses.replace(spec, net=net, learning_rate=rate))

    def update(theta: Theta, state: TrainState, example: Any, key: jax.Array) -> Any:
        batch = batch_of_one(*example)
        # Those of the working model, which the update computes anyway.
        outputs = spec.net.logits(state.net, batch.images)[0]
        return given(theta).update((), state, batch, key)[0], outputs

    learner = Learner(
        lambda theta, key: given(theta).init((), key),
        update,
        lambda theta, state, inputs: given(theta).predict((), state, (inputs, None)),
    )
    return Component(
        init,
        learner,
        lambda state: state.net.params,
        lambda state, weights: state._replace(net=state.net._replace(params=weights)),
        (WEIGHTS, RATES),
        replays=method.buffered,
    )


def problem_spec(config: ComposeConfig, sizes: tuple[int, ...]) -> ProblemSpec:
    """Return the problem of a perceptron over features, all outputs in one task."""
    return ProblemSpec(
        net=make_perceptron(sizes, config.beta),
        learning_rate=config.rate,
        capacity=config.buffer,
        replay=config.replayed,
        tasks=1,
        classes=sizes[-1],
        task_classes=((True,) * sizes[-1],),
        image=jax.ShapeDtypeStruct((sizes[0],), jnp.result_type(float)),
        augment=lambda features, key: features,
        normalise=lambda features: features,
    )


def batch_of_one(features: jax.Array, label: jax.Array) -> Batch:
    """Return an example, features [n] and label [], as a batch; all are of task number 0."""
    row = features[None]
    return Batch(row, row, label.astype(jnp.int32)[None], jnp.ones(1), jnp.zeros((), jnp.int32))


for _name, _method in METHODS.items():
    if _name not in LEARNERS and not needs_tasks(_method):
        LEARNERS.register(_name)(partial(method_component, _name))
