"""Flags and names that do not exist, answered with the nearest; what matters first in help."""

import re
import sys

import jax.numpy as jnp
import pytest

from benchmarks.__main__ import main as benchmarks_main
from benchmarks.suite import choose
from data_prep.__main__ import main as data_prep_main
from experiments import (
    anml_meta_train,
    continual_train,
    hebbian_evolve,
    quickstart,
    tsar_transfer,
)
from tsar_jax import cli
from tsar_jax.cli.flags import flag_names, parse_flags, suggest
from tsar_jax.cli.scripts import run_experiment
from tsar_jax.data import load, load_labelled
from tsar_jax.data.continual import split_name
from tsar_jax.environments.quadruped_body import find_body
from tsar_jax.errors import DataNotPrepared, UserError, doing_without, nearest, pip
from tsar_jax.evaluation.published_text import select
from tsar_jax.networks import TSAR
from tsar_jax.plasticity.methods import make_method, method_settings
from tsar_jax.plasticity.rules import find_terms
from tsar_jax.pretrained.store import unpack
from tsar_jax.systems.continual.system import ContinualConfig
from tsar_jax.systems.episodic.anml import AnmlConfig, make_network
from tsar_jax.systems.episodic.release import release_names
from tsar_jax.systems.episodic.system import check_data
from tsar_jax.systems.episodic.trained import check_plastic
from tsar_jax.systems.episodic.transfer_arguments import TransferArguments
from tsar_jax.systems.hebbian.policy import PolicyConfig
from tsar_jax.systems.hebbian.system import HebbianConfig

SCRIPTS = {
    "anml_meta_train": (AnmlConfig, anml_meta_train.PRESETS),
    "continual_train": (ContinualConfig, continual_train.PRESETS),
    "hebbian_evolve": (HebbianConfig, hebbian_evolve.PRESETS),
    "tsar_transfer": (TransferArguments, tsar_transfer.PRESETS),
}


def exit_of(command):
    try:
        return command()
    except SystemExit as ended:
        return ended.code


def quickstart_main():
    cli.run_main(quickstart.main)


def parse(script, *argv):
    cls, presets = SCRIPTS[script]
    default = next(iter(presets.values())).config
    return parse_flags(cls, argv, prog=script, description="", default=default)


@pytest.mark.parametrize(
    ("script", "flag", "meant"),
    [
        ("anml_meta_train", "--lr", "--meta-rate"),
        ("anml_meta_train", "--learning-rate=3", "--meta-rate"),
        ("anml_meta_train", "--chanels", "--channels"),
        ("anml_meta_train", "--iterations", "--steps"),
        ("continual_train", "--buffer_size", "--buffer"),
        ("continual_train", "--dataset", "--stream"),
        ("continual_train", "--model", "--method"),
        ("hebbian_evolve", "--env", "--environment"),
        ("hebbian_evolve", "--population", "--evolution.population"),
        ("hebbian_evolve", "--lr", "--evolution.learning-rate"),
        ("tsar_transfer", "--dataset", "--target"),
    ],
)
def test_the_nearest_flag_is_named(script, flag, meant):
    with pytest.raises(UserError, match=rf"no flag {flag.partition('=')[0]}: .*{meant};"):
        parse(script, flag, "3")


def test_flags_unlike_any_and_words_of_no_flag():
    assert suggest("--xyzzyx", flag_names(AnmlConfig)) is None
    with pytest.raises(UserError, match=r"There is no flag --xyzzyx: anml_meta_train --help"):
        parse("anml_meta_train", "--xyzzyx")
    with pytest.raises(UserError, match="'word' belongs to no flag"):
        parse("anml_meta_train", "word")
    assert parse("anml_meta_train", "--no-reset", "--meta_rate", "0.5").meta_rate == 0.5


def test_the_hyper_parameters_of_the_method_have_flags_of_their_types():
    config = parse("continual_train", "--method.ema-alpha", "0.5", "--method", "synergy")
    assert config.settings == method_settings("synergy", ema_alpha=0.5)
    config = parse("continual_train", "--method=ewc_on", "--method.adjust-fisher", "True")
    assert (config.method, config.settings) == (
        "ewc_on",
        method_settings("ewc_on", adjust_fisher=True),
    )
    assert parse("continual_train", "--method", "er").settings is None


def test_a_resumed_run_keeps_the_hyper_parameters_that_it_began_with():
    stored = ContinualConfig(method="derpp", settings=method_settings("derpp", alpha=0.2))
    flags = {"prog": "", "description": "", "default": stored}
    assert parse_flags(ContinualConfig, ["--method.alpha", "0.2"], **flags) == stored
    other = parse_flags(ContinualConfig, ["--method.beta", "0.3"], **flags)
    assert other.settings == method_settings("derpp", alpha=0.2, beta=0.3)
    other = parse_flags(ContinualConfig, ["--method", "der"], **flags)
    assert other.settings == method_settings("der")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--method.reg-weigth", "1"), "the nearest is --method.reg-weight;"),
        (("--method", "der", "--method.beta", "1"), "no flag --method.beta"),
        (
            ("--method", "sgd", "--method.alpha", "1"),
            "no flag --method.alpha: ",
        ),
        (("--method", "der", "--alhpa", "1"), "the nearest is --method.alpha;"),
        (("--method", "dderp", "--method.alpha", "1"), "no method 'dderp'.*nearest is der"),
    ],
)
def test_hyper_parameters_that_the_method_has_not_are_answered(flags, sentence):
    with pytest.raises(UserError, match=sentence):
        parse("continual_train", *flags)


def test_help_explains_the_hyper_parameters_of_the_method(capsys):
    with pytest.raises(SystemExit):
        parse("continual_train", "--method", "derpp", "--help")
    text = capsys.readouterr().out
    assert "--method.beta" in text
    assert "Weight of the labels' loss" in text


def test_help_lists_what_matters_first_and_the_loop_last(capsys):
    orders = {
        "anml_meta_train": ["--model", "--channels", "--steps", "--seed", "--chunk", "--keep"],
        "continual_train": ["--method", "--stream", "--buffer", "--steps", "--chunk"],
        "hebbian_evolve": ["--environment", "--bodies", "--steps", "--chunk"],
    }
    for script, wanted in orders.items():
        with pytest.raises(SystemExit):
            parse(script, "--help")
        text = capsys.readouterr().out
        places = [text.index(f" {flag} ") for flag in wanted]
        assert places == sorted(places), script


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("cartpole", ["pendulum", "cart_pole"], "cart_pole"),
        ("CIFAR-10", ["cifar100", "cifar10"], "cifar10"),
        ("zzz", ["cart_pole"], None),
    ],
)
def test_nearest(name, known, found):
    assert nearest(name, known) == found


@pytest.mark.parametrize(
    ("attempt", "near"),
    [
        (lambda: parse("anml_meta_train", "--model", "amnl"), "the nearest is anml"),
        (lambda: parse("tsar_transfer", "--target=cifar-100"), "the nearest is cifar100"),
        (lambda: load("omniglott"), "the nearest is omniglot"),
        (lambda: load_labelled("minst"), "the nearest is mnist"),
        (lambda: split_name("rotmnist"), "the nearest is rot-mnist"),
        (lambda: run_experiment("anml_metatrain", []), "the nearest is anml_meta_train"),
        (
            lambda: check_plastic(make_network(AnmlConfig(channels=2, gate_channels=2)), ("haed",)),
            "the nearest is head",
        ),
        (
            lambda: cli.parse(
                *SCRIPTS["anml_meta_train"], experiment="x", description="", argv=["--preset=papre"]
            ),
            "the nearest is paper",
        ),
        (lambda: unpack("cart-poel"), "no pretrained thing .*the nearest is cart-pole"),
        (lambda: find_body("rihgt_front"), "friction:0.3.; the nearest is right_front"),
        (lambda: find_terms(["oaj"]), "--modules.; the nearest is oja"),
        (lambda: PolicyConfig(rule="statci"), "the nearest is static"),
        (lambda: PolicyConfig(initial="coevolv"), "the nearest is coevolve"),
        (lambda: TSAR(regulated=("blok_1",)), "the nearest is block_1"),
        (lambda: make_method("der", alhpa=1), "the nearest is alpha"),
        (lambda: release_names("tsra"), "the nearest is tsar"),
        (lambda: select(["stream=emnst"]), "what there is; the nearest is emnist"),
        (lambda: select(["streem=emnist"]), "source; the nearest is stream"),
        (lambda: choose(["car_framse"]), "the nearest is car_frames"),
    ],
)
def test_names_that_do_not_exist_are_answered(attempt, near):
    with pytest.raises(UserError, match=near):
        attempt()


@pytest.mark.parametrize(
    ("command", "argv", "message"),
    [
        (cli.main, "runn", "no command 'runn': .*the nearest is run[.]"),
        (cli.main, "--verison", "no flag --verison: the nearest is --version;"),
        (cli.main, "published --wirte README.md", "no flag --wirte: the nearest is --write; tsar-"),
        (cli.main, "list words", "'words' belongs to no flag: .*tsar-jax list --help"),
        (cli.main, "export run file --stp 3", "no flag --stp: the nearest is --step;"),
        (quickstart_main, "--otu x", "no flag --otu: the nearest is --out;"),
        (data_prep_main, "omniglto", "no command 'omniglto': .*the nearest is omniglot[.]"),
        (data_prep_main, "mini_imagenet --archive x", "no flag --archive: .* --archives;"),
        (benchmarks_main, "--onyl oml", "no flag --onyl: the nearest is --only;"),
        (benchmarks_main, "--widths smal", "no kind of widths 'smal': .*the nearest is small[.]"),
    ],
)
def test_commands_and_their_flags_are_answered(monkeypatch, capsys, command, argv, message):
    monkeypatch.setattr(sys, "argv", ["command", *argv.split()])
    assert exit_of(command) == 2
    assert re.match(f"error: .*{message}", capsys.readouterr().err)


def test_our_own_environments_are_suggested_too():
    pytest.importorskip("gymnasium")
    from tsar_jax.environments.gymnasium_episode import make_episode

    with pytest.raises(UserError, match="the nearest are cart_pole and CartPole-v1"):
        make_episode("cartpole", None)


def test_data_nobody_prepared_are_answered_with_what_needs_none():
    with (
        pytest.raises(DataNotPrepared, match="run this; --preset smoke needs none"),
        doing_without("--preset smoke needs none"),
    ):
        raise DataNotPrepared("MNIST is not prepared: run this")


def test_images_of_another_size_are_refused():
    images = jnp.zeros((2, 20, 32, 32), jnp.uint8)
    with pytest.raises(UserError, match="background images are 32x32, but the networks take 28x28"):
        check_data(AnmlConfig(), {"background": images, "evaluation": images})


def test_hints_at_packages_call_the_pip_of_this_python():
    assert pip() == f"{sys.executable} -m pip"
