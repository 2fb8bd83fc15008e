"""A run's folder: written into it and nowhere else, and no folder where nothing is written."""

import functools
import os
import shutil
import sys
from pathlib import Path

import pytest
from toy_training import PRESETS, ToyConfig, train_toy

from tsar_jax import cli
from tsar_jax.atomic import open_lock
from tsar_jax.errors import UserError
from tsar_jax.training.run import check_writable, write_atomically

CONFIG = ToyConfig(steps=10)
FOLDERS = ["checkpoints", "figures", "damaged_checkpoints", "tensorboard"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    train_toy(path, CONFIG)
    return path


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("inner", ["", "deep/link"])
def test_a_folder_that_leads_out_of_a_run_is_refused(run, tmp_path, name, inner) -> None:
    outside = tmp_path / "outside"
    if (run / name).exists() and not inner:
        (run / name).rename(outside)
    else:
        outside.mkdir()
    (outside / "kept").write_text("kept")
    link = run / name / inner
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    before = contents(outside)
    with pytest.raises(UserError, match="is a link, and what is written there would leave"):
        train_toy(run, CONFIG, resume=True)
    assert contents(outside) == before


def test_a_damaged_checkpoint_is_not_moved_through_a_link(run, tmp_path) -> None:
    (tmp_path / "outside").mkdir()
    (run / "damaged_checkpoints").symlink_to(tmp_path / "outside")
    shutil.rmtree(run / "checkpoints" / "10" / "state")
    with pytest.raises(UserError, match="damaged_checkpoints is a link"):
        train_toy(run, CONFIG, resume=True)
    assert not list((tmp_path / "outside").iterdir())


def test_damaged_checkpoints_of_one_step_lie_beside_each_other(run) -> None:
    shutil.rmtree(run / "checkpoints" / "10" / "state")
    (run / "damaged_checkpoints" / "10-1").mkdir(parents=True)
    with pytest.warns(UserWarning, match="damaged_checkpoints/10-0"):
        train_toy(run, CONFIG, resume=True)
    assert not list((run / "damaged_checkpoints" / "10-1").iterdir())


def test_files_that_are_links_are_replaced_and_not_written_through(run, tmp_path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("kept")
    for name in ("metrics.csv", "metrics.csv.tmp", "metrics.jsonl.tmp", "rule.json", "result.json"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(outside)
    train_toy(run, CONFIG, resume=True)
    write_atomically(run / "rule.json", "{}")
    write_atomically(run / "result.json", "{}")
    assert outside.read_text() == "kept"
    assert (run / "metrics.csv").read_text().startswith("step,")


@pytest.mark.parametrize("target", ["outside", "absent"])
def test_a_lock_that_is_a_link_is_refused(run, tmp_path, target) -> None:
    (tmp_path / "outside").write_text("kept")
    (run / ".lock").unlink()
    (run / ".lock").symlink_to(tmp_path / target)
    with pytest.raises(UserError, match=r"\.lock cannot be locked .*: delete it"):
        train_toy(run, CONFIG, resume=True)
    assert (tmp_path / "outside").read_text() == "kept"
    assert not (tmp_path / "absent").exists()


def test_a_lock_is_a_file_and_keeps_what_it_holds(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(UserError, match="delete it, for it only keeps processes apart"):
            open_lock(tmp_path / name)
    (tmp_path / "file").write_text("kept")
    open_lock(tmp_path / "file").close()
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.csv", "result.json"])
def test_a_folder_in_place_of_a_file_is_refused_at_once(run, name) -> None:
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir()
    with pytest.raises(UserError, match=f"{name} is a folder where a file is to be written"):
        train_toy(run, CONFIG, resume=True)


def test_a_file_in_place_of_a_folder_is_refused_at_once(run) -> None:
    shutil.rmtree(run / "figures")
    (run / "figures").write_text("")
    with pytest.raises(UserError, match="figures is no folder"):
        train_toy(run, CONFIG, resume=True)


def test_a_run_may_be_a_link_that_the_user_names(run, tmp_path) -> None:
    (tmp_path / "named").symlink_to(run)
    assert train_toy(tmp_path / "named", CONFIG, resume=True).step == 10


def test_what_is_only_checked_is_not_made(tmp_path, monkeypatch) -> None:
    check_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)

    def main(argv):
        cli.parse(ToyConfig, PRESETS, experiment="toy", description="", argv=argv)
        raise UserError("The data are not prepared.")

    for argv in ([], ["--out", "mine/run"]):
        with pytest.raises(SystemExit):
            cli.run_main(functools.partial(main, argv))
        assert not list(tmp_path.iterdir())


def test_a_run_that_was_begun_keeps_its_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["toy", "--steps", "2"])

    def main():
        config, run = cli.parse(ToyConfig, PRESETS, experiment="toy", description="")
        train_toy(run.path, config)

    cli.run_main(main)
    (path,) = Path("runs").iterdir()
    assert (path / "config.json").exists()
