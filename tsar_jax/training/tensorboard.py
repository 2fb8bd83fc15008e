"""Metrics as files for TensorBoard, written by the thread that trains.

tensorboardX's SummaryWriter writes from a thread of its own behind a short queue: where the disk is
full that thread ends, the queue fills, and training waits for it for ever.
"""

import time
import uuid
from pathlib import Path
from typing import Any

from tsar_jax.errors import UserError, pip


def check_tensorboard() -> None:
    """Raise UserError if tensorboardX cannot be imported."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise UserError(
            "TensorBoard logging needs tensorboardX: "
            f"{pip()} install 'tsar_jax[tensorboard]', or leave tensorboard off."
        ) from error


class EventWriter:
    """A writer that appends scalars to a new event file in a folder.

    TensorBoard then hides the events of earlier files from steps after `step`, for the run
    continues from there. The constructor raises UserError if tensorboardX is not installed; all
    methods raise OSError where the file cannot be written.
    """

    def __init__(self, folder: Path, step: int):
        check_tensorboard()
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(exist_ok=True)
        # tensorboardX's names differ only by second and host: a restart must not overwrite a file.
        self._writer: Any = EventsWriter(str(folder / "events"), f".{uuid.uuid4().hex}")
        session = SessionLog(status=SessionLog.START)
        event = Event(step=step + 1, wall_time=time.time(), session_log=session)
        self._writer.write_event(event)

    def write(self, step: int, wall_time: float, scalars: dict[str, float]) -> None:
        """Write the scalars of a step to the disk. wall_time: seconds since the epoch."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in scalars.items():
            event = Event(step=step, wall_time=wall_time, summary=scalar(name, value))
            self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
