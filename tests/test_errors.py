"""Checks of what users give: a seed is one number everywhere."""

import re

import numpy as np
import pytest

from tsar_jax.data.continual.gcil import draw_phases
from tsar_jax.environments.seeds import checked_seeds
from tsar_jax.errors import UserError, checked_seed
from tsar_jax.systems.continual.system import ContinualConfig
from tsar_jax.systems.episodic.meta_test import MetaTestConfig
from tsar_jax.systems.episodic.transfer import TransferConfig
from tsar_jax.systems.hebbian.system import HebbianConfig
from tsar_jax.systems.learned_rules.learning_curves import CurveConfig
from tsar_jax.systems.learned_rules.system import LearnedRuleConfig
from tsar_jax.training.loop import make_keys

CONFIGS = [
    *(ContinualConfig, HebbianConfig, LearnedRuleConfig),
    *(MetaTestConfig, CurveConfig, TransferConfig),
]


@pytest.mark.parametrize("config_class", CONFIGS)
@pytest.mark.parametrize("seed", [-1, 2**32, 2**63, True, 1.5, "1", np.int64(-1)])
def test_no_config_has_a_seed_that_is_none(config_class, seed) -> None:
    with pytest.raises(UserError, match=r"^seed must be"):
        config_class(seed=seed)


@pytest.mark.parametrize("config_class", CONFIGS)
def test_a_seed_of_numpy_becomes_an_int(config_class) -> None:
    config = config_class(seed=np.uint32(7))
    assert type(config.seed) is int
    assert config == config_class(seed=7)


def test_the_last_of_several_seeds_is_one_too() -> None:
    assert ContinualConfig(seed=2**32 - 2, seeds=2).seed == 2**32 - 2
    sentence = (
        "seed is 4294967295, and the last of 2 seeds from there, 4294967296, is not below 2**32: "
        "choose at most 4294967294."
    )
    with pytest.raises(UserError, match=re.escape(sentence)):
        ContinualConfig(seed=2**32 - 1, seeds=2)


def test_keys_schedules_and_episodes_are_of_seeds_alone() -> None:
    for make in (
        make_keys,
        lambda seed: draw_phases(np.zeros(4, int), np.ones(1), seed=seed),
        lambda seed: checked_seeds([0, seed], 2),
        lambda seed: checked_seed("seed", seed),
    ):
        for seed in (-1, 2**32, False):
            with pytest.raises(UserError, match="must be"):
                make(seed)
    with pytest.raises(UserError, match="seed has 1 entries, but there are 2 environments"):
        checked_seeds(np.zeros(1, np.uint32), 2)


def test_whoever_uses_the_library_catches_a_value_error() -> None:
    with pytest.raises(ValueError, match="seed must be in"):
        checked_seed("seed", -1)
