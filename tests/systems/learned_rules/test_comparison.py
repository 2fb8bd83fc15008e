"""Names of plasticity rules in a comparison: the paper's, and what tells equal ones apart."""

import dataclasses

import pytest

from tsar_jax.plasticity.rules import POOL
from tsar_jax.systems.learned_rules.comparison import labels, rule_name
from tsar_jax.systems.learned_rules.presets import PRESETS
from tsar_jax.systems.learned_rules.system import LearnedRuleConfig

FA = LearnedRuleConfig(terms=("pseudo_gradient",), steps=22, seeds=3, hidden=(4,))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "FA"),
        ({"feedback": "sym"}, "BP"),
        ({"feedback": "sign"}, "sign-symmetric"),
        ({"l1": 1e-3}, "FA, L1"),
        ({"terms": ("pseudo_gradient", "ehebb")}, "eHebb"),
        ({"terms": ("pseudo_gradient", "ehebb"), "per_layer": True}, "eHebb, per layer"),
        ({"terms": ("pseudo_gradient", "ehebb"), "feedback": "sym"}, "eHebb, symmetric"),
        ({"terms": ("pseudo_gradient", "oja")}, "Oja"),
        ({"terms": ("pseudo_gradient", "oja", "ehebb")}, "F_bio"),
        ({"terms": ("ehebb", "pseudo_gradient")}, "ehebb + pseudo_gradient"),
        ({"terms": ("ehebb",)}, "ehebb"),
        ({"terms": POOL, "l1": 1e-3, "per_layer": True}, "pool, L1, per layer"),
        ({"terms": ("pseudo_gradient", "anti_hebb")}, "pseudo_gradient + anti_hebb"),
    ],
)
def test_rules_have_the_names_of_the_paper(changes, name: str) -> None:
    assert rule_name(dataclasses.replace(FA, **changes)) == name


def test_presets_have_names_of_their_own() -> None:
    full = [preset.config for name, preset in PRESETS.items() if name not in ("cpu", "smoke")]
    assert len(set(labels(full))) == len(full)


def test_rules_of_one_name_are_told_apart_by_what_differs() -> None:
    configs = [
        dataclasses.replace(FA, **changes)
        for changes in (
            {"l1": 1e-3},
            {"l1": 1e-2, "modules": ("a", "b")},
            {"start": 0.01},
            {"seed": 3},
        )
    ]
    assert labels(configs) == [
        "FA, L1, l1 0.001, modules none",
        "FA, L1, l1 0.01, modules a b",
        "FA, start 0.01",
        "FA, start 0.001",
    ]
    drawn = dataclasses.replace(FA, split="train", fixed_images=False, replacement=False)
    assert labels([FA, drawn]) == [
        "FA, split test, fixed_images, replacement",
        "FA, split train, no fixed_images, no replacement",
    ]
