"""Import of the continual-learning releases' networks as a run."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.cli.imported import Imported, as_float32, check_shapes, settings
from tsar_jax.interop.naming import check_arrays, without_prefix
from tsar_jax.interop.torch_files import Content
from tsar_jax.networks.classifier import Variables
from tsar_jax.systems.continual.experiment import (
    PreparedExperiment,
    init_from_network,
    measure_outcome,
    network_like,
    prepare,
)
from tsar_jax.systems.continual.measures import write_outcome
from tsar_jax.systems.continual.presets import DIGITS, EXPERIMENT
from tsar_jax.systems.continual.release import (
    mlp_from_release,
    mlp_names,
    resnet18_from_release,
    resnet18_names,
    resnet18_statistics,
)
from tsar_jax.systems.continual.system import RunState
from tsar_jax.training.loop import make_keys
from tsar_jax.training.run import Run

STREAMS = {"mlp": "rot-mnist", "resnet18": "seq-cifar10"}
"""Default stream by kind."""
FIRST = {"mlp": "fc1.weight", "resnet18": "conv1.weight"}
"""Name of the network's first array by kind."""
NAMES = {"mlp": mlp_names(), "resnet18": [*resnet18_names(), *resnet18_statistics()]}


def import_continual(kind: str, content: Content, argv: list[str], text: str) -> Imported:
    """Return a finished run of continual_train, its network tested once. Raises UserError."""
    arrays = without_prefix(content.arrays, FIRST[kind])
    check_arrays({name: arrays[name] for name in NAMES[kind] if name in arrays})
    variables = as_float32(
        mlp_from_release(arrays) if kind == "mlp" else resnet18_from_release(arrays)
    )
    base = dataclasses.replace(DIGITS, method="sgd", stream=STREAMS[kind])
    config = settings(kind, base, argv, network_sizes(kind, variables), text)
    prepared = prepare(config)
    network = f"the network for {config.stream}"
    check_shapes(variables, network_like(prepared), network, "--stream")
    run_state = with_accuracy(
        prepared, init_from_network(prepared, variables, make_keys(prepared.config.seed).init)
    )

    def finish(run: Run) -> None:
        write_outcome(run.path, measure_outcome(prepared, run_state))

    remarks = (f"stream {config.stream}, data: {prepared.source}",)
    step = prepared.config.steps
    assert step is not None
    return Imported(EXPERIMENT, prepared.config, run_state, step, remarks, finish)


def network_sizes(kind: str, variables: Variables) -> dict[str, Any]:
    """Return the fields of the config that follow from the arrays' shapes."""
    params = variables.params
    if kind == "mlp":
        return {"hidden": tuple(params[f"layer_{index}"]["bias"].size for index in range(2))}
    return {"width": params["bn1"]["bias"].size}


def with_accuracy(prepared: PreparedExperiment, run_state: RunState) -> RunState:
    """Return the state with the accuracy after the last task, on all tests due then."""
    experiment = prepared.experiment
    tests = np.arange(len(experiment.stream.task_classes))
    due = tests == experiment.stream.tasks - 1 if experiment.stream.cumulative else tests >= 0
    data = jax.device_put(experiment.stream.data)
    measure = jax.jit(
        lambda state, data: experiment.test(state.learner, data, state.course, jnp.asarray(due))
    )
    return run_state._replace(
        accuracy=run_state.accuracy.at[-1].set(measure(run_state, data)),
        tested=run_state.tested.at[-1].set(due),
    )
