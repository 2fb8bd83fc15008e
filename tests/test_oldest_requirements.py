"""The oldest requirements: every one has a lower bound, and a missing one is named."""

import configparser

import pytest
from oldest_requirements import SETUP, oldest


def test_every_requirement_has_a_lower_bound():
    setup = configparser.ConfigParser()
    setup.read(SETUP)
    extras = setup["options.extras_require"]
    texts = [setup["options"]["install_requires"], extras["environments"], extras["tensorboard"]]
    found = [requirement for text in texts for requirement in oldest(text)]
    assert any(requirement.startswith("jax==") for requirement in found)
    assert "gymnasium[box2d,mujoco]==1.0" in found


def test_a_requirement_without_one_is_named():
    with pytest.raises(ValueError, match=r"'jax' in setup\.cfg has no lower bound"):
        oldest("\nnumpy>=1.26\njax\n")
