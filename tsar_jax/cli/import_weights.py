"""Make a run of weights that came from an original release.

  tsar-jax import KIND FILE --out FOLDER [settings]

FILE is read without PyTorch, and nothing that it asks for is run: what torch.save wrote, whole
modules and state dictionaries, in either format and from any device. Widths are the file's; what
it does not say is a setting of the run: tsar-jax import KIND --help shows them. Files come before
flags, for a flag may take several values.

Examples:
  tsar-jax import anml OmniANML.net --out runs/anml --steps 20000
  tsar-jax import oml oml.net --out runs/oml
  tsar-jax import tsar "TSAR_Rich_Bias=-8.0_Seed=999" --out runs/tsar
  tsar-jax import hebbian coeffs.dat --out runs/ant --environment quadruped
  tsar-jax import hebbian coeffs.dat --out runs/pole --environment CartPole-v1 --policy.rule ABCD_lr
  tsar-jax import pixel-policy coeffs.dat CNN_parameters.dat --out runs/car
  tsar-jax import mlp task_19_model.ph --out runs/digits --stream rot-mnist
  tsar-jax import resnet18 task_4_model.ph --out runs/cifar --stream seq-cifar10

KIND      FILE                                                   then
anml      a network of the ANML release, whole or its state      anml_meta_test, anml_analyse
oml       the same of OML                                        anml_meta_test, anml_analyse
tsar      a network of the TSAR release                          tsar_transfer, tsar_analyse
hebbian   coefficients, and with them co-evolved initial         hebbian_evaluate, hebbian_lesion
          weights if there are; or the state of a static policy
pixel-policy  coefficients and the convolutions, in any order;   hebbian_evaluate, hebbian_lesion
          or the state of a static policy; or the convolutions
          alone, with coefficients drawn as evolution begins
mlp       a perceptron of continual learning                     continual_analyse
resnet18  a ResNet-18 of continual learning                      continual_analyse

--steps says for how long the weights were trained, where that is known. Meta-training goes on from
such a run with --init FOLDER. The way back: tsar-jax export RUN FILE.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tsar_jax import cli
from tsar_jax.cli.import_continual import STREAMS, import_continual
from tsar_jax.cli.import_hebbian import import_hebbian
from tsar_jax.cli.imported import Imported, as_float32, settings
from tsar_jax.errors import UserError, check_known
from tsar_jax.interop.naming import check_arrays, in_order
from tsar_jax.interop.torch_files import Content, read_arrays
from tsar_jax.systems.continual.system import ContinualConfig
from tsar_jax.systems.episodic import anml_presets, tsar_presets
from tsar_jax.systems.episodic.anml import AnmlConfig
from tsar_jax.systems.episodic.release import from_release, network_widths
from tsar_jax.systems.episodic.system import first_state
from tsar_jax.systems.episodic.tsar import TsarConfig, storage
from tsar_jax.systems.hebbian.system import HebbianConfig
from tsar_jax.training.checkpoints import save_once, to_host
from tsar_jax.training.config import config_to_json
from tsar_jax.training.run import IMPORTED, Run, check_new, create_run, make_folder

CONFIGS: dict[str, type] = {
    "anml": AnmlConfig,
    "oml": AnmlConfig,
    "tsar": TsarConfig,
    "hebbian": HebbianConfig,
    "pixel-policy": HebbianConfig,
    "mlp": ContinualConfig,
    "resnet18": ContinualConfig,
}
TWO_FILES = ("hebbian", "pixel-policy")
"""Kinds that may have two files."""


def main(argv: Sequence[str]) -> None:
    """Run `tsar-jax import` with its arguments. Raises UserError."""
    if {"-h", "--help"} & set(argv) or not argv:
        show_help(argv)
        return
    parser = argparse.ArgumentParser(prog="tsar-jax import", add_help=False, allow_abbrev=False)
    parser.add_argument("kind")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    own, rest = parser.parse_known_args(argv)
    check_known("kind", own.kind, CONFIGS)
    if own.out is None:
        raise UserError("No folder is named for the run: add --out FOLDER.")
    if len(own.files) > (2 if own.kind in TWO_FILES else 1):
        raise UserError(f"{own.files[-1]} is one file too many for kind {own.kind}: leave it out.")
    if (own.out / "config.json").exists():
        raise UserError(f"{own.out} already holds a run: name another folder with --out.")
    imported = import_contents(own.kind, [read_arrays(path) for path in own.files], rest)
    write(imported, own.out)
    for line in imported.remarks:
        print(line)
    print(f"{own.out}: a run of {imported.experiment} at step {imported.step}.")


def show_help(argv: Sequence[str]) -> None:
    """Print how to import, and the settings of each kind that is named."""
    print((__doc__ or "").strip())
    for kind in (word for word in argv if word in CONFIGS):
        print()
        config = CONFIGS[kind]()
        cli.parse_config(type(config), config, ["--help"], f"import {kind} FILE --out FOLDER", "")


def import_contents(kind: str, contents: Sequence[Content], argv: list[str]) -> Imported:
    """Return the content of a kind's files as a run. argv: flags of the run's settings."""
    text = f"Settings of the run that kind {kind} becomes."
    if kind in TWO_FILES:
        return import_hebbian(kind, contents, argv, text)
    if kind in STREAMS:
        return import_continual(kind, contents[0], argv, text)
    return import_episodic(kind, contents[0], argv, text)


def import_episodic(kind: str, content: Content, argv: list[str], text: str) -> Imported:
    """Return a run of anml_meta_train or tsar_meta_train with the network in a file."""
    arrays = in_order(content.arrays)
    check_arrays(arrays)
    params = from_release(kind, list(arrays.values()))
    widths = network_widths(kind, params)
    fixed = {"model": kind, "outputs": widths.pop("classes"), **widths}
    params = as_float32(params)
    if kind == "tsar":
        base = dataclasses.replace(tsar_presets.PRESETS["paper"].config, steps=0)
        bias = content.attributes.get("bias")
        if isinstance(bias, int | float) and not isinstance(bias, bool):
            base = dataclasses.replace(base, initial_bias=finite_bias(bias))
        tsar = settings(kind, base, argv, fixed, text)
        state = first_state(tsar, params, storage(tsar))
        return Imported(tsar_presets.EXPERIMENT, tsar, state, tsar.steps)
    anml = dataclasses.replace(anml_presets.PRESETS["paper"].config, steps=0)
    anml = settings(kind, anml, argv, fixed, text)
    return Imported(anml_presets.EXPERIMENT, anml, first_state(anml, params), anml.steps)


def finite_bias(bias: float) -> float:
    """Return a file's initial bias. Raises UserError unless it is a number in float32."""
    if not abs(bias) <= float(np.finfo(np.float32).max):  # an integer may be beyond any float
        raise UserError("The file's initial bias is not finite in float32: name another file.")
    return float(bias)


def write(imported: Imported, path: Path) -> None:
    """Write the run's folder. Raises UserError where it cannot be written or holds a run."""
    check_new(path, "--out")
    make_folder(path)
    run = Run(path, imported.config, imported.experiment, IMPORTED)
    # create_run comes last, for only a folder with its config.json is taken for a run.
    arrays = to_host(imported.state)
    save_once(run.checkpoints, imported.step, arrays, config_to_json(imported.config))
    if imported.finish is not None:
        imported.finish(run)
    create_run(run, imported.step)
