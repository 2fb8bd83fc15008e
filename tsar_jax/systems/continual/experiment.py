"""Experiments of continual learning: from a config to a method on its stream, and to its
outcome.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.data import load_labelled
from tsar_jax.data.continual import Stream, make_stream, split_name
from tsar_jax.data.continual.registry import GCIL_SETTINGS, StreamSettings
from tsar_jax.data.continual.validation import hold_out
from tsar_jax.data.types import LabelledDataset
from tsar_jax.errors import UserError, doing_without
from tsar_jax.networks.classifier import Classifier, Variables
from tsar_jax.networks.mlp import make_mlp
from tsar_jax.networks.resnet import make_resnet18
from tsar_jax.plasticity.methods import METHODS, Method, make_method, method_settings
from tsar_jax.plasticity.methods.published import (
    HyperParameters,
    alike_streams,
    hyper_parameters,
    nearest_row,
    provenance,
)
from tsar_jax.plasticity.methods.settings import given_settings
from tsar_jax.systems.continual.measures import Outcome
from tsar_jax.systems.continual.system import (
    ContinualConfig,
    Experiment,
    RunState,
    make_spec,
    make_system,
    untrained_accuracy,
)
from tsar_jax.training.loop import make_keys
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.seeds import stack_seeds

LARGE_SIDE = 32
"""Largest height of the images that count as small."""


class PreparedExperiment(NamedTuple):
    """A method on a stream, ready to train.

    config: settings with nothing left open. experiment: its pure functions. source: of the data.
    values_of: a line that names the published values which fill open settings, "" if there are
    none.
    """

    config: ContinualConfig
    experiment: Experiment
    source: str
    values_of: str


def prepare(config: ContinualConfig) -> PreparedExperiment:
    """Return the experiment that a config describes, with open settings filled in.

    Raises:
        UserError: a setting does not exist or does not fit the others, or the data are missing.
    """
    make_method(config.method, **given_settings(config.settings))
    with doing_without("stream rot-emnist, as in preset smoke, needs no data to be prepared"):
        dataset = load_labelled(split_name(config.stream)[1])
    if config.validation:
        dataset = hold_out(dataset)
    config, values, values_of = with_published(config, dataset)
    method = make_method(config.method, **given_settings(config.settings))
    stream = stream_of(config, method, dataset)
    check_buffer(config, values.replay)
    if config.steps is None:
        config = dataclasses.replace(config, steps=stream.steps)
    elif config.steps > stream.steps:
        raise UserError(
            f"steps is {config.steps}, but {config.stream} has only {stream.steps}: lower it, or "
            "leave it out."
        )
    net = network(config, stream)
    spec = make_spec(
        net, stream, learning_rate=values.lr, capacity=config.buffer, replay=values.replay
    )
    return PreparedExperiment(config, Experiment(spec, method, stream), dataset.source, values_of)


class Completed(NamedTuple):
    """A config with the published best in place of open settings.

    values: learning rate, batches, epochs and hyper-parameters of the config. values_of: as in
    `PreparedExperiment`.
    """

    config: ContinualConfig
    values: HyperParameters
    values_of: str


def with_published(config: ContinualConfig, dataset: LabelledDataset) -> Completed:
    """Return a config whose Nones and missing hyper-parameters are the published best."""
    images = dataset.train.images
    large = images.shape[1] > LARGE_SIDE or len(dataset.train.names) > 100
    streams = alike_streams(config.stream, images.ndim == 4, large)
    row = nearest_row(config.method, streams, config.buffer, config.published)
    fields = [field.name for field in dataclasses.fields(METHODS[config.method])]
    best = hyper_parameters(row, config.method, fields)
    given = given_settings(config.settings)
    values = HyperParameters(
        lr=config.lr or best.lr,
        batch=config.batch or best.batch,
        replay=config.replay or best.replay,
        epochs=config.epochs or best.epochs,
        settings={**best.settings, **given},
    )
    filled = dataclasses.replace(
        config,
        lr=values.lr,
        batch=values.batch,
        replay=values.replay,
        epochs=values.epochs,
        settings=method_settings(config.method, **values.settings),
    )
    if filled == config:
        return Completed(config, values, "")
    same = split_name(config.stream) == split_name(streams[0])
    stream = streams[0] if same else config.stream
    line = provenance(row, config.method, stream, config.buffer, config.published)
    by_default = [name for name in fields if name not in best.settings and name not in given]
    if by_default:
        line += f"; {', '.join(by_default)}: the method's own default"
    return Completed(filled, values, line)


def check_buffer(config: ContinualConfig, replay: int) -> None:
    """Check that a method's buffer, where it has one, holds a draw of `replay` images.

    Raises:
        UserError: it is smaller.
    """
    if METHODS[config.method].buffered and config.buffer < replay:
        raise UserError(
            f"buffer is {config.buffer}, smaller than a draw of {replay} from it: raise buffer or "
            "lower replay."
        )


def stream_of(config: ContinualConfig, method: Method, dataset: LabelledDataset) -> Stream:
    """Return the stream of a config whose batch and epochs are given."""
    shared = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(StreamSettings)
        if field.name != "joint"
    }
    return make_stream(config.stream, dataset, StreamSettings(**shared, joint=method.joint))


def network(config: ContinualConfig, stream: Stream) -> Classifier:
    """Return a multilayer perceptron for grey images, ResNet-18 for colour."""
    if stream.image[-1] == 1:
        return make_mlp(stream.image, stream.classes, config.hidden)
    return make_resnet18(stream.image, stream.classes, config.width)


def init_from_network(
    prepared: PreparedExperiment, variables: Variables, key: jax.Array
) -> RunState:
    """Return the state of a run that begins with a network.

    Args:
        prepared: the experiment.
        variables: the network's.
        key: the seed's, from which all else is drawn.
    """
    spec = prepared.experiment.spec
    net = spec.net._replace(init=lambda key: jax.tree.map(jnp.array, variables))
    experiment = dataclasses.replace(prepared.experiment, spec=dataclasses.replace(spec, net=net))
    return make_system(prepared.config, experiment).init(key)


def network_like(prepared: PreparedExperiment) -> Variables:
    """Return the shapes and dtypes of an experiment's network."""
    return jax.eval_shape(prepared.experiment.spec.net.init, jax.random.key(0))


def measure_outcome(prepared: PreparedExperiment, state: Any) -> Outcome:
    """Return the measurements of a finished run.

    Args:
        prepared: the experiment.
        state: the run's last, of one seed or several, as `train` returns it.
    """
    config, experiment = prepared.config, prepared.experiment
    run_states: RunState = stack_seeds(state)
    tested = np.asarray(run_states.tested)[..., None, None]
    accuracy = np.where(tested, np.asarray(run_states.accuracy, float), np.nan)
    keys = make_keys(config.seed, config.seeds).init.reshape(-1)
    say_compiling("accuracy untrained")
    untrained = untrained_accuracy(experiment, keys, jax.device_put(experiment.stream.data))
    return Outcome(
        method=config.method,
        stream=config.stream,
        buffer=config.buffer if experiment.method.buffered else 0,
        seeds=(config.seed, config.seeds),
        models=tuple(experiment.models),
        reported=experiment.method.reported,
        kind=experiment.stream.kind,
        cumulative=experiment.stream.cumulative,
        accuracy=accuracy,
        untrained=np.asarray(untrained, float),
        settings=described(config),
    )


def described(config: ContinualConfig) -> dict[str, Any]:
    """Return the settings that decide a result, as JSON values."""
    names = ("lr", "batch", "replay", "epochs", "tasks", "steps", "validation")
    general = {name: getattr(config, name) for name in (*names, *GCIL_SETTINGS)}
    return general | {"settings": given_settings(config.settings)}
