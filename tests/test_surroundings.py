"""No test depends on chance, nor on what its user has prepared or set."""

import os

import hypothesis

from tsar_jax.data.prepared import default_folder


def test_examples_are_the_same_every_time_and_may_take_their_time() -> None:
    found = hypothesis.settings()
    assert (found.derandomize, found.database, found.deadline) == (True, None, None)


def test_data_that_a_user_prepared_are_not_read() -> None:
    assert not default_folder().exists()


def test_what_is_printed_does_not_depend_on_the_users_terminal() -> None:
    assert not {"COLUMNS", "LINES", "TERM", "NO_COLOR", "FORCE_COLOR"} & os.environ.keys()
