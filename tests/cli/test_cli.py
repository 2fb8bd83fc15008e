"""The command line: presets, runs, resuming; every error a sentence and its exit code."""

import dataclasses
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Literal

import pytest

from tsar_jax import cli
from tsar_jax.cli import scripts
from tsar_jax.cli.status import status
from tsar_jax.errors import UserError
from tsar_jax.training.config import (
    config_difference,
    config_from_json,
    config_to_json,
    earlier,
    formerly,
    with_later_fields,
)
from tsar_jax.training.errors import TrainingDiverged, TrainingInterrupted
from tsar_jax.training.loop import LoopConfig
from tsar_jax.training.run import Run, create_run, load_config


@dataclasses.dataclass(frozen=True)
class Config:
    """Nested, with every kind of field."""

    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    """The loop's."""
    rate: float = 0.1
    """The learning rate."""
    widths: tuple[int, ...] = (3, 4)
    model: Literal["anml", "oml"] = "anml"
    limit: float | None = None
    pair: tuple[str, int] = ("a", 1)
    flag: bool = False


PRESETS = {
    "cpu": cli.Preset(Config(), "four minutes on a laptop"),
    "paper": cli.Preset(Config(rate=0.5, loop=LoopConfig(steps=20_000)), "the publication's"),
}


def parse(*argv):
    return cli.parse(
        Config,
        PRESETS,
        experiment="toy",
        description="Trains a toy.\n\n    tsar-jax run toy --rate 0.2",
        argv=[str(word) for word in argv],
    )


def exit_of(function):
    """The exit code of a script whose main is `function`."""
    with pytest.raises(SystemExit) as raised:
        cli.run_main(function)
    return raised.value.code


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path):
    """A folder with the config of a run."""
    config, run = parse("--out", tmp_path / "run", "--rate", "0.2")
    create_run(run, config.loop.steps)
    return run


def test_first_preset_and_a_folder_of_its_own_are_the_defaults(tmp_path):
    config, first = parse()
    assert config == PRESETS["cpu"].config
    assert (first.experiment, first.preset, first.resume) == ("toy", "cpu", False)
    assert first.path.parent.name == "runs"
    assert first.path.name.startswith("toy-cpu-anml-2")
    assert parse()[1].path != first.path


def test_flags_change_a_preset(tmp_path):
    config, run = parse("--preset", "paper", "--widths", 5, 6, "--loop.seed=3", "--flag")
    wanted = dataclasses.replace(
        PRESETS["paper"].config, widths=(5, 6), loop=LoopConfig(steps=20_000, seed=3), flag=True
    )
    assert (config, run.config, run.preset) == (wanted, wanted, "paper")


def test_resumed_settings_are_the_stored_ones(run):
    config, resumed = parse("--resume", run.path)
    assert config == run.config
    assert (resumed.resume, resumed.path, resumed.preset) == (True, run.path, "cpu")
    assert parse("--resume", run.path, "--rate", "0.2", "--preset", "cpu")[0] == config
    assert load_config(run.path, Config) == config
    assert load_config(run.path)["rate"] == 0.2


def test_changed_flags_on_resume_are_refused_with_the_difference(run):
    with pytest.raises(UserError, match=r"\(loop.steps: 1000 -> 7, rate: 0.2 -> 0.3\)"):
        parse("--resume", run.path, "--rate", "0.3", "--loop.steps", 7)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--preset", "gpu"], "no preset 'gpu': choose from cpu, paper"),
        (["--resume", "nowhere"], "no run folder nowhere"),
        (["--resume", "."], "not a run folder"),
        (["--resume", "run", "--out", "other"], "leave out --out"),
        (["--resume", "run", "--preset", "paper"], "preset 'cpu', not 'paper'"),
        (["--out", "run"], "already holds a run: continue it with --resume run"),
        (["--out", "file/run"], "cannot be written"),
    ],
)
def test_bad_requests_exit_2_with_one_sentence(run, tmp_path, capsys, argv, message):
    (tmp_path / "file").write_text("")
    assert exit_of(lambda: parse(*argv)) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "argv", [["--unknown", "1"], ["--rate", "x"], ["--loop.chunk", "0"], ["--preset"], ["--rate"]]
)
def test_bad_flags_exit_2(argv):
    assert exit_of(lambda: parse(*argv)) == 2


def test_runs_of_other_experiments_are_not_resumed(run):
    with pytest.raises(UserError, match="is a run of 'toy', not of 'other'"):
        cli.parse(
            Config,
            PRESETS,
            experiment="other",
            description="",
            argv=["--resume", str(run.path)],
        )


def test_help_teaches(capsys):
    for argv in (["--help"], ["--resume", "nowhere", "--help"]):
        with pytest.raises(SystemExit) as raised:
            parse(*argv)
        assert raised.value.code == 0
        text = capsys.readouterr().out
        for part in (
            "tsar-jax run toy --rate 0.2",
            "four minutes on a laptop",
            "the publication's",
            "--resume FOLDER",
            "--loop.steps",
            "The learning rate.",
        ):
            assert part in text
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("Bad."), 2),
        (TrainingDiverged("Diverged.", 3), 1),
        (TrainingInterrupted("Stopped.", 2), 130),
        (TrainingInterrupted("Stopped.", 15), 143),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(capsys, error, code):
    def main():
        raise error

    assert exit_of(main) == code
    assert str(error) in capsys.readouterr().err


def test_what_a_file_says_cannot_steer_the_terminal(capsys):
    def main():
        warnings.warn("\x1b[2J\nTwo.", stacklevel=1)
        raise UserError("Array \x1b]0;x\x07\x9b1m\udc80\u202eé.\nTwo.")

    assert exit_of(main) == 2
    assert capsys.readouterr().err == (
        "warning: \\x1b[2J\nTwo.\nerror: Array \\x1b]0;x\\x07\\x9b1m\\udc80\\u202eé.\\nTwo.\n"
    )


def test_warnings_are_lines(capsys):
    cli.run_main(lambda: warnings.warn("Careful.", stacklevel=1))
    assert capsys.readouterr().err == "warning: Careful.\n"


def test_config_survives_json():
    config = Config(limit=2.5, widths=(), model="oml", flag=True)
    stored = json.loads(json.dumps(config_to_json(config)))
    assert config_from_json(Config, stored) == config
    assert config_from_json(Config, stored | {"rate": 1}).rate == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown field 'colour'"),
        ({"rate": "x"}, "'rate' must be float, but is 'x'"),
        ({"flag": 1}, "'flag' must be bool, but is 1"),
        ({"widths": [1, "x"]}, "'widths\\[1\\]' must be int"),
        ({"widths": 3}, "'widths' must be tuple"),
        ({"pair": ["a"]}, "'pair' must be tuple"),
        ({"model": "tsar"}, "'model' must be .*anml"),
        ({"limit": "x"}, "'limit' must be float"),
        ({"loop": 3}, "loop must be an object"),
        ({"loop": {"steps": True}}, "field 'loop.chunk' is missing"),
    ],
)
def test_stored_configs_are_checked(change, message):
    with pytest.raises(UserError, match=message):
        config_from_json(Config, config_to_json(Config()) | change)


def test_integer_fields_refuse_booleans():
    stored = config_to_json(Config())
    stored["loop"]["steps"] = True
    with pytest.raises(UserError, match=r"'loop.steps' must be int, but is True"):
        config_from_json(Config, stored)


@dataclasses.dataclass(frozen=True)
class Grown:
    """A config that a later version gave two fields more."""

    base: int = 1
    pair: tuple[int, int] = dataclasses.field(default=(3, 4), metadata=earlier((1, 2)))


@dataclasses.dataclass(frozen=True)
class Nested:
    grown: Grown = Grown()
    mode: str = dataclasses.field(default="new", metadata=earlier("old"))


def test_fields_that_did_not_exist_yet_have_their_earlier_values():
    assert (Nested().mode, Nested().grown.pair) == ("new", (3, 4))
    stored = {"grown": {"base": 5}}
    assert config_from_json(Nested, stored) == Nested(Grown(5, (1, 2)), "old")
    assert with_later_fields(Nested, stored) == {
        "grown": {"base": 5, "pair": [1, 2]},
        "mode": "old",
    }
    assert stored == {"grown": {"base": 5}}
    complete = config_to_json(Nested(Grown(5, (7, 8)), "mine"))
    assert with_later_fields(Nested, complete) == complete
    with pytest.raises(UserError, match=r"field 'grown\.base' is missing"):
        config_from_json(Nested, {"grown": {}})


@dataclasses.dataclass(frozen=True)
class Renamed:
    """A config of which a later version calls a field otherwise."""

    distribution: str = dataclasses.field(default="normal", metadata=formerly("coefficients"))


def test_a_field_is_read_by_its_former_name_too():
    assert config_from_json(Renamed, {"coefficients": "uniform"}) == Renamed("uniform")
    assert config_from_json(Renamed, {"distribution": "uniform"}) == Renamed("uniform")
    with pytest.raises(UserError, match="'distribution' is missing"):
        config_from_json(Renamed, {})


def test_difference_names_what_changed():
    old = {"loop": {"steps": 3}, "rate": 1.0}
    assert config_difference(old, {"loop": {"steps": 4}, "rate": 1.0}) == "loop.steps: 3 -> 4"
    assert config_difference(old, {"rate": 1.0}) == "loop.steps: 3 -> 'absent'"
    assert config_difference(old, old) == ""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `experiments` of one script that prints its arguments."""
    folder = tmp_path / "package" / "experiments"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "echo.py").write_text(
        '"""Says its arguments.\n\nMore."""\nimport sys\nprint(sys.argv[1:])\n'
    )
    (folder / "broken.py").write_text("import nothing_of_this_name\n")
    monkeypatch.setattr(scripts, "PACKAGE", folder.parent)


@pytest.mark.usefixtures("package")
def test_list_and_run(capsys):
    cli.command(["list"])
    assert capsys.readouterr().out == "broken\necho    Says its arguments.\n"
    cli.command(["run", "echo", "--steps", "3", "--help"])
    assert capsys.readouterr().out == "['--steps', '3', '--help']\n"


@pytest.mark.usefixtures("package")
def test_only_the_script_that_runs_is_read(capsys):
    (scripts.folder_of("experiments") / "unfinished.py").write_text("def\n")
    cli.command(["run", "echo"])
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run", "other"], "no experiment 'other': choose from broken, echo"),
        (["status", "nowhere"], "no run folder nowhere"),
        (["unknown"], "no command 'unknown': choose from list, run"),
        ([], "required"),
        (["run"], "required"),
    ],
)
def test_bad_commands_exit_2(capsys, monkeypatch, argv, message):
    monkeypatch.setattr(sys, "argv", ["tsar-jax", *argv])
    assert exit_of(cli.main) == 2
    assert message in capsys.readouterr().err


def test_status_of_whatever_the_folder_holds(run, capsys):
    cli.command(["status", str(run.path)])
    text = capsys.readouterr().out
    assert "step         0 of 1000" in text
    assert f"no; continue with --resume {run.path}" in text
    assert "rate = 0.2" in text
    (run.path / "metrics.jsonl").write_text(
        '{"step": 990, "split": "train", "loss": 0.5}\n'
        '{"step": 1000, "split": "eval", "score": 2}\n{'
    )
    (run.path / "checkpoints" / "1000").mkdir()
    text = status(run.path)
    assert "finished     yes" in text
    assert "last train   step 990  loss 0.5" in text
    assert "last eval    step 1000  score 2" in text
    run.config_path.write_text("garbage")
    assert "cannot be read" in status(run.path)
    run.config_path.unlink()
    assert "step         1000 of unknown" in status(run.path)


def test_importing_is_quick():
    code = (
        "import sys, tsar_jax, tsar_jax.cli; "
        "print([name for name in ('jax', 'orbax', 'matplotlib', 'tyro', 'rich', 'numpy')"
        " if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout == "[]\n"


def tsar_jax(*argv, folder, environment=None, before=""):
    """A `tsar-jax` of its own in a folder. before: Python that is run first."""
    root = Path(cli.__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", f"{before}\nfrom tsar_jax.cli import main; main()", *argv],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root), **(environment or {})},
        capture_output=True,
        timeout=600,
    )


def test_a_folder_called_experiments_hides_nothing(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise ValueError('not this one')\n")
    (tmp_path / "experiments" / "quickstart.py").write_text("raise ValueError('nor this')\n")
    path = os.pathsep.join([str(tmp_path), str(Path(cli.__file__).parents[2])])
    done = tsar_jax("run", "nothing", folder=tmp_path, environment={"PYTHONPATH": path})
    assert done.returncode == 2
    assert b"quickstart" in done.stderr
    done = tsar_jax("import", "--help", folder=tmp_path, environment={"PYTHONPATH": path})
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("columns", ["1", "2", "3", "5", "39"])
def test_help_fits_terminals_of_no_width(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as raised:
        parse("--help")
    assert raised.value.code == 0
    assert "--loop.steps" in capsys.readouterr().out


def test_file_names_of_any_language_under_an_ascii_locale(tmp_path):
    folder = tmp_path / "ünï"
    create_run(Run(folder, Config(), "toy", "cpu"), 1000)
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = "import sys; print(sys.getfilesystemencoding(), file=sys.stderr)"
    done = tsar_jax("status", folder.name, folder=tmp_path, environment=ascii_only, before=code)
    assert done.stderr.split() == [b"ascii", b"utf-8"]
    assert done.returncode == 0
    assert f"run          {folder.name}" in done.stdout.decode("utf-8")


def test_output_that_the_terminal_cannot_show_ends_nothing(tmp_path):
    done = tsar_jax(
        "published", "stream=rot-mnist", folder=tmp_path, environment={"PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\xb1" in done.stdout


def test_a_run_folder_whose_name_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(UserError, match="not UTF-8"):
        parse("--out", f"{tmp_path}/\udcff")
