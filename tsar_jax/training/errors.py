"""Exceptions by which training ends before its last step."""


class TrainingDiverged(Exception):
    """A loss or a state that is not finite from `step` on, counted from 1; the command exits 1."""

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class TrainingInterrupted(Exception):
    """A stop by a signal, with the state saved; the command exits 128 + signum."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum
