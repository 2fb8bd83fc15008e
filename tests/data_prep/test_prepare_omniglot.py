"""Omniglot, from its archives to what `load` gives."""

import errno
import fcntl
import io
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from checks import assert_nothing_prepared, assert_same, run_main
from PIL import Image
from small_omniglot import CLASSES, SmallOmniglot, png, write_zip

import data_prep.omniglot as preparation
import tsar_jax.data
from data_prep import building
from data_prep.__main__ import main
from data_prep.archives import RemoteArchive
from tsar_jax.data import omniglot, prepared
from tsar_jax.data.prepared import file_digest
from tsar_jax.data.types import LabelledImages
from tsar_jax.errors import UserError

ROOT = Path(__file__).parents[2]
OFFICIAL = Path(os.environ.get("OMNIGLOT_ARCHIVES", ROOT.parent / "shared/data/omniglot"))
needs_archives = pytest.mark.skipif(
    not (OFFICIAL / "images_background.zip").is_file(),
    reason="no archives: name their folder in OMNIGLOT_ARCHIVES",
)


def test_what_is_prepared_is_what_load_gives(small: SmallOmniglot, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder, written = preparation.prepare_omniglot(small.archives, out)
    assert written
    assert folder == out / "omniglot28" / "1.0.0"
    dataset = tsar_jax.data.load("omniglot", out)
    assert dataset.source == f"prepared: {folder}"
    assert_same(dataset.splits, small.splits)
    assert not (out / "omniglot28" / "incomplete").exists()


def test_tensorflow_datasets_reads_it_too(small: SmallOmniglot, tmp_path: Path) -> None:
    preparation.prepare_omniglot(small.archives, tmp_path)
    builder = tfds.builder("omniglot28", data_dir=tmp_path)
    source = builder.as_data_source(split="evaluation")
    expected = small.splits["evaluation"]
    assert len(source) == 40
    np.testing.assert_array_equal(source[23]["image"], expected.images[1, 3])
    assert builder.info.features["label"].int2str(source[23]["label"]) == expected.names[1]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [([0, 0, 1], "do not share out"), ([0, 1, 0, 1], "not in the order"), ([], "0 images")],
)
def test_examples_that_are_not_grouped_are_refused(labels: list[int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        prepared._group(
            LabelledImages(np.zeros((len(labels), 28, 28), np.uint8), np.array(labels), ("a", "b"))
        )


def test_without_a_folder_both_sides_use_that_of_tensorflow_datasets(
    small: SmallOmniglot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    assert run_main("omniglot", "--archives", small.archives) == 0
    assert tsar_jax.data.load("omniglot").source == f"prepared: {tmp_path}/tfds/omniglot28/1.0.0"


def test_preparing_again_does_nothing_unless_told(
    small: SmallOmniglot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("omniglot", "--archives", small.archives, "--out", tmp_path)
    assert run_main(*command) == 0
    assert capsys.readouterr().out == f"Omniglot is prepared in {tmp_path}/omniglot28/1.0.0\n"
    record = tmp_path / "omniglot28" / "1.0.0" / "complete.json"
    first = record.stat()
    assert run_main(*command) == 0
    assert "already prepared" in capsys.readouterr().out
    again = record.stat()
    assert (again.st_ino, again.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert run_main(*command, "--overwrite") == 0
    assert "is prepared in" in capsys.readouterr().out
    assert record.stat().st_ino != first.st_ino
    assert_same(tsar_jax.data.load("omniglot", tmp_path).splits, small.splits)


def test_archives_are_downloaded_where_no_folder_is_named(
    small: SmallOmniglot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {split: small.archives / f"images_{split}.zip" for split in CLASSES}
    remotes = {
        split: RemoteArchive(path.as_uri(), path.stat().st_size, file_digest(path))
        for split, path in paths.items()
    }
    monkeypatch.setattr(preparation, "REMOTE", remotes)
    assert run_main("omniglot", "--out", tmp_path / "out") == 0
    assert_same(tsar_jax.data.load("omniglot", tmp_path / "out").splits, small.splits)


WITHOUT_TENSORFLOW = """
import importlib.machinery, os, signal, sys
from pathlib import Path

class Blocker:
    "Finds TensorFlow, as if it were installed, but ends the process if it is imported."
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            return importlib.machinery.ModuleSpec(name, cls)
    @staticmethod
    def create_module(spec):
        os.write(2, b"TensorFlow was imported")
        os._exit(3)

sys.meta_path.insert(0, Blocker)
from tsar_jax.data import load, omniglot
omniglot.SPLITS = {"background": omniglot.Split(3, "", ""), "evaluation": omniglot.Split(2, "", "")}
from data_prep import building
from data_prep.__main__ import main
archives, out, killed = sys.argv[1:]
if killed == "killed":
    building.write_record = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
assert main(["omniglot", "--archives", archives, "--out", out]) == 0
dataset = load("omniglot", out)
assert dataset.source.startswith("prepared"), dataset.source
assert dataset.splits["background"].images.shape == (3, 20, 28, 28)
"""


def run_alone(small: SmallOmniglot, out: Path, how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, str(small.archives), str(out), how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_neither_writing_nor_reading_imports_tensorflow_and_a_killed_run_leaves_no_trace(
    small: SmallOmniglot, tmp_path: Path
) -> None:
    killed = run_alone(small, tmp_path / "out", "killed")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "out" / "omniglot28" / "incomplete").is_dir()
    assert not (tmp_path / "out" / "omniglot28" / "1.0.0").exists()
    again = run_alone(small, tmp_path / "out", "whole")
    assert again.returncode == 0, again.stderr
    assert not (tmp_path / "out" / "omniglot28" / "incomplete").exists()


def test_what_a_killed_run_left_is_not_taken_up(small: SmallOmniglot, tmp_path: Path) -> None:
    other, _ = preparation.prepare_omniglot(small.archives, tmp_path)
    left = tmp_path / "omniglot28" / "incomplete" / "omniglot28" / "1.0.0"
    left.parent.mkdir(parents=True)
    other.rename(left)
    changed = first_replaced(small.members["background"], png(BLANK))
    small.write("background", changed)
    preparation.prepare_omniglot(small.archives, tmp_path)
    images = tsar_jax.data.load("omniglot", tmp_path).splits["background"].images
    assert np.sum(np.all(images == 0, axis=(2, 3))) == 1


def first_replaced(members: dict[str, bytes], data: bytes) -> dict[str, bytes]:
    return {**members, next(iter(members)): data}


def first_renamed(members: dict[str, bytes], name: str) -> dict[str, bytes]:
    (_, data), *rest = members.items()
    return {name: data, **dict(rest)}


def truncated(members: dict[str, bytes]) -> bytes:
    drawing = next(iter(members.values()))
    return drawing[: len(drawing) // 2]


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (105, 105)).save(buffer, format="JPEG")
    return buffer.getvalue()


BLANK = np.zeros((105, 105), np.uint8)
Change = Callable[[dict[str, bytes]], dict[str, bytes]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: first_replaced(m, jpeg()), "is not a readable PNG"),
        (lambda m: first_replaced(m, truncated(m)), "is not a readable PNG"),
        (lambda m: first_replaced(m, png(BLANK[:28])), "is 105x28, not 105x105"),
        (lambda m: first_replaced(m, png(np.zeros((10_000, 10_000), np.uint8))), "10000x10000"),
        (lambda m: first_replaced(m, bytes(1 << 17)), "holds 131072 bytes"),
        (lambda m: first_renamed(m, "images_background/../../x.png"), "leads out of the archive"),
        (lambda m: {**m, "images_background/readme.txt": b""}, "is not at images_background"),
        (lambda m: {**m, "images_background/A/character01/1.jpg": b""}, "is not at images_back"),
        (lambda m: dict(list(m.items())[1:]), "has 19 drawings, not 20"),
        (lambda m: dict(list(m.items())[20:]), "has 2 classes, not 3"),
        (lambda m: {**m, "images_background/A/character01/1.png": png(BLANK)}, "has 4 classes"),
        (lambda m: {}, "has 0 classes, not 3"),
    ],
)
def test_a_wrong_archive_is_one_clear_sentence_and_prepares_nothing(
    small: SmallOmniglot,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    reason: str,
) -> None:
    path = small.write("background", change(small.members["background"]))
    out = tmp_path / "out"
    assert run_main("omniglot", "--archives", small.archives, "--out", out) == 2
    message = capsys.readouterr().err.strip()
    assert reason in message
    assert str(path) in message
    assert "\n" not in message
    assert_nothing_prepared(out)


def test_a_truncated_archive_prepares_nothing(
    small: SmallOmniglot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = small.archives / "images_evaluation.zip"
    path.write_bytes(path.read_bytes()[:-100])
    assert run_main("omniglot", "--archives", small.archives, "--out", tmp_path / "out") == 2
    assert f"{path} is not a complete zip archive" in capsys.readouterr().err
    assert_nothing_prepared(tmp_path / "out")


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(
    small: SmallOmniglot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    monkeypatch.setattr(building, "write_record", full)
    with pytest.raises(UserError, match=r"No space left on device.*free space"):
        preparation.prepare_omniglot(small.archives, tmp_path / "out")
    assert_nothing_prepared(tmp_path / "out")


def test_a_write_that_array_record_cannot_finish_is_a_clear_error(
    small: SmallOmniglot, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write to .*File too large"):
            preparation.prepare_omniglot(small.archives, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_nothing_prepared(tmp_path / "out")


def test_what_reads_back_differently_is_not_kept(
    small: SmallOmniglot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "read_labelled", lambda folder, remedy: {})
    with pytest.raises(UserError, match="differs from what was written"):
        preparation.prepare_omniglot(small.archives, tmp_path / "out")
    assert_nothing_prepared(tmp_path / "out")


def test_an_out_folder_that_cannot_be_made_is_a_clear_error(
    small: SmallOmniglot, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*--out"):
        preparation.prepare_omniglot(small.archives, tmp_path / "file" / "out")


def test_two_preparations_at_once_are_kept_apart(small: SmallOmniglot, tmp_path: Path) -> None:
    home = tmp_path / "omniglot28"
    home.mkdir()
    with (home / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is preparing"):
            preparation.prepare_omniglot(small.archives, tmp_path)


def test_an_interrupt_prepares_nothing(
    small: SmallOmniglot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "write_record", interrupt)
    assert run_main("omniglot", "--archives", small.archives, "--out", tmp_path / "out") == 130
    assert "interrupted" in capsys.readouterr().err
    assert_nothing_prepared(tmp_path / "out")


def test_a_failed_overwrite_keeps_what_was_there(small: SmallOmniglot, tmp_path: Path) -> None:
    preparation.prepare_omniglot(small.archives, tmp_path)
    write_zip(small.archives / "images_background.zip", {})
    with pytest.raises(UserError, match="has 0 classes"):
        preparation.prepare_omniglot(small.archives, tmp_path, overwrite=True)
    assert_same(tsar_jax.data.load("omniglot", tmp_path).splits, small.splits)


@pytest.mark.parametrize(
    "name",
    [
        "complete.json",
        "dataset_info.json",
        "label.labels.txt",
        "omniglot28-evaluation.array_record-00000-of-00001",
    ],
)
@pytest.mark.parametrize("damage", ["lost", "truncated", "altered"])
def test_damaged_prepared_data_are_never_read(
    small: SmallOmniglot, tmp_path: Path, name: str, damage: str
) -> None:
    folder, _ = preparation.prepare_omniglot(small.archives, tmp_path)
    path = folder / name
    content = path.read_bytes()
    if damage == "lost":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    remedy = f"tsar-jax prepare omniglot --out {tmp_path} --overwrite"
    with pytest.raises(UserError, match=remedy) as error:
        tsar_jax.data.load("omniglot", tmp_path)
    assert str(folder) in str(error.value)
    with pytest.raises(UserError, match="--overwrite"):
        preparation.prepare_omniglot(small.archives, tmp_path)
    preparation.prepare_omniglot(small.archives, tmp_path, overwrite=True)
    assert_same(tsar_jax.data.load("omniglot", tmp_path).splits, small.splits)


def test_prepared_data_of_another_size_are_not_taken_for_omniglot(
    small: SmallOmniglot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparation.prepare_omniglot(small.archives, tmp_path)
    evaluation = omniglot.SPLITS["evaluation"]._replace(classes=659)
    monkeypatch.setitem(omniglot.SPLITS, "evaluation", evaluation)
    with pytest.raises(UserError, match=r"are not Omniglot.*\[2, 20, 28, 28\].*\[659, 20"):
        tsar_jax.data.load("omniglot", tmp_path)


def test_the_packaged_file_is_rebuilt_the_same(small: SmallOmniglot, tmp_path: Path) -> None:
    first = preparation.package_omniglot(small.archives, tmp_path / "first.npz")
    assert_same(omniglot.read_packaged(first), small.splits)
    second = preparation.package_omniglot(small.archives, tmp_path / "second.npz")
    assert first.read_bytes() == second.read_bytes()


def test_other_images_are_not_packaged(small: SmallOmniglot, tmp_path: Path) -> None:
    small.write("background", first_replaced(small.members["background"], png(BLANK)))
    with pytest.raises(UserError, match="do not have the published digests"):
        preparation.package_omniglot(small.archives, tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_help_lists_the_data_sets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--help"])
    assert error.value.code == 0
    shown = capsys.readouterr().out
    names = (
        "cifar10 ",
        "cifar100",
        "emnist",
        "mini-imagenet",
        " mnist",
        "omniglot",
        "tiny-imagenet",
    )
    assert all(name in shown for name in names)


@needs_archives
def test_the_official_archives_give_the_packaged_images(tmp_path: Path) -> None:
    preparation.prepare_omniglot(OFFICIAL, tmp_path)
    found = tsar_jax.data.load("omniglot", tmp_path)
    assert found.source.startswith("prepared")
    assert_same(found.splits, omniglot.read_packaged(omniglot.PACKAGED))
