"""Files that a user names are opened only where they are files."""

import os

import pytest

from tsar_jax.errors import UserError
from tsar_jax.untrusted.files import open_regular


def test_a_file_is_read(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    with open_regular(tmp_path / "a") as file:
        assert file.read() == b"content"
    assert file.closed


def test_what_is_no_file_is_named(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")  # which nobody writes to: to open it would wait for ever
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, said in (
        ("", "no regular file"),
        ("pipe", "no regular file"),
        ("link", "is a link"),
        ("loop", "is a link"),
        ("none", "There is no file"),
        ("x" * 300, "cannot be read"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(UserError, match=said), open_regular(tmp_path / name):
            pass
