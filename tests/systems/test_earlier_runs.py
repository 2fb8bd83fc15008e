"""Runs made before a setting existed are read as they were made, whatever its default is now."""

import pytest

from tsar_jax.errors import UserError
from tsar_jax.plasticity.methods import METHODS, method_settings
from tsar_jax.systems.continual.system import ContinualConfig
from tsar_jax.systems.episodic.anml import AnmlConfig
from tsar_jax.systems.episodic.tsar import TsarConfig
from tsar_jax.systems.hebbian.evolution import Evolution
from tsar_jax.systems.hebbian.system import HebbianConfig
from tsar_jax.systems.learned_rules.system import LearnedRuleConfig
from tsar_jax.training.checkpoints import check_config
from tsar_jax.training.config import config_from_json, config_to_json

EPISODIC = {"pixels": "byte-normalised", "reset": True}
RULES = {"split": "train", "fixed_images": False, "replacement": False, "avg_window": 10}
CONTINUAL = {
    "published": "synergy",
    "phase_classes": None,
    "pretrain_classes": None,
    "schedule_seed": None,
    "validation": False,
}


@pytest.mark.parametrize(
    ("config_class", "earlier"),
    [
        (AnmlConfig, EPISODIC),
        (TsarConfig, {**EPISODIC, "gate_bias": 0.0}),
        (LearnedRuleConfig, RULES),
        (ContinualConfig, CONTINUAL),
        (Evolution, {"ties": "order"}),
    ],
)
def test_settings_that_did_not_exist(config_class, earlier) -> None:
    stored = {
        name: value for name, value in config_to_json(config_class()).items() if name not in earlier
    }
    config = config_from_json(config_class, stored)
    assert {name: getattr(config, name) for name in earlier} == earlier


@pytest.mark.parametrize(
    ("config_class", "names"),
    [
        (AnmlConfig, ["microbatch", "eval_every", "checkpoint_every"]),
        (HebbianConfig, ["limit"]),
        (LearnedRuleConfig, ["clip"]),
        (ContinualConfig, ["steps", "lr", "batch", "replay", "epochs", "tasks", "phase_size"]),
    ],
)
def test_settings_that_were_0_where_nothing_was_given(config_class, names) -> None:
    stored = config_to_json(config_class()) | dict.fromkeys(names, 0)
    config = config_from_json(config_class, stored)
    assert [getattr(config, name) for name in names] == [None] * len(names)
    given = config_from_json(config_class, stored | dict.fromkeys(names, 3))
    assert [getattr(given, name) for name in names] == [3] * len(names)


def test_settings_that_had_other_names() -> None:
    former = {
        "rate": 0.3,
        "rate_decay": 0.9,
        "least_rate": 0.02,
        "least_sigma": 0.03,
        "penalty": 0.04,
    }
    today = ("learning_rate", "learning_rate_decay", "min_learning_rate", "min_sigma")
    stored = config_to_json(Evolution())
    for name in (*today, "weight_decay"):
        del stored[name]
    config = config_from_json(Evolution, stored | former)
    assert [getattr(config, name) for name in (*today, "weight_decay")] == list(former.values())


@pytest.mark.parametrize(
    ("method", "former", "today"),
    [
        ("derpp", ["alpha=0.2", "beta=1"], {"alpha": 0.2, "beta": 1.0}),
        ("ewc_on", ["adjust_fisher=True", "gamma=1e-05"], {"adjust_fisher": True, "gamma": 1e-05}),
        ("mer", ["batch_num=3"], {"batch_num": 3}),
        ("sgd", [], {}),
    ],
)
def test_hyper_parameters_that_were_names_with_values(method, former, today) -> None:
    stored = config_to_json(ContinualConfig(method=method)) | {"settings": former}
    config = config_from_json(ContinualConfig, stored)
    assert config.settings == method_settings(method, **today)
    assert config_from_json(ContinualConfig, config_to_json(config)) == config


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_of_a_method_without_some_hyper_parameters_is_of_the_same_config(method):
    """As of runs that were begun before hyper-parameters had types, or before one was added."""
    stored = config_to_json(ContinualConfig(method=method)) | {"settings": []}
    config = config_from_json(ContinualConfig, stored)
    check_config({"config": stored}, config, "checkpoint")
    check_config({"config": stored | {"settings": {}}}, config, "checkpoint")


@pytest.mark.parametrize(
    "former",
    [["adjust_fisher=maybe"], ["alpha=much"], ["magic=1"], ["alpha"], [3], "alpha=1", {"a": 1}],
)
def test_hyper_parameters_that_no_version_wrote_are_refused(former) -> None:
    method = "ewc_on" if "adjust_fisher=maybe" in former else "derpp"
    stored = config_to_json(ContinualConfig(method=method)) | {"settings": former}
    with pytest.raises(UserError, match=r"config\.json: .*settings"):
        config_from_json(ContinualConfig, stored)


@pytest.mark.parametrize(
    ("method", "sentence"), [(["der"], "'method' must be"), ("d", "no method 'd'")]
)
def test_hyper_parameters_of_no_method_are_refused(method, sentence) -> None:
    stored = config_to_json(ContinualConfig()) | {"method": method, "settings": ["alpha=1"]}
    with pytest.raises(UserError, match=sentence):
        config_from_json(ContinualConfig, stored)
