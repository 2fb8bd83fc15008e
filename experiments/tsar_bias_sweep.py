"""Meta-train a TSAR for each of several initial biases, and transfer each to a new domain.

Examples:
  tsar-jax run tsar_bias_sweep --preset smoke --out runs/bias-smoke     does it run?
  tsar-jax run tsar_bias_sweep --out runs/bias                          0 -2 -4 -8, narrow
  tsar-jax run tsar_bias_sweep --out runs/bias --biases 0 -8 --train.steps 4000
  tsar-jax run tsar_bias_sweep --preset paper --out runs/bias-paper     0 -1 ... -12, as published

Repeating the command after a stop resumes the unfinished and skips the finished. A bias of -8
silences nearly every synapse at first ("growing sensors"), one of 0 opens them ("sculpting").
Each is an ordinary run of tsar_meta_train in OUT/bias-0, OUT/bias-8 ..., with its transfer beside
it. Writes OUT/bias_sweep.json, OUT/table.md and OUT/figures/bias_sweep.png and .pdf: accuracy
against initial bias, and how many of the third convolution's gates are open.
"""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from tsar_jax import cli
from tsar_jax.data import omniglot
from tsar_jax.errors import UserError, quoted
from tsar_jax.systems.episodic import transfer_arguments, tsar_presets
from tsar_jax.systems.episodic.analysis.regulation import THRESHOLDS
from tsar_jax.systems.episodic.image_regulation import Normalise, open_share, regulates_third
from tsar_jax.systems.episodic.meta_test import Result
from tsar_jax.systems.episodic.meta_test_results import (
    TRAINED,
    percent,
    read_results,
    results_to_json,
)
from tsar_jax.systems.episodic.system import check_data
from tsar_jax.systems.episodic.targets import check_domain, load_target
from tsar_jax.systems.episodic.trained import check_plastic
from tsar_jax.systems.episodic.transfer import TransferConfig, check_target, transfer
from tsar_jax.systems.episodic.transfer_arguments import TransferArguments, default_name
from tsar_jax.systems.episodic.transfer_files import KINDS, read_arguments
from tsar_jax.systems.episodic.tsar import (
    TRANSFERRED,
    TsarConfig,
    effective_config,
    make_network,
    make_system,
)
from tsar_jax.systems.episodic.tsar_presets import EXPERIMENT
from tsar_jax.training.config import config_difference, config_to_json
from tsar_jax.training.loop import train
from tsar_jax.training.preset import Preset
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import Run, check_writable, read_run, write_atomically

OPEN = THRESHOLDS[1]
"""Threshold above which a gate counts as open."""

OPEN_SHARE = "open_share"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Initial biases, and the training and transfer of each."""

    biases: tuple[float, ...]
    """Initial biases of the regulator's heads, one run each."""
    train: TsarConfig
    """Meta-training of each run; its initial_bias is not used."""
    transfer: TransferConfig
    """Transfer of each run."""
    target: str = "mini_imagenet"
    """The new domain: mini_imagenet, cifar100, omniglot, or the name of images of your own."""

    def __post_init__(self) -> None:
        """Raise UserError for impossible values."""
        check_domain(self.target)
        if not self.biases or len(set(self.biases)) < len(self.biases):
            raise UserError(f"biases must be one or more different numbers, but is {self.biases}.")
        if self.train.model != "tsar" or not regulates_third(make_network(self.train)):
            raise UserError(
                "The sweep needs a regulated third convolution: leave train.model at tsar and "
                "block_2 in train.regulated."
            )


PRESETS = {
    "cpu": Preset(
        Sweep(
            biases=(0.0, -2.0, -4.0, -8.0),
            train=dataclasses.replace(tsar_presets.CPU, steps=1500, eval_every=500),
            transfer=transfer_arguments.CPU,
        ),
        "4 narrow TSARs, 1,500 steps each, each transferred to 100 classes",
    ),
    "smoke": Preset(
        Sweep(
            biases=(0.0, -8.0),
            train=dataclasses.replace(
                tsar_presets.PRESETS["smoke"].config, steps=10, eval_every=None
            ),
            transfer=transfer_arguments.SMOKE,
            target="omniglot",
        ),
        "2 tiny TSARs, 10 steps each, 3 classes of Omniglot",
    ),
    "paper": Preset(
        Sweep(
            biases=tuple(float(-bias) for bias in range(13)),
            train=tsar_presets.PRESETS["paper"].config,
            transfer=TransferConfig(),
        ),
        "as published: 0 to -12, 590 M parameters and 25,000 steps each",
    ),
}


class Outcome(NamedTuple):
    """Outcome of one initial bias.

    result: result of its transfer. right_after: accuracies right after each class [runs, classes].
    open_share: mean share of open gates of the third convolution before the transfer.
    """

    result: Result
    right_after: np.ndarray
    open_share: float


def main() -> None:
    sweep, out, _ = cli.parse_for_output(
        Sweep, PRESETS, experiment="tsar_bias_sweep", description=__doc__ or ""
    )
    check_writable(out, "--out")
    configs = {bias: dataclasses.replace(sweep.train, initial_bias=bias) for bias in sweep.biases}
    for bias, config in configs.items():
        check_folder(run_folder(out, bias), config)
    check_plastic(make_network(sweep.train), sweep.train.plastic)
    data = omniglot.load_on_device()
    check_data(sweep.train, data)
    images, normalise = load_target(sweep.target, sweep.train.pixels)
    check_target(sweep.transfer, images.shape, sweep.train.outputs)
    outcomes = {}
    for bias, config in configs.items():
        folder = run_folder(out, bias)
        known = read_outcome(folder, sweep)
        if known is None:
            print(f"Initial bias {bias:g}: meta-training in {folder} ...", flush=True)
            known = run_bias(folder, config, sweep, data, images, normalise)
        outcomes[bias] = known
        print(
            f"Initial bias {bias:g}: accuracy {np.mean(known.result.test):.3f} after all classes, "
            f"{known.right_after.mean():.3f} right after each; {100 * known.open_share:.3g} % of "
            "the third convolution's gates open",
            flush=True,
        )
    write_and_show(out, sweep, outcomes)


def run_folder(out: Path, bias: float) -> Path:
    """Return the folder of a bias's run: OUT/bias-8 for -8, OUT/bias-plus-2 for 2."""
    return out / (f"bias-{abs(bias):g}" if bias <= 0 else f"bias-plus-{bias:g}")


def check_folder(folder: Path, config: TsarConfig) -> None:
    """Raise UserError where a folder holds a run with other settings."""
    if not (folder / "config.json").exists():
        return
    stored = read_run(folder, EXPERIMENT, TsarConfig)
    wanted = config_to_json(effective_config(config))
    difference = config_difference(config_to_json(effective_config(stored)), wanted)
    if difference:
        raise UserError(
            f"{folder} was begun with other settings ({difference}): repeat them, or name another "
            "folder with --out."
        )


def transfer_file(folder: Path, sweep: Sweep) -> Path:
    """Return the file of a run's transfer, beside those of tsar_transfer but with more settings."""
    name = default_name(as_arguments(sweep), sweep.train)
    return folder / f"{KINDS['tsar_bias_sweep']}-{name}.json"


def as_arguments(sweep: Sweep) -> TransferArguments:
    """Return the transfer's settings in the form of tsar_transfer, which are stored as its are."""
    return TransferArguments(**vars(sweep.transfer), target=sweep.target)


def read_outcome(folder: Path, sweep: Sweep) -> Outcome | None:
    """Return the outcome that an earlier command with the same settings wrote, or None."""
    try:
        file = transfer_file(folder, sweep)
        conditions, settings = read_results(file)
        stored = read_arguments(settings["transfer"], sweep.train.model, str(file))
        if stored != as_arguments(sweep):
            return None
        [result] = conditions[TRAINED]
        return Outcome(result, np.array(settings["right_after"][TRAINED]), settings[OPEN_SHARE])
    except (KeyError, TypeError, ValueError):
        return None  # missing or damaged: it is made anew


def run_bias(
    folder: Path,
    config: TsarConfig,
    sweep: Sweep,
    data: dict[str, jax.Array],
    images: jax.Array,
    normalise: Normalise,
) -> Outcome:
    """Meta-train (resuming an unfinished run), transfer, and write the run's folder."""
    resume = (folder / "config.json").exists()
    if resume:  # in the words of the version that began it
        config = read_run(folder, EXPERIMENT, TsarConfig)
    run = Run(folder, config, EXPERIMENT, "bias_sweep", resume=resume)
    trained = train(make_system(config), data, config, run)
    # The initial bias matters to fresh parameters alone: unless the transfer begins with such, all
    # biases share compiled programs.
    network = make_network(config if sweep.transfer.reset else sweep.train)
    assert regulates_third(network)
    params = trained.state.params
    say_compiling(folder.name)
    result, right_after = transfer(
        network, params, TRANSFERRED["tsar"], images, normalise, sweep.transfer
    )
    shown = images[: sweep.transfer.classes, : sweep.transfer.learn]
    shares = jax.jit(open_share, static_argnums=(0, 3))(network, params, shown, normalise, OPEN)
    outcome = Outcome(result, right_after, float(shares.mean()))
    settings = {
        "model": config.model,
        "step": trained.step,
        "transfer": config_to_json(as_arguments(sweep)),
        "right_after": {TRAINED: right_after.tolist()},
        OPEN_SHARE: outcome.open_share,
    }
    write_atomically(transfer_file(folder, sweep), results_to_json({TRAINED: [result]}, settings))
    return outcome


def write_and_show(out: Path, sweep: Sweep, outcomes: dict[float, Outcome]) -> None:
    """Write JSON, table and figure below `out`; print the table, and what comes next."""
    from tsar_jax.systems.episodic.transfer_figure import bias_figure

    report = {
        "settings": config_to_json(sweep),
        "threshold": OPEN,
        "biases": {
            f"{bias:g}": {
                **dataclasses.asdict(o.result),
                "right_after": o.right_after.tolist(),
                OPEN_SHARE: o.open_share,
            }
            for bias, o in outcomes.items()
        },
    }
    write_atomically(out / "bias_sweep.json", json.dumps(report, indent=1) + "\n")
    table = markdown(outcomes)
    write_atomically(out / "table.md", table)
    figures = bias_figure(
        {bias: (o.right_after.mean(1).tolist(), o.result.test) for bias, o in outcomes.items()},
        {bias: o.open_share for bias, o in outcomes.items()},
        OPEN,
        sweep.transfer.classes,
        out / "figures" / "bias_sweep",
    )
    print(table)
    print(f"results: {out / 'bias_sweep.json'}")
    print(f"figure:  {figures[0]}")
    print(
        f"Next: tsar-jax run tsar_analyse --runs {quoted(out)}/bias-* --out {quoted(out)}/analysis"
    )


def markdown(outcomes: dict[float, Outcome]) -> str:
    """Return a table with a line per bias: accuracies with their 95 % bands, and open gates."""
    head = f"| initial bias | right after the class | at the end | gates of C3 above {OPEN:g} |"
    lines = [
        f"| {bias:g} | {percent(o.right_after.mean(1).tolist())} | {percent(o.result.test)} "
        f"| {100 * o.open_share:.3g} % |"
        for bias, o in outcomes.items()
    ]
    return "\n".join([head, "|---:|---:|---:|---:|", *lines]) + "\n"


if __name__ == "__main__":
    cli.run_main(main)
