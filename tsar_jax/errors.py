"""Errors that a user can mend."""


class UserError(Exception):
    """Bad input: one sentence that names the offender and the remedy.

    The command line prints the sentence alone and exits with code 2.
    """
