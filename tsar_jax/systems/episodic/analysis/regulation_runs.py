"""Runs of TSAR whose regulation is analysed: one by one, and pooled by their initial bias."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.errors import UserError, nearest_hint, shown
from tsar_jax.networks import TSAR
from tsar_jax.systems.episodic.analysis import regulation_passes as passes
from tsar_jax.systems.episodic.analysis import regulation_record as records
from tsar_jax.systems.episodic.targets import normaliser
from tsar_jax.systems.episodic.trained import load_state
from tsar_jax.systems.episodic.transfer import TransferConfig, reinitialise_output
from tsar_jax.systems.episodic.transfer_files import Transfer
from tsar_jax.systems.episodic.tsar import TsarConfig, effective_config, make_network, make_system
from tsar_jax.systems.episodic.tsar_presets import EXPERIMENT
from tsar_jax.training.metrics import read_rows
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import read_run

Mode = Literal["learning", "frozen"]
"""Whose regulation is collected: of a network while it learns, or as it was meta-trained."""


@dataclasses.dataclass(frozen=True)
class RegulationConfig:
    """What is collected of a run's regulation."""

    mode: Mode
    """Whose regulation."""
    layer: str
    """Layer whose time lag is counted."""
    target: str
    """The new domain."""
    transfer: TransferConfig
    """How the domain is learned: classes, images of each, bias of the output layer's fresh head."""
    step: int | None
    """Step of the checkpoint. None: the newest usable one."""


class Source(NamedTuple):
    """A run to analyse: its transfer, if it has one, and the learning rate."""

    path: Path
    name: str
    config: TsarConfig
    transferred: Transfer | None
    rate: float


class Analysed(NamedTuple):
    """A run's raw arrays, and the checkpoint's step they are of."""

    source: Source
    step: int
    record: records.Record


class Group(NamedTuple):
    """The runs of one initial bias: their arrays pooled, the best of them, and best by what."""

    runs: list[Analysed]
    pooled: records.Record
    best: Analysed
    best_by: str


def read_tsar(path: Path, layer: str) -> TsarConfig:
    """Return the config of a run of model tsar that regulates a layer.

    Raises:
        UserError: it is another run.
    """
    config = read_run(path, EXPERIMENT, TsarConfig)
    if config.model != "tsar":
        raise UserError(
            f"{path} is a run of model {config.model}, which regulates no weights: "
            "name runs of model tsar."
        )
    if layer not in config.regulated:
        raise UserError(
            f"{path} does not regulate layer {shown(layer)}: choose from "
            f"{', '.join(config.regulated)}{nearest_hint(layer, config.regulated)}."
        )
    return config


def check_poolable(first: Source, other: Source) -> None:
    """Raise UserError for two runs of one initial bias whose networks differ."""
    configs = effective_config(first.config), effective_config(other.config)
    for field in ("channels", "regulator_channels", "outputs", "regulated", "pixels"):
        values = tuple(getattr(config, field) for config in configs)
        if values[0] != values[1]:
            raise UserError(
                f"{first.path} and {other.path} have one initial bias, but cannot be pooled: "
                f"{field} is {values[0]} and {values[1]}; analyse them one by one."
            )


def load_params(path: Path, config: TsarConfig, step: int | None) -> tuple[Any, int]:
    """Return a run's parameters, without the optimiser's state, and the checkpoint's step."""
    state, found = load_state(path, make_system(config), step)
    return state.params, found


def analyse(
    source: Source, config: RegulationConfig, images: passes.Shown, fresh_key: jax.Array
) -> Analysed:
    """Collect one run's regulation, and print what is being done.

    Args:
        source: the run.
        config: what is collected.
        images: those of the transfer, in the order of learning.
        fresh_key: key of the fresh output layer.

    Raises:
        UserError: the run has no such checkpoint, or there are too many images to be counted.
    """
    # The heads began elsewhere, but are read from the checkpoint: one program serves all biases.
    network = make_network(dataclasses.replace(source.config, initial_bias=0.0))
    assert isinstance(network, TSAR)
    params, step = load_params(source.path, source.config, config.step)
    layers = tuple(network.regulated)
    passes.check_countable(params, layers, images)
    normalise = normaliser(config.target, source.config.pixels)
    plan = passes.Plan(network, normalise, layers, config.layer, config.transfer.classes)
    say_compiling(source.name)
    fresh = jax.jit(reinitialise_output, static_argnums=(0, 2))(
        network, params, config.transfer.head_bias, fresh_key
    )
    learner = passes.Subject(fresh, jnp.float32(source.rate))
    if config.mode == "learning":
        collected = collect_while_learning(source, plan, learner, images)
    else:
        collected = collect_as_meta_trained(source, plan, learner, params, images)
    found, output, chosen = collected
    say(source, "counts pairs of synapses")
    record = records.make_record(plan, found, chosen, output, lambda line: say(source, line))
    return Analysed(source, step, record)


def collect_while_learning(
    source: Source, plan: passes.Plan, learner: passes.Subject, images: passes.Shown
) -> tuple[passes.Collected, passes.OutputLayer | None, np.ndarray]:
    """Collect the regulation of a network while it learns, as `collect_twice` returns it."""
    say(source, f"learns {learned(source, images)}, twice")
    return passes.collect_twice(passes.collect_learning, plan, learner, images)


def collect_as_meta_trained(
    source: Source,
    plan: passes.Plan,
    learner: passes.Subject,
    params: Any,
    images: passes.Shown,
) -> tuple[passes.Collected, passes.OutputLayer | None, np.ndarray]:
    """Collect the regulation of a network as it is, and its output layer once it has learned.

    Args:
        source: the run.
        plan: what is collected.
        learner: the network with the fresh output layer that it learns with.
        params: parameters as they were meta-trained.
        images: those of the transfer, in the order of learning.

    Returns:
        As `collect_twice`; the output layer is None where it is not regulated.
    """
    say(source, f"sees {images.labels.size:,} images, twice")
    meta_trained = learner._replace(params=params)
    found, output, chosen = passes.collect_twice(passes.collect_frozen, plan, meta_trained, images)
    if "head" in plan.layers:
        say(source, f"learns {learned(source, images)}, for its output layer")
        output = passes.learn_and_look(plan, learner, images)
    return found, output, chosen


def learned(source: Source, images: passes.Shown) -> str:
    """Return in words how many images are learned, and at which learning rate."""
    return f"{images.labels.size:,} images at learning rate {source.rate:g}"


def say(source: Source, what: str) -> None:
    """Print a line of progress on a run."""
    print(f"{source.name}: {what} ...", flush=True)


def pool_by_bias(analysed: list[Analysed]) -> dict[float, Group]:
    """Return the runs pooled by initial bias, the highest bias first."""
    by_bias: dict[float, list[Analysed]] = {}
    for run in sorted(analysed, key=lambda run: -run.source.config.initial_bias):
        by_bias.setdefault(run.source.config.initial_bias, []).append(run)
    groups = {}
    for bias, runs in by_bias.items():
        scores, best_by = accuracies(runs)
        best = runs[int(np.argmax(scores))]
        groups[bias] = Group(runs, records.pool([run.record for run in runs]), best, best_by)
    return groups


def accuracies(runs: list[Analysed]) -> tuple[list[float], str]:
    """Return an accuracy of each run by which the best of them is told, and what it is.

    It is that at the end of their transfers where all have one, with the same settings; else the
    query accuracy over the last tenth of meta-training.
    """
    made = [run.source.transferred for run in runs]
    transfers = [transfer for transfer in made if transfer is not None]
    alike = all(transfer.settings == transfers[0].settings for transfer in transfers)
    if len(transfers) == len(runs) and alike:
        found = [float(np.mean(transfer.result.test)) for transfer in transfers]
        return found, "accuracy at the end of its transfer"
    scores = []
    for run in runs:
        rows = [
            row["accuracy"]
            for row in read_rows(run.source.path)
            if row["split"] == "train"
            and "accuracy" in row
            and 0.9 * run.step < row["step"] <= run.step
        ]
        scores.append(float(np.mean(rows)) if rows else float("-inf"))
    return scores, "query accuracy over the last tenth of its meta-training"
