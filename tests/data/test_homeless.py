"""Data sets where the user has neither HOME nor an entry among the users."""

import pwd

import pytest

from data_prep.__main__ import _target
from tsar_jax.data import load
from tsar_jax.data.prepared import default_folder
from tsar_jax.errors import UserError


@pytest.fixture(autouse=True)
def homeless(monkeypatch, tmp_path):
    def no_entry(*_):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    for name in ("HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_packaged_data_need_no_home():
    assert load("omniglot").source.startswith("packaged")
    assert not default_folder().exists()


def test_a_home_that_is_needed_is_asked_for():
    with pytest.raises(UserError, match="--out"):
        _target(None)
    with pytest.raises(UserError, match="name the folder in full"):
        load("omniglot", "~/data")
