"""The wheel: tsar_jax alone, working where there is no repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILT_FROM = ("tsar_jax", "experiments", "data_prep")
PICTURE = ROOT / "results/anml/figures/meta_test.png"
FILES = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this repository, built from a copy of it: a build leaves folders behind."""
    source = tmp_path_factory.mktemp("source")
    for name in BUILT_FROM:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    made = tmp_path_factory.mktemp("wheel")
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(made)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    return next(made.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """(words) -> the process of `tsar-jax` in an environment that has the wheel and no repository.

    What tsar_jax requires is taken from the environment of the tests.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # A folder that a .pth file names has its own .pth files ignored, an editable tsar_jax's too.
    (site / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    work = tmp_path_factory.mktemp("work")

    def run(*words, **environment):
        code = "from tsar_jax.cli import main; main()"
        surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [folder / "bin" / "python", "-c", code, *map(str, words)],
            cwd=work,
            env=surroundings | environment,
            capture_output=True,
            text=True,
        )

    return run


def test_a_wheel_has_one_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert top == {"tsar_jax"}
    assert {"tsar_jax/experiments/quickstart.py", "tsar_jax/data_prep/omniglot.py"} <= set(names)


def test_it_lists_and_prepares(installed, tmp_path):
    listed = installed("list")
    assert (listed.returncode, listed.stderr) == (0, "")
    scripts = [path.stem for path in sorted((ROOT / "experiments").glob("[!_]*.py"))]
    assert [line.split()[0] for line in listed.stdout.splitlines()] == scripts
    archives, out = tmp_path / "archives", tmp_path / "out"
    for name in "ab":
        (archives / name).mkdir(parents=True)
        for number in range(2):
            shutil.copy(PICTURE, archives / name / f"{number}.png")
    words = ("prepare", "images", "--archives", archives, "--name", "mine", "--out", out)
    done = installed(*words)
    assert done.returncode == 0, done.stderr
    assert "mine is prepared in" in done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "hebbian_evolve",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "anml_meta_train",
                "tsar_meta_train",
                "plasticity_meta_train",
                "continual_train",
                "compose",
            )
        ),
    ],
)
def test_it_trains(installed, name, tmp_path):
    done = installed("run", name, "--preset", "smoke", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "finished     yes" in installed("status", tmp_path / "run").stdout
