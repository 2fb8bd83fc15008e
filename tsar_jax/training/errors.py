"""Why training can end before its last step."""


class TrainingDiverged(Exception):
    """The loss or the state ceased to be finite at `step`, counted from 1; the command exits 1."""

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class TrainingInterrupted(Exception):
    """Training stopped, its state saved, because of a signal; the command exits 128 + signum."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum
