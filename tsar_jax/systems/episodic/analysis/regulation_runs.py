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
"""State of the network whose regulation is collected: while it learns, or as meta-trained
(frozen)."""


@dataclasses.dataclass(frozen=True)
class RegulationConfig:
    """Settings of an analysis of a run's regulation."""

    mode: Mode
    """State of the network: learning or frozen."""
    layer: str
    """Layer whose time lag is counted."""
    target: str
    """Name of the new domain."""
    transfer: TransferConfig
    """Settings of the transfer: number of classes, images of each, bias of the regulator's head for
    the output layer."""
    step: int | None
    """Step of the checkpoint. None: the newest usable one."""


class Source(NamedTuple):
    """A run to analyse.

    path: its folder.
    name: its name in texts and files.
    config: its config.
    transfer: its transfer to the domain, None where it has none.
    learning_rate: Adam's while it learns the domain.
    """

    path: Path
    name: str
    config: TsarConfig
    transfer: Transfer | None
    learning_rate: float


class Analysed(NamedTuple):
    """An analysed run.

    source: the run.
    step: step of its checkpoint.
    record: its raw arrays.
    """

    source: Source
    step: int
    record: records.Record


class Group(NamedTuple):
    """The runs of one initial bias.

    runs: the runs.
    pooled: their raw arrays pooled.
    best: the run of the highest accuracy.
    best_by: the kind of that accuracy, in words.
    """

    runs: list[Analysed]
    pooled: records.Record
    best: Analysed
    best_by: str


def read_tsar(path: Path, layer: str) -> TsarConfig:
    """Return the config of a run of model tsar that regulates a layer.

    Raises:
        UserError: the folder holds no such run.
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
    state, loaded_step = load_state(path, make_system(config), step)
    return state.params, loaded_step


def analyse(
    source: Source, config: RegulationConfig, stream: passes.ImageStream, output_key: jax.Array
) -> Analysed:
    """Collect one run's regulation, and print the progress.

    Args:
        source: the run.
        config: settings of the analysis.
        stream: images of the transfer, in the order of learning.
        output_key: key of the output layer, which is drawn anew.

    Raises:
        UserError: the run has no such checkpoint, or there are too many images to be counted.
    """
    # The heads began elsewhere, but are read from the checkpoint: one program serves all biases.
    network = make_network(dataclasses.replace(source.config, initial_bias=0.0))
    assert isinstance(network, TSAR)
    params, step = load_params(source.path, source.config, config.step)
    layers = tuple(network.regulated)
    passes.check_countable(params, layers, stream)
    normalise = normaliser(config.target, source.config.pixels)
    spec = passes.PassSpec(network, normalise, layers, config.layer, config.transfer.classes)
    say_compiling(source.name)
    initial = jax.jit(reinitialise_output, static_argnums=(0, 2))(
        network, params, config.transfer.head_bias, output_key
    )
    setup = passes.LearnerSetup(initial, jnp.float32(source.learning_rate))
    if config.mode == "learning":
        collected, output, counted = collect_while_learning(source, spec, setup, stream)
    else:
        collected, output, counted = collect_as_meta_trained(source, spec, setup, params, stream)

    def report(line: str) -> None:
        print_progress(source, line)

    report("counts pairs of synapses")
    record = records.make_record(spec, collected, counted, output, report)
    return Analysed(source, step, record)


def collect_while_learning(
    source: Source,
    spec: passes.PassSpec,
    setup: passes.LearnerSetup,
    stream: passes.ImageStream,
) -> tuple[passes.Collected, passes.OutputLayer | None, np.ndarray]:
    """Collect the regulation of a network while it learns, as `collect_twice` returns it."""
    print_progress(source, f"learns {learning_text(source, stream)}, twice")
    return passes.collect_twice(passes.collect_learning, spec, setup, stream)


def collect_as_meta_trained(
    source: Source,
    spec: passes.PassSpec,
    setup: passes.LearnerSetup,
    params: Any,
    stream: passes.ImageStream,
) -> tuple[passes.Collected, passes.OutputLayer | None, np.ndarray]:
    """Collect the regulation of a meta-trained network, and its output layer once it has learned.

    Args:
        source: the run.
        spec: description of the passes.
        setup: the network with the new output layer that it learns with.
        params: parameters as they were meta-trained.
        stream: images of the transfer, in the order of learning.

    Returns:
        The results of `collect_twice`; the output layer is None where it is not regulated.
    """
    print_progress(source, f"sees {stream.labels.size:,} images, twice")
    frozen = setup._replace(params=params)
    collected, output, counted = passes.collect_twice(passes.collect_frozen, spec, frozen, stream)
    if "head" in spec.layers:
        print_progress(source, f"learns {learning_text(source, stream)}, for its output layer")
        output = passes.learn_then_show(spec, setup, stream)
    return collected, output, counted


def learning_text(source: Source, stream: passes.ImageStream) -> str:
    """Return in words how many images are learned, and at which learning rate."""
    return f"{stream.labels.size:,} images at learning rate {source.learning_rate:g}"


def print_progress(source: Source, text: str) -> None:
    """Print a line of progress on a run."""
    print(f"{source.name}: {text} ...", flush=True)


def pool_by_bias(analysed: list[Analysed]) -> dict[float, Group]:
    """Return the runs pooled by initial bias, the highest bias first."""
    by_bias: dict[float, list[Analysed]] = {}
    for run in sorted(analysed, key=lambda run: -run.source.config.initial_bias):
        by_bias.setdefault(run.source.config.initial_bias, []).append(run)
    groups = {}
    for bias, runs in by_bias.items():
        scores, best_by = run_accuracies(runs)
        best = runs[int(np.argmax(scores))]
        groups[bias] = Group(runs, records.pool([run.record for run in runs]), best, best_by)
    return groups


def run_accuracies(runs: list[Analysed]) -> tuple[list[float], str]:
    """Return an accuracy of each run, by which the best of them is found, and its kind in words.

    It is that at the end of their transfers where all have one, with the same settings; else the
    query accuracy over the last tenth of meta-training.
    """
    transfers = [run.source.transfer for run in runs if run.source.transfer is not None]
    alike = all(transfer.settings == transfers[0].settings for transfer in transfers)
    if len(transfers) == len(runs) and alike:
        at_end = [float(np.mean(transfer.result.test)) for transfer in transfers]
        return at_end, "accuracy at the end of its transfer"
    scores = []
    for run in runs:
        query_accuracies = [
            row["accuracy"]
            for row in read_rows(run.source.path)
            if row["split"] == "train"
            and "accuracy" in row
            and 0.9 * run.step < row["step"] <= run.step
        ]
        scores.append(float(np.mean(query_accuracies)) if query_accuracies else float("-inf"))
    return scores, "query accuracy over the last tenth of its meta-training"
