"""Modules of a user's own, and the commands that are printed to allow them."""

import dataclasses
import sys
from pathlib import Path

import pytest

from tsar_jax import cli
from tsar_jax.cli.status import status
from tsar_jax.environments import gymnasium_episode
from tsar_jax.errors import UserError
from tsar_jax.modules import allowing, check_allowed, import_modules, search_working_folder
from tsar_jax.training.run import Run, check_new, create_run


@dataclasses.dataclass(frozen=True)
class Config:
    modules: tuple[str, ...] = ()


NO_MODULES = ["a; rm -r b", "$(b)", "a b", "", ".a", "a.", "a..b", "my-rules", "a\nb", "../a"]


@pytest.mark.parametrize("name", NO_MODULES)
def test_a_name_that_no_module_has_is_refused(name):
    with pytest.raises(UserError, match=r"^--modules names the module .*, as no module is called"):
        import_modules([name])
    for named in ([], [name]):
        with pytest.raises(UserError, match=r"^a run names the module .*, as no module is called"):
            check_allowed(["fine", name], named, "a run")


def test_dotted_names_are_allowed_in_a_command():
    with pytest.raises(UserError, match=r"with --modules mine\.rules b\.$"):
        check_allowed(["mine.rules", "b"], ["b"], "a run")
    check_allowed(["mine.rules"], ["mine.rules"], "a run")


def test_printed_commands_are_quoted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config(("a; b",))
    assert allowing(config) == " --modules 'a; b'"
    path = Path("a run; b")
    run = Run(path, config, "x; y", "cpu")
    wanted = "--resume 'a run; b'"
    assert run.resume_command() == f"tsar-jax run 'x; y' {wanted} --modules 'a; b'"
    create_run(run, 3)
    assert f"continue with {wanted}\n" in status(path)
    with pytest.raises(UserError, match=f"continue it with {wanted}, or"):
        check_new(path, "--out")
    preset = {"cpu": cli.Preset(config, "")}
    with pytest.raises(UserError, match=rf"tsar-jax run 'x; y' {wanted}\.$"):
        cli.parse(Config, preset, experiment="toy", description="", argv=["--resume", str(path)])


def test_the_working_folder_is_searched_last_and_once(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", ["a", "b"])
    search_working_folder()
    search_working_folder()
    assert sys.path == ["a", "b", ""]
    assert gymnasium_episode.search_working_folder is search_working_folder
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    (tmp_path / "module_of_mine_only.py").write_text("")
    import_modules(["module_of_mine_only"])
    assert sys.path[-1] == ""
    del sys.modules["module_of_mine_only"]
