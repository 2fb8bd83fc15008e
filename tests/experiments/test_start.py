"""What a training's script does before it trains: it imports and compiles little."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

PROGRAM = """
import importlib, json, sys
from tsar_jax.training import loop

name, folder = sys.argv[1:3]
programs = []

def train(*_, **__):
    heavy = ("matplotlib", "mujoco", "gymnasium", "orbax", "scipy")
    print(json.dumps([programs, [name for name in heavy if name in sys.modules]]))
    raise SystemExit

loop.train = train
script = importlib.import_module(f"experiments.{name}")
import jax
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **about: event.endswith("backend_compile_duration")
    and programs.append(str(about.get("fun_name")))
)
sys.argv = [name, "--preset", "smoke", "--out", folder]
script.main()
"""

MOST_PROGRAMS = 3
"""Before the loop has said that it compiles: no more than what brings data onto the device."""


@pytest.mark.parametrize(
    "name",
    [
        "anml_meta_train",
        "tsar_meta_train",
        "plasticity_meta_train",
        "hebbian_evolve",
        "continual_train",
        "compose",
    ],
)
def test_little_is_imported_and_compiled_before_training(tmp_path, name):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TFDS_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    programs, imported = json.loads(done.stdout.splitlines()[-1])
    assert imported == []
    assert len(programs) <= MOST_PROGRAMS, programs
