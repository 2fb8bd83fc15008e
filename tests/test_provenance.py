"""Where runs come from, and the table of them."""

import dataclasses
import fcntl
import json
import os
import subprocess
import sys

import jax
import pytest

from tsar_jax import cli, provenance
from tsar_jax.cli.status import status
from tsar_jax.errors import UserError
from tsar_jax.training.loop import LoopConfig
from tsar_jax.training.overview import runs_text
from tsar_jax.training.run import Run, create_run, load_config


def make_run(path, **changes):
    run = Run(path, LoopConfig(steps=3, **changes), "toy", "cpu")
    create_run(run, 3)
    return run


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with one commit, of which neither the user's settings nor a hook of git's tell."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for scope in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"GIT_CONFIG_{scope}", os.devnull)
    folder = tmp_path / "clone"
    folder.mkdir()

    def git(*words):
        settings = ["-c", "user.name=n", "-c", "user.email=e@e"]
        command = ["git", "-C", str(folder), *settings, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (folder / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "First")
    monkeypatch.setattr(provenance, "ROOT", folder)
    return folder, git("rev-parse", "HEAD")


def test_the_commit_is_the_clones_and_says_whether_files_differ(clone, tmp_path, monkeypatch):
    folder, head = clone
    assert provenance.commit() == head
    (folder / "file").write_text("two")
    assert provenance.commit() == f"{head}-dirty"
    with monkeypatch.context() as hook:
        hook.setenv("GIT_DIR", str(tmp_path / "another"))
        hook.setenv("GIT_INDEX_FILE", str(tmp_path / "another" / "index"))
        assert provenance.commit() == f"{head}-dirty"
    (folder / "site-packages").mkdir()
    monkeypatch.setattr(provenance, "ROOT", folder / "site-packages")
    assert provenance.commit() is None


def test_config_json_says_by_what_where_and_when(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tsar-jax run toy", "--out", "a b"])
    run = make_run(tmp_path / "run")
    made = json.loads(run.config_path.read_text())["provenance"]
    assert made["jax"] == jax.__version__
    assert made["tsar_jax"] == provenance.version()
    assert made["python"] == ".".join(map(str, sys.version_info[:3]))
    assert made["command"] == "tsar-jax run toy --out 'a b'"
    assert jax.local_devices()[0].platform in made["device"]
    assert set(made) == {"tsar_jax", "jax", "python", "commit", "device", "command", "date"}
    assert load_config(run.path, LoopConfig) == run.config
    assert status(run.path).count("loop") == 0


def test_version_and_module():
    assert provenance.version_text().startswith("tsar_jax ")
    for words in (["-m", "tsar_jax", "--version"], ["-m", "tsar_jax"]):
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
        assert done.returncode == (0 if "--version" in words else 2)
        assert jax.__version__ in done.stdout or "required" in done.stderr


def test_runs_are_listed_with_state_step_and_result(tmp_path):
    stopped = make_run(tmp_path / "a")
    rows = [{"step": 2, "split": "train", "loss": 0.5, "wall_s": 1}]
    (stopped.path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    finished = make_run(tmp_path / "table" / "runs" / "b", seed=7)
    (finished.checkpoints / "3").mkdir()
    rows = [{"step": 3, "split": "eval", "loss": 0.25, "test_accuracy": 0.875}]
    (finished.path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    running = make_run(tmp_path / "c")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    with (running.path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = [line.split() for line in runs_text(tmp_path).splitlines()]
    assert lines == [
        ["run", "experiment", "preset", "state", "step", "result"],
        [str(tmp_path / "a"), "toy", "cpu", "stopped", "2/3", "loss", "0.5"],
        [str(tmp_path / "c"), "toy", "cpu", "running", "0/3"],
        [str(tmp_path / "damaged"), "damaged"],
        [
            *(str(finished.path), "toy", "cpu", "finished", "3/3"),
            *("test_accuracy", "0.875", "loss", "0.25"),
        ],
    ]
    assert runs_text(finished.checkpoints).startswith("There are no runs")
    with pytest.raises(UserError, match="no folder"):
        runs_text(tmp_path / "nowhere")


@dataclasses.dataclass(frozen=True)
class Named(LoopConfig):
    method: str = "er"
    stream: str = "rot-mnist"
    environment: str = "a/Cart Pole"


def test_default_names_tell_runs_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    presets = {"cpu": cli.Preset(Named(), "")}
    _, run = cli.parse(Named, presets, experiment="toy", description="", argv=["--seed", "5"])
    assert run.path.name.startswith("toy-cpu-er-rot-mnist-a_Cart_Pole-2")
    assert run.path.name.endswith("-seed5")
