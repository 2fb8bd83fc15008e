"""Score an evolved policy over many new lifetimes, and film one of them.

Examples:
  tsar-jax run hebbian_evaluate --run runs/NAME
  tsar-jax run hebbian_evaluate --run runs/NAME --lifetimes 100 --no-film
  tsar-jax run hebbian_evaluate --run runs/NAME --bodies left_front right_front:0.2
  tsar-jax run hebbian_evaluate --run runs/NAME --environment CarRacing-v3

Every lifetime begins with weights drawn anew. Prints mean and standard deviation of the fitness,
and writes RUN/evaluation.json (RUN/evaluation-ENVIRONMENT.json for another than the run's own), and
then RUN/figures/WORLD.gif, where the world can be drawn.
"""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np

from tsar_jax import cli
from tsar_jax.devices import split_cpu
from tsar_jax.environments.own import QUADRUPED
from tsar_jax.environments.quadruped import CONTROL_STEP
from tsar_jax.errors import UserError
from tsar_jax.modules import import_modules
from tsar_jax.systems.hebbian.evolved import (
    EpisodeSettings,
    Evolved,
    check_environment,
    load_evolved,
    make_envs,
    read_config,
    scores_text,
)
from tsar_jax.systems.hebbian.film import film, write_gif
from tsar_jax.systems.hebbian.rollouts import traces
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import check_writable, write_atomically


@dataclasses.dataclass(frozen=True)
class Arguments(EpisodeSettings):
    """The policy to evaluate, and the environment."""

    run: Path = dataclasses.field(kw_only=True)
    """Folder of a run of hebbian_evolve."""
    bodies: tuple[str, ...] = ()
    """Bodies of a quadruped other than those it evolved with."""
    environment: str | None = None
    """Another environment than it evolved in, of the same observations and actions: of a policy
    from car_racing, gymnasium's CarRacing-v3."""
    step: int | None = None
    """Generation of the checkpoint to load (default: the newest)."""
    number: int = 0
    """Seed to evaluate of a run of several, counted from 0."""
    modules: tuple[str, ...] = ()
    """Python modules to import first; a run whose environment wants another is refused."""
    film: bool = True
    """Whether the first lifetime in each world is filmed."""


def main() -> None:
    arguments = cli.parse_settings(Arguments, experiment="hebbian_evaluate", description=__doc__)
    config = read_config(arguments.run)
    if not arguments.environment:
        check_environment(arguments.run, config, arguments.modules)
    check_writable(arguments.run)
    import_modules(arguments.modules)
    split_cpu()
    environment = arguments.environment or config.environment
    worlds = make_envs(config, arguments.lifetimes, arguments.bodies, environment, arguments.limit)
    evolved = load_evolved(arguments.run, config, worlds.first, arguments.step, arguments.number)
    scores = {}
    say_compiling(worlds.names[0])
    lived = traces(evolved.policy, worlds.envs, evolved.genome, arguments.keys)
    for name, trace in zip(worlds.names, lived, strict=True):
        scores[name] = np.sum(trace.rewards, axis=1)
        print(
            f"{name}: {scores_text(scores[name], 1)} over "
            f"{arguments.lifetimes} lifetimes, generation {evolved.generation}"
        )
        if environment == QUADRUPED:
            lasted = np.sum(trace.mask, axis=1) * CONTROL_STEP
            walked = scores[name] * CONTROL_STEP
            print(f"{name}: {walked.mean():.1f} m towards the target in {lasted.mean():.1f} s")
    content = {
        "generation": evolved.generation,
        "fitness": {name: values.tolist() for name, values in scores.items()},
    }
    elsewhere = f"-{_plain(environment)}" if environment != config.environment else ""
    path = arguments.run / f"evaluation{elsewhere}.json"
    write_atomically(path, json.dumps(content, indent=2) + "\n")
    for name in worlds.names if arguments.film else ():
        write_film(arguments, evolved, environment, name)


def write_film(arguments: Arguments, evolved: Evolved, environment: str, name: str) -> None:
    """Film the first lifetime in a world; warn where nothing can draw it."""
    try:
        frames, seconds = film(evolved, environment, name, arguments.keys[0])
    except UserError as error:
        warnings.warn(f"There is no film of {name}. {error}", stacklevel=2)
        return
    path = arguments.run / "figures" / f"{_plain(name)}.gif"
    print(f"film:   {write_gif(path, frames, seconds)}")


def _plain(name: str) -> str:
    """Return an environment's or a body's name as part of a file's name."""
    return name.replace(":", "-").replace("/", "-")


if __name__ == "__main__":
    cli.run_main(main)
