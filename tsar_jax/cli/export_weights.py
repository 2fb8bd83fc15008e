"""Write a run's weights as the files of the original release that it re-implements.

  tsar-jax export RUN FILE [--step N]

Examples:
  tsar-jax export runs/anml anml.pth            ANML, OML or TSAR: a state dictionary, vars.0 ...
  tsar-jax export runs/digits mlp.pt            a perceptron or ResNet-18: a state dictionary
  tsar-jax export runs/ant coeffs.dat           Hebbian coefficients, as the release's are
  tsar-jax export runs/car coeffs.dat           and beside it coeffs-coevolved.dat: convolutions,
                                                and weights at birth where they evolved

State dictionaries are torch.save's zip format: net.load_state_dict(torch.load(FILE)). Hebbian files
are torch.save of a NumPy array, which PyTorch reads with torch.load(FILE, weights_only=False), as
the release does; a static policy is a state dictionary. Of several seeds the first is written.
FILE must not exist.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tsar_jax.cli.flags import parse_arguments
from tsar_jax.errors import UserError, shown
from tsar_jax.interop.naming import with_mlp_aliases, with_resnet18_aliases
from tsar_jax.interop.torch_writer import write_array, write_state_dict
from tsar_jax.modules import import_modules
from tsar_jax.systems.continual import presets as continual_presets
from tsar_jax.systems.continual.experiment import prepare
from tsar_jax.systems.continual.release import (
    mlp_to_release,
    resnet18_statistics_to_release,
    resnet18_to_release,
)
from tsar_jax.systems.continual.system import ContinualConfig, make_system, reported_model
from tsar_jax.systems.episodic import anml, anml_presets, tsar, tsar_presets
from tsar_jax.systems.episodic.anml import AnmlConfig
from tsar_jax.systems.episodic.release import KINDS, to_release
from tsar_jax.systems.episodic.trained import load_state
from tsar_jax.systems.episodic.tsar import TsarConfig
from tsar_jax.systems.hebbian import presets as hebbian_presets
from tsar_jax.systems.hebbian.evolved import Evolved, check_environment, load_evolved, make_envs
from tsar_jax.systems.hebbian.policy import GRU
from tsar_jax.systems.hebbian.release import (
    PixelPolicy,
    coevolved_to_release,
    hebbian_coefficients_to_release,
    pixel_policy_to_release,
)
from tsar_jax.systems.hebbian.system import HebbianConfig
from tsar_jax.training.checkpoints import load_checkpoint
from tsar_jax.training.run import load_config, read_description

MLP_HIDDEN = 2
"""Number of hidden layers of the release's perceptron."""
PIXEL_NAMES = ("conv1", "conv2", "linear1", "linear2", "out")
"""Names of the layers of the release's static pixel policy."""


def main(argv: Sequence[str]) -> None:
    """Run `tsar-jax export` with its arguments. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog="tsar-jax export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("file", type=Path, help="the file to write")
    parser.add_argument("--step", type=int, help="of the checkpoint (default: the newest)")
    parser.add_argument(
        "--modules", nargs="*", default=[], help="modules that the run's environment may import"
    )
    arguments = parse_arguments(parser, argv)
    run: Path = arguments.run
    if not run.is_dir():
        raise UserError(f"There is no run folder {run}: check the path.")
    experiment = read_description(run).get("experiment")
    if not isinstance(experiment, str) or experiment not in EXPORTS:
        raise UserError(
            f"{run} is a run of {shown(experiment)}, of which no release has files: name "
            f"one of {', '.join(EXPORTS)}."
        )
    if experiment == hebbian_presets.EXPERIMENT:
        check_environment(run, load_config(run, HebbianConfig), arguments.modules)
        import_modules(arguments.modules)
    for path in EXPORTS[experiment](run, arguments.file, arguments.step):
        print(f"written: {path}")


def check_free(path: Path) -> Path:
    """Return the path. Raises UserError where it exists, or its folder does not."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists already: name another file.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"The folder of {path} does not exist: make it, or name another file.")
    return path


def export_anml(run: Path, file: Path, step: int | None) -> list[Path]:
    """Write the network of a run of anml_meta_train and return the files written."""
    config = load_config(run, AnmlConfig)
    return _export_episodic(run, file, step, config.model, anml.make_system(config))


def export_tsar(run: Path, file: Path, step: int | None) -> list[Path]:
    """Write the network of a run of tsar_meta_train and return the files written."""
    config = load_config(run, TsarConfig)
    return _export_episodic(run, file, step, config.model, tsar.make_system(config))


def _export_episodic(
    run: Path, file: Path, step: int | None, model: str, system: Any
) -> list[Path]:
    if model not in KINDS:
        raise UserError(f"No release has files of model {model!r}: name a run of another.")
    check_free(file)
    state, _ = load_state(run, system, step)
    arrays = to_release(model, jax.device_get(state.params))
    write_state_dict(file, {f"vars.{index}": array for index, array in enumerate(arrays)})
    return [file]


def export_hebbian(run: Path, file: Path, step: int | None) -> list[Path]:
    """Write the policy of a run of hebbian_evolve and return the files written.

    Co-evolved parameters go into a second file beside that of the coefficients.
    """
    config = load_config(run, HebbianConfig)
    check_free(file)
    coevolved_file = file.with_name(f"{file.stem}-coevolved{file.suffix}")
    env = make_envs(config, 1).first
    evolved = load_evolved(run, config, env, step)
    kernels = evolved.genome.coevolved["kernels"]
    if config.policy.rule == GRU or config.policy.standardised:
        raise UserError(
            f"The policy of {run} is recurrent or standardises its observations, as none of the "
            "release's does: name a run of another rule."
        )
    if not evolved.policy.plastic:
        write_state_dict(file, static_arrays(evolved))
        return [file]
    coevolved = PixelPolicy(kernels, evolved.genome.coevolved.get("weights", ()))
    files = [file]
    if kernels or coevolved.weights:
        check_free(coevolved_file)
        write_array(coevolved_file, coevolved_to_release(coevolved))
        files.append(coevolved_file)
    rows = hebbian_coefficients_to_release(evolved.genome.main, pixels=bool(kernels))
    write_array(file, rows)
    return files


def static_arrays(evolved: Evolved) -> dict[str, np.ndarray]:
    """Return a static policy's arrays by the names of the release's networks."""
    weights = tuple(map(np.asarray, evolved.genome.main))
    kernels = evolved.genome.coevolved["kernels"]
    if not kernels:
        return {f"fc{index}.weight": array for index, array in enumerate(weights, 1)}
    if len(weights) != len(PIXEL_NAMES) - len(kernels):
        raise UserError("The release's pixel policy has two hidden layers: name a run with two.")
    arrays = pixel_policy_to_release(PixelPolicy(kernels, weights))
    return {f"{name}.weight": array for name, array in zip(PIXEL_NAMES, arrays, strict=True)}


def export_continual(run: Path, file: Path, step: int | None) -> list[Path]:
    """Write the reported network of a run of continual_train and return the files written."""
    prepared = prepare(load_config(run, ContinualConfig))
    check_free(file)
    like = jax.eval_shape(make_system(prepared.config, prepared.experiment).init, jax.random.key(0))
    run_state, _ = load_checkpoint(run, step, like=like)
    net = reported_model(prepared.experiment, jax.device_get(run_state.learner))
    write_state_dict(file, network_arrays(prepared.config, net.params, net.stats))
    return [file]


def network_arrays(config: ContinualConfig, params: Any, stats: Any) -> Mapping[str, np.ndarray]:
    """Return a network's arrays by all names that the release's module has for them."""
    if stats:
        named = {**resnet18_to_release(params), **resnet18_statistics_to_release(stats)}
        return with_resnet18_aliases(named)
    if len(config.hidden) != MLP_HIDDEN:
        raise UserError("The release's perceptron has two hidden layers: name a run with two.")
    return with_mlp_aliases(mlp_to_release(params))


EXPORTS: dict[str, Callable[[Path, Path, int | None], list[Path]]] = {
    anml_presets.EXPERIMENT: export_anml,
    tsar_presets.EXPERIMENT: export_tsar,
    hebbian_presets.EXPERIMENT: export_hebbian,
    continual_presets.EXPERIMENT: export_continual,
}
"""(run, file, step or None for the newest) -> files written, by experiment."""
