"""Weights of the releases as runs: what takes such a run, the way back, and beginning with one."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import command, failure

from experiments import (
    anml_analyse,
    anml_meta_test,
    anml_meta_train,
    continual_analyse,
    continual_train,
    hebbian_evaluate,
    hebbian_evolve,
    tsar_analyse,
    tsar_meta_train,
    tsar_transfer,
)
from tsar_jax import cli
from tsar_jax.cli import import_weights
from tsar_jax.cli.import_continual import network_sizes
from tsar_jax.data import omniglot
from tsar_jax.interop.naming import with_resnet18_aliases, without_prefix
from tsar_jax.interop.torch_files import read_arrays
from tsar_jax.interop.torch_writer import write_array, write_state_dict
from tsar_jax.systems.continual.release import (
    resnet18_from_release,
    resnet18_statistics_to_release,
    resnet18_to_release,
)
from tsar_jax.systems.episodic import anml, tsar
from tsar_jax.training.checkpoints import read_checkpoint
from tsar_jax.training.run import load_config, read_description

pytestmark = pytest.mark.usefixtures("quickly_compiled")

FILES = Path(__file__).parents[1] / "interop" / "release_files"
TSAR = "TSAR_Rich_Bias=-8.0_Seed=999"
COEFFICIENTS = "HEBcoeffs__CartPole__coeffs.dat"
KERNELS = "HEBcoeffs__CarRacing__CNN_parameters.dat"
STREAM = ("--stream", "rot-emnist", "--tasks", 2)
SOURCES = {
    "anml": ("anml", "anml-legacy-cuda.net"),
    "oml": ("oml", "oml-legacy.net"),
    "tsar": ("tsar", TSAR),
    "hebbian": ("hebbian", COEFFICIENTS),
    "mlp": ("mlp", "mnist_mlp-task_3_model.ph", *STREAM),
}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """MuJoCo writes its warnings to a file in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True, scope="module")
def few_classes():
    few = {name: images[:12] for name, images in omniglot.load_on_device().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omniglot, "load_on_device", lambda: few)
        yield


def tool(*words) -> None:
    cli.command([str(word) for word in words])


def refused(capsys, *words) -> str:
    """What a command says that must end with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        cli.run_main(lambda: tool(*words))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.fixture(scope="module")
def runs(tmp_path_factory, quickly_compiled):
    """A run of every file in `SOURCES`."""
    folder = tmp_path_factory.mktemp("runs")
    for name, (kind, file, *flags) in SOURCES.items():
        tool("import", kind, FILES / file, "--out", folder / name, *flags)
    return folder


def state(run):
    """The arrays of a run's checkpoint."""
    (step,) = (int(path.name) for path in (run / "checkpoints").iterdir())
    return read_checkpoint(run / "checkpoints", step)[0]


def test_widths_are_those_of_the_file(runs) -> None:
    config = load_config(runs / "anml", anml.AnmlConfig)
    assert (config.model, config.channels, config.gate_channels) == ("anml", 4, 3)
    config = load_config(runs / "oml", anml.AnmlConfig)
    assert (config.model, config.channels, config.hidden_features) == ("oml", 3, 8)
    config = load_config(runs / "tsar", tsar.TsarConfig)
    assert (config.channels, config.regulator_channels, config.initial_bias) == (2, 2, -8.0)
    config = read_description(runs / "mlp")["config"]
    assert (config["hidden"], config["method"], config["steps"]) == ([100, 100], "sgd", 50)
    config = read_description(runs / "hebbian")["config"]
    assert (config["environment"], config["policy"]["rule"]) == ("cart_pole", "ABCD_lr")


@pytest.mark.parametrize("name", [*SOURCES])
def test_there_and_back_is_the_same_to_the_bit(runs, tmp_path, name) -> None:
    kind, file, *flags = SOURCES[name]
    tool("export", runs / name, tmp_path / "back.pt")
    original, back = (read_arrays(path).arrays for path in (FILES / file, tmp_path / "back.pt"))
    assert len(original) == len(back)
    for key, array in original.items():
        np.testing.assert_array_equal(back[key], array.astype(np.float32), strict=True)
    tool("import", kind, tmp_path / "back.pt", "--out", tmp_path / "again", *flags)
    before, after = state(runs / name), state(tmp_path / "again")
    assert list(before) == list(after)
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array, strict=True)


def test_meta_test_takes_an_imported_anml(runs, monkeypatch) -> None:
    run = runs / "anml"
    one = ("--preset", "smoke", "--classes", 3, "--population", 6, "--runs", 1, "--rates", 0.01)
    command(anml_meta_test, "--run", run, *one, monkeypatch=monkeypatch)
    assert (
        json.loads((run / "meta_test-head-population6.json").read_text())["settings"]["step"] == 0
    )


@pytest.mark.slow
def test_analysis_takes_an_imported_anml(runs, monkeypatch) -> None:
    run = runs / "anml"
    flags = ("--classes", 6, "--images", 2, "--meta-test-runs", 1)
    command(anml_analyse, "--run", run, *flags, monkeypatch=monkeypatch)
    assert (run / "analysis.json").exists()


@pytest.mark.slow
def test_transfer_and_analysis_take_an_imported_tsar(runs, tmp_path, monkeypatch) -> None:
    run = runs / "tsar"
    flags = ("--target", "omniglot", "--classes", 3, "--learn", 2)
    one = ("--preset", "smoke", "--rates", 0.01)
    command(tsar_transfer, "--run", run, *one, *flags, monkeypatch=monkeypatch)
    assert (run / "transfer-omniglot-random-3x2.json").exists()
    command(tsar_analyse, "--runs", run, "--out", tmp_path, *flags, monkeypatch=monkeypatch)
    assert any((tmp_path / "figures").iterdir())


def test_evaluation_and_film_take_imported_coefficients(runs, monkeypatch) -> None:
    run = runs / "hebbian"
    command(hebbian_evaluate, "--run", run, "--lifetimes", 1, "--no-film", monkeypatch=monkeypatch)
    fitness = json.loads((run / "evaluation.json").read_text())["fitness"]["cart_pole"]
    assert fitness[0] >= 1


def test_analysis_takes_an_imported_perceptron(runs, tmp_path, monkeypatch) -> None:
    arguments = ("--runs", runs / "mlp", "--out", tmp_path, "--draws", 1, "--deviations", 0)
    command(continual_analyse, *arguments, monkeypatch=monkeypatch)
    assert (tmp_path / "figures" / "calibration.png").exists()
    assert not (tmp_path / "figures" / "trade_off.png").exists()


def test_convolutions_alone_and_with_coefficients(tmp_path, capsys) -> None:
    tool("import", "pixel-policy", FILES / KERNELS, "--out", tmp_path / "a")
    assert "coefficients are drawn as evolution begins" in capsys.readouterr().out
    first = state(tmp_path / "a")
    assert first["genome/main/0"].shape == (5, 128, 648)
    tool("export", tmp_path / "a", tmp_path / "b.dat")
    (convolutions,) = read_arrays(tmp_path / "b-coevolved.dat").arrays.values()
    (original,) = read_arrays(FILES / KERNELS).arrays.values()
    np.testing.assert_array_equal(convolutions, original.astype(np.float32))
    both = (tmp_path / "b-coevolved.dat", tmp_path / "b.dat")
    for index, files in enumerate((both, both[::-1])):
        tool("import", "pixel-policy", *files, "--out", tmp_path / f"c{index}")
        for key, array in state(tmp_path / f"c{index}").items():
            np.testing.assert_array_equal(array, first[key], strict=True)


def test_static_and_coevolved_policies_there_and_back(tmp_path) -> None:
    rng = np.random.default_rng(0)
    shapes = {"fc1": (5, 4), "fc2": (3, 5), "fc3": (2, 3)}
    static = {f"{k}.weight": rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    write_state_dict(tmp_path / "static.pt", static)
    tool("import", "hebbian", tmp_path / "static.pt", "--out", tmp_path / "static")
    assert read_description(tmp_path / "static")["config"]["policy"]["rule"] == "static"
    tool("export", tmp_path / "static", tmp_path / "back.pt")
    for name, array in read_arrays(tmp_path / "back.pt").arrays.items():
        np.testing.assert_array_equal(array, static[name], strict=True)
    write_array(tmp_path / "rows.dat", rng.normal(size=(20 + 15 + 6, 4)).astype(np.float32))
    born = rng.normal(size=(20 + 15 + 6,)).astype(np.float32)
    write_array(tmp_path / "born.dat", born)
    files = (tmp_path / "rows.dat", tmp_path / "born.dat")
    flags = ("--environment", "cart_pole", "--policy.hidden", 5, 3, "--policy.rule", "ABCD")
    tool("import", "hebbian", *files, "--out", tmp_path / "born", *flags)
    assert read_description(tmp_path / "born")["config"]["policy"]["initial"] == "coevolve"
    np.testing.assert_array_equal(
        state(tmp_path / "born")["genome/coevolved/weights/1"], born[20:35].reshape(3, 5)
    )
    tool("export", tmp_path / "born", tmp_path / "there.dat")
    (found,) = read_arrays(tmp_path / "there-coevolved.dat").arrays.values()
    np.testing.assert_array_equal(found, born, strict=True)


def test_a_resnet18_is_mapped_with_its_statistics() -> None:
    content = read_arrays(FILES / "resnet18-task_3_model.ph")
    variables = resnet18_from_release(without_prefix(content.arrays, "conv1.weight"))
    assert network_sizes("resnet18", variables) == {"width": 3}
    own = resnet18_to_release(variables.params)
    named = with_resnet18_aliases(own | resnet18_statistics_to_release(variables.stats))
    assert set(named) == set(content.arrays)
    for name, array in content.arrays.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(named[name], array, strict=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("anml", FILES / "hostile-zip.pth"), "asks to call posix.system"),
        (("anml", FILES / "hostile-legacy.pth"), "asks to call posix.system"),
        (("oml", FILES / "anml-zip.net"), "'oml' has 16 arrays, not 28"),
        (("anml", FILES / TSAR), "'anml' has 28 arrays, not 34"),
        (("mlp", FILES / "resnet18-state-dict.pt"), "fc1.weight is missing"),
        (("resnet18", FILES / "mnist_mlp-state-dict.pt"), "conv1.weight is missing"),
        (("hebbian", FILES / "oml-legacy.net"), "policy"),
        (("hebbian", FILES / KERNELS), "coefficients"),
        (("pixel-policy", FILES / COEFFICIENTS), "convolutions"),
        (("anml", "nothing.net"), "There is no file"),
        (("maml", FILES / "anml-zip.net"), "There is no kind 'maml'"),
        (("anml", FILES / "anml-zip.net", "--channels", 5), "channels is 4 in the file, not 5"),
        (("anml", FILES / "anml-zip.net", FILES / KERNELS), "one file too many"),
        (("hebbian", FILES / COEFFICIENTS, "--environment", "pendulum"), "8832 synapses"),
        (("hebbian", FILES / COEFFICIENTS, "--policy.rule", "A"), "A has 1 coefficients"),
        (("mlp", FILES / "mnist_mlp-state-dict.pt", "--stream", "rot-x"), ""),
    ],
    ids=lambda value: "" if isinstance(value, tuple) else value,
)
def test_what_cannot_be_imported_is_one_sentence(tmp_path, capsys, words, said) -> None:
    assert said in refused(capsys, "import", *words, "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_what_cannot_be_written_is_one_sentence(runs, tmp_path, capsys) -> None:
    word = FILES / "anml-zip.net"
    assert "add --out" in refused(capsys, "import", "anml", word)
    assert "already holds" in refused(capsys, "import", "anml", word, "--out", runs / "anml")
    (tmp_path / "there").touch()
    assert "exists already" in refused(capsys, "export", runs / "anml", tmp_path / "there")
    assert "no run folder" in refused(capsys, "export", tmp_path / "none", tmp_path / "x")
    nowhere = tmp_path / "none" / "x"
    assert "does not exist" in refused(capsys, "export", runs / "anml", nowhere)


def test_help_teaches_every_kind(capsys) -> None:
    tool("import", "--help")
    said = capsys.readouterr().out
    for kind in ("anml", "oml", "tsar", "hebbian", "pixel-policy", "mlp", "resnet18"):
        assert f"tsar-jax import {kind} " in said
    with pytest.raises(SystemExit) as ended:
        tool("import", "tsar", "--help")
    assert ended.value.code == 0
    assert "--initial-bias" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        tool("--help")
    said = capsys.readouterr().out
    assert "import" in said
    assert "export" in said


TINY = (
    *("--outputs", 1000, "--train-classes", 8, "--inner-updates", 2, "--remember", 2, "--steps", 2),
    *("--chunk", 1, "--checkpoint-every", 1, "--keep", 5),
    *("--eval-classes", 2, "--eval-runs", 1, "--eval-rates", 0.01),
)


def test_meta_training_begins_with_imported_weights_and_resumes(
    runs, tmp_path, monkeypatch, capsys
) -> None:
    init = tmp_path / "init"
    shutil.copytree(runs / "oml", init)
    widths = ("--model", "oml", "--channels", 3, "--hidden-features", 8)
    flags = ("--preset", "smoke", *widths, *TINY, "--init", init)
    command(anml_meta_train, "--out", tmp_path / "a", *flags, monkeypatch=monkeypatch)
    assert load_config(tmp_path / "a")["init"] == str(init)
    held, begun = state(init), read_checkpoint(tmp_path / "a" / "checkpoints", 0)[0]
    for name, array in held.items():
        np.testing.assert_array_equal(begun[name], array, strict=True)
    last = read_checkpoint(tmp_path / "a" / "checkpoints", 2)[0]
    assert any((last[name] != array).any() for name, array in held.items() if "params" in name)
    # What comes after a checkpoint needs the other run no more.
    shutil.rmtree(tmp_path / "a" / "checkpoints" / "2")
    shutil.rmtree(init)
    command(anml_meta_train, "--resume", tmp_path / "a", monkeypatch=monkeypatch)
    for name, array in read_checkpoint(tmp_path / "a" / "checkpoints", 2)[0].items():
        np.testing.assert_array_equal(array, last[name], strict=True)
    new = ("--out", tmp_path / "b", *flags)
    said = failure(anml_meta_train, *new, monkeypatch=monkeypatch, capsys=capsys)
    assert "There is no run folder" in said
    assert not (tmp_path / "b" / "config.json").exists()


@pytest.mark.parametrize(
    ("script", "run", "flags", "named"),
    [
        (
            anml_meta_train,
            "anml",
            ("--preset", "smoke", *TINY),
            "head/kernel is [36, 1000] there, but [72, 1000] here",
        ),
        (tsar_meta_train, "anml", ("--preset", "smoke", *TINY), "encoder/block_0/bias is absent"),
        (hebbian_evolve, "hebbian", ("--preset", "smoke"), "main/0 is [5, 128, 4] there"),
        (
            continual_train,
            "mlp",
            ("--preset", "smoke"),
            "params/layer_0/bias is [100] there, but [20] here",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_before_any_work(
    runs, tmp_path, monkeypatch, capsys, script, run, flags, named
) -> None:
    init = ("--out", tmp_path / "a", "--init", runs / run)
    said = failure(script, *flags, *init, monkeypatch=monkeypatch, capsys=capsys)
    assert named in said
    assert not (tmp_path / "a" / "config.json").exists()


def test_evolution_and_continual_learning_begin_with_imported_weights(
    runs, tmp_path, monkeypatch
) -> None:
    hidden = ("--preset", "smoke", "--policy.hidden", 128, 64, "--steps", 1)
    init = ("--init", runs / "hebbian")
    command(hebbian_evolve, *hidden, *init, "--out", tmp_path / "h", monkeypatch=monkeypatch)
    begun = read_checkpoint(tmp_path / "h" / "checkpoints", 0)[0]
    name = "genome/main/1"
    np.testing.assert_array_equal(begun[name], state(runs / "hebbian")[name])
    flags = ("--preset", "smoke", "--method", "sgd", "--hidden", 100, 100, "--steps", 3)
    init = ("--init", runs / "mlp", "--seeds", 2)
    command(continual_train, *flags, *init, "--out", tmp_path / "c", monkeypatch=monkeypatch)
    begun = read_checkpoint(tmp_path / "c" / "checkpoints", 0)[0]
    name = "learner/net/params/layer_1/kernel"
    wanted = state(runs / "mlp")[name]
    np.testing.assert_array_equal(begun[f"state/{name}"], [wanted, wanted])


EMPTY = {"anml": "anml-state-dict.pth", "oml": "oml-legacy.net", "tsar": TSAR}
MLP = SOURCES["mlp"][1]


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("fill", [None, 1e300, np.nan], ids=str)
def test_a_network_with_an_array_of_no_use_is_one_sentence(tmp_path, capsys, kind, fill) -> None:
    arrays = read_arrays(FILES / EMPTY[kind]).arrays
    for index in (0, 1, len(arrays) - 2):
        bad = {f"vars.{place}": array for place, array in enumerate(arrays.values())}
        array = bad[f"vars.{index}"]
        empty = np.zeros((0, *array.shape[1:]), np.float32)
        bad[f"vars.{index}"] = empty if fill is None else np.full(array.shape, fill)
        write_state_dict(tmp_path / "a.pt", bad)
        said = refused(capsys, "import", kind, tmp_path / "a.pt", "--out", tmp_path / "run")
        assert f"Array vars.{index} " in said
        assert "warning" not in said


@pytest.mark.parametrize(
    ("kind", "files", "named"),
    [
        ("mlp", [{"fc1.weight": np.zeros((0, 784), np.float32)}], "fc1.weight"),
        ("mlp", [{"fc1.weight": np.full((100, 784), 1e300)}], "fc1.weight"),
        ("hebbian", [np.zeros((0, 5))], "Array 0"),
        ("hebbian", [np.zeros((0,))], "Array 0"),
        ("hebbian", [np.zeros(()), np.zeros(())], "Array 0"),
        ("hebbian", [{"a": np.zeros(3), "b": np.zeros((2, 3))}], "static policy"),
        ("hebbian", [{"a": np.zeros(()), "b": np.zeros(())}], "Array a"),
        ("hebbian", [{"a": np.zeros((2**31 - 1, 0)), "b": np.zeros((2, 3))}], "Array a"),
        ("pixel-policy", [{"a": np.zeros((2, 3)), "b": np.zeros((2, 3))}], "static policy"),
    ],
    ids=str,
)
def test_arrays_that_no_network_has_are_one_sentence(tmp_path, capsys, kind, files, named) -> None:
    paths = []
    for index, content in enumerate(files):
        paths.append(tmp_path / f"{index}.pt")
        if isinstance(content, dict):
            whole = dict(read_arrays(FILES / MLP).arrays) if kind == "mlp" else {}
            write_state_dict(paths[-1], whole | content)
        else:
            paths[-1].write_bytes(pickle.dumps(content))
    assert named in refused(capsys, "import", kind, *paths, "--out", tmp_path / "run")


@pytest.mark.parametrize(
    ("bias", "taken"),
    [(-8.0, -8.0), (-8, -8.0), (True, "default"), ("x", "default")]
    + [(bias, None) for bias in (np.nan, -np.inf, 1e308, 10**400)],
    ids=lambda value: str(value)[:9],
)
def test_the_initial_bias_of_a_file_is_checked(monkeypatch, tmp_path, capsys, bias, taken) -> None:
    content = read_arrays(FILES / TSAR)._replace(attributes={"bias": bias})
    monkeypatch.setattr(import_weights, "read_arrays", lambda path: content)
    words = ("import", "tsar", FILES / TSAR, "--out", tmp_path / "run")
    if taken is None:
        assert "initial bias is not finite" in refused(capsys, *words)
        return
    tool(*words)
    default = tsar_meta_train.PRESETS["paper"].config.initial_bias
    config = load_config(tmp_path / "run", tsar.TsarConfig)
    assert config.initial_bias == (default if taken == "default" else taken)
