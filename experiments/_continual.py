"""What the continual-learning experiments share: a config made whole, and what it describes."""

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
from tsar_jax.systems.continual.measures import Outcome
from tsar_jax.systems.continual.methods import METHODS, make_method
from tsar_jax.systems.continual.methods.published import (
    alike_streams,
    hyper_parameters,
    nearest_row,
    provenance,
)
from tsar_jax.systems.continual.system import (
    ContinualConfig,
    Life,
    Lifetime,
    make_spec,
    make_system,
    untrained_accuracy,
)
from tsar_jax.training.progress import say_compiling

LARGE_SIDE = 32


class Study(NamedTuple):
    """config: with nothing left open. life: its pure functions. source: of the data.

    values_of: a line about whose values it took where something was left open, "" if nothing was.
    """

    config: ContinualConfig
    life: Life
    source: str
    values_of: str


def prepare(config: ContinualConfig) -> Study:
    """Fills in what a config leaves to the published best, and makes what it describes.

    Raises UserError for what cannot be.
    """
    make_method(config.method, config.settings)
    with doing_without("--stream rot-emnist needs no data to be prepared, as --preset smoke"):
        dataset = load_labelled(split_name(config.stream)[1])
    if config.validation:
        dataset = hold_out(dataset)
    config, values_of = with_published(config, dataset)
    method = make_method(config.method, config.settings)
    shared = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(StreamSettings)
        if field.name != "joint"
    }
    settings = StreamSettings(**shared, joint=method.joint)
    stream = make_stream(config.stream, dataset, settings)
    check_buffer(config)
    if config.steps is None:
        config = dataclasses.replace(config, steps=stream.steps)
    assert config.steps is not None
    if config.steps > stream.steps:
        raise UserError(
            f"steps is {config.steps}, but {config.stream} has only {stream.steps}: lower it, or "
            "leave it out."
        )
    net = network(config, stream)
    assert config.lr is not None
    assert config.replay is not None
    spec = make_spec(net, stream, rate=config.lr, capacity=config.buffer, replay=config.replay)
    return Study(config, Life(spec, method, stream), dataset.source, values_of)


def with_published(
    config: ContinualConfig, dataset: LabelledDataset
) -> tuple[ContinualConfig, str]:
    """Return a config whose Nones and missing hyper-parameters are the published best.

    And a line about whose values these are; "" where nothing was left open.
    """
    images = dataset.train.images
    large = images.shape[1] > LARGE_SIDE or len(dataset.train.names) > 100
    streams = alike_streams(config.stream, images.ndim == 4, large)
    row = nearest_row(config.method, streams, config.buffer, config.published)
    fields = [field.name for field in dataclasses.fields(METHODS[config.method])]
    best = hyper_parameters(row, config.method, fields)
    given = {setting.partition("=")[0] for setting in config.settings}
    added = [f"{name}={value:g}" for name, value in best.settings.items() if name not in given]
    filled = dataclasses.replace(
        config,
        lr=config.lr or best.lr,
        batch=config.batch or best.batch,
        replay=config.replay or best.replay,
        epochs=config.epochs or best.epochs,
        settings=(*config.settings, *added),
    )
    if filled == config:
        return config, ""
    same = split_name(config.stream) == split_name(streams[0])
    stream = streams[0] if same else config.stream
    line = provenance(row, config.method, stream, config.buffer, config.published)
    by_default = [name for name in fields if name not in best.settings and name not in given]
    if by_default:
        line += f"; {', '.join(by_default)}: the method's own default"
    return filled, line


def check_buffer(config: ContinualConfig) -> None:
    """Raises UserError where the buffer of a method that has one is smaller than a draw."""
    assert config.replay is not None
    if METHODS[config.method].buffered and config.buffer < config.replay:
        raise UserError(
            f"buffer is {config.buffer}, smaller than a draw of {config.replay} from it: raise "
            "--buffer or lower --replay."
        )


def network(config: ContinualConfig, stream: Stream) -> Classifier:
    """A multilayer perceptron for grey images, ResNet-18 for colour."""
    if stream.image[-1] == 1:
        return make_mlp(stream.image, stream.classes, config.hidden)
    return make_resnet18(stream.image, stream.classes, config.width)


def lifetimes_of(study: Study, variables: Variables) -> Lifetime:
    """Return the lifetimes of all seeds before their first step, each with the network given."""
    spec = study.life.spec
    net = spec.net._replace(init=lambda key: jax.tree.map(jnp.array, variables))
    life = dataclasses.replace(study.life, spec=dataclasses.replace(spec, net=net))
    return make_system(study.config, life).init(jax.random.key(0))


def network_like(study: Study) -> Variables:
    """Return the shapes and dtypes of a study's network."""
    return jax.eval_shape(study.life.spec.net.init, jax.random.key(0))


def measured(study: Study, lifetimes: Lifetime) -> Outcome:
    """What a finished run has measured."""
    config, life = study.config, study.life
    accuracy = np.asarray(lifetimes.accuracy, float)
    roots = jax.device_get(lifetimes.root)
    say_compiling("accuracy untrained")
    untrained = untrained_accuracy(life, roots, jax.device_put(life.stream.data))
    return Outcome(
        method=config.method,
        stream=config.stream,
        buffer=config.buffer if life.method.buffered else 0,
        seeds=(config.seed, config.seeds),
        models=tuple(life.models),
        reported=life.method.reported,
        kind=life.stream.kind,
        cumulative=life.stream.cumulative,
        accuracy=np.where(accuracy < 0, np.nan, accuracy),
        untrained=np.asarray(untrained, float),
        settings=described(config),
    )


def described(config: ContinualConfig) -> dict[str, Any]:
    """The settings that decide a result."""
    names = ("lr", "batch", "replay", "epochs", "settings", "tasks", "steps", "validation")
    return {name: getattr(config, name) for name in (*names, *GCIL_SETTINGS)}
