"""Injure an evolved animal in the middle of its lifetime, and see whether plasticity mends it.

Examples:
  tsar-jax run hebbian_lesion --run runs/NAME
  tsar-jax run hebbian_lesion --run runs/NAME --at 200 --zeroed 0.5 --lifetimes 64

The same lifetimes are lived four times: intact; with the weights frozen from step AT on; with all
actuators saturated for LASTING steps; and with a share of all synapses set to zero. Writes
RUN/lesions.csv (the mean reward of every step, and how many lifetimes lasted), and
RUN/figures/recovery.png and weights.png (one layer before, right after and 10 steps after the
loss), with PDFs.
"""

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np

from tsar_jax import cli
from tsar_jax.devices import split_cpu
from tsar_jax.errors import UserError, check_positive
from tsar_jax.modules import import_modules
from tsar_jax.systems.hebbian.evolved import (
    EpisodeSettings,
    EvaluationEnvs,
    Evolved,
    check_environment,
    load_evolved,
    make_envs,
    read_config,
)
from tsar_jax.systems.hebbian.figures import recovery_figure, weights_figure
from tsar_jax.systems.hebbian.lesions import Lesion, lesioned
from tsar_jax.systems.hebbian.rollouts import Trace, traces
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import check_writable, write_atomically

INTACT, FROZEN, SATURATED, ZEROED = "intact", "frozen", "saturated", "zeroed"
LATER = 10
"""Number of steps after the loss of synapses at which the weights are drawn again."""


@dataclasses.dataclass(frozen=True)
class Arguments(EpisodeSettings):
    """The policy to injure, and the lesions."""

    run: Path = dataclasses.field(kw_only=True)
    """Folder of a run of hebbian_evolve."""
    body: str | None = None
    """Body of a quadruped (default: the first that it evolved with)."""
    step: int | None = None
    """Generation of the checkpoint to load (default: the newest)."""
    modules: tuple[str, ...] = ()
    """Python modules to import first; a run whose environment wants another is refused."""
    at: int = 300
    """Step of the lesion, counted from 0."""
    lasting: int = 100
    """Steps for which the actuators are saturated."""
    zeroed: float = 1 / 3
    """Share of the synapses that are set to zero."""
    layer: int = 2
    """Layer of weights that the figure shows, counted from 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "at", "lasting", "layer")


def main() -> None:
    arguments = cli.parse_settings(Arguments, experiment="hebbian_lesion", description=__doc__)
    config = read_config(arguments.run)
    check_environment(arguments.run, config, arguments.modules)
    check_writable(arguments.run)
    import_modules(arguments.modules)
    split_cpu()
    bodies = (arguments.body,) if arguments.body else config.bodies[:1]
    worlds = make_envs(config, arguments.lifetimes, bodies, max_episode_steps=arguments.limit)
    env = worlds.first
    if arguments.at + 1 + LATER >= env.max_episode_steps:
        raise UserError(
            f"at is {arguments.at}, but a lifetime has {env.max_episode_steps} steps, and the "
            f"weights are shown {LATER} steps later: lower it."
        )
    evolved = load_evolved(arguments.run, config, env, arguments.step)
    if not evolved.policy.plastic:
        raise UserError(
            f"The weights of {arguments.run} do not change: take a run of another rule."
        )
    if arguments.layer > len(config.policy.hidden) + 1:
        raise UserError(
            f"layer is {arguments.layer}, but the network has "
            f"{len(config.policy.hidden) + 1} layers of weights: lower it."
        )
    lived = live_with_lesions(arguments, evolved, worlds)
    write(arguments, lived, env.max_episode_steps)


def live_with_lesions(
    arguments: Arguments, evolved: Evolved, worlds: EvaluationEnvs
) -> dict[str, Trace]:
    """Return the traces of the same lifetimes, in the one world, in every condition."""
    at = arguments.at
    lesions = {
        INTACT: Lesion(),
        FROZEN: Lesion(freeze_from=at),
        SATURATED: Lesion(saturate=(at, at + arguments.lasting)),
        ZEROED: Lesion(zero_at=at, zeroed=arguments.zeroed),
    }
    lived = {}
    for name, lesion in lesions.items():
        watch = (at, at + 1, at + 1 + LATER) if name == ZEROED else ()
        policy = lesioned(evolved.policy, lesion)
        say_compiling(name)
        (lived[name],) = traces(policy, worlds.envs, evolved.genome, arguments.keys, watch)
        if not lived[name].mask[:, at].any():
            raise UserError(f"No lifetime lasts until the lesion at step {at}: lower --at.")
        rewards = lived[name].rewards
        before, after = rewards[:, :at].mean(), rewards[:, at:].mean()
        print(f"{name:10} reward per step: {before:7.3f} before step {at}, {after:7.3f} from it on")
    return lived


def write(arguments: Arguments, lived: dict[str, Trace], limit: int) -> None:
    """Write the table and the figures."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *(f"{n}_{what}" for n in lived for what in ("reward", "alive"))])
    for step in range(limit):
        cells = [
            f"{value:.6g}"
            for trace in lived.values()
            for value in (trace.rewards[:, step].mean(), trace.mask[:, step].sum())
        ]
        writer.writerow([step, *cells])
    write_atomically(arguments.run / "lesions.csv", text.getvalue())
    at, figures = arguments.at, arguments.run / "figures"
    marks = {FROZEN: (at, limit), SATURATED: (at, at + arguments.lasting), ZEROED: (at, at + 1)}
    rewards = {name: np.asarray(trace.rewards) for name, trace in lived.items()}
    print(f"table:   {arguments.run / 'lesions.csv'}")
    print(f"figure:  {recovery_figure(rewards, marks, figures / 'recovery')}")
    weights, *_ = lived[ZEROED].watched
    titles = ("before the loss", "right after", f"{LATER} steps later")
    shown = dict(zip(titles, weights[arguments.layer - 1][0], strict=True))
    print(f"figure:  {weights_figure(shown, figures / 'weights')}")


if __name__ == "__main__":
    cli.run_main(main)
