"""The progress line: plain in a log, live on a terminal."""

import io

import pytest

from tsar_jax.systems.hebbian.system import HOST_METRICS
from tsar_jax.training import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_description_has_rate_remaining_time_loss_and_accuracy():
    metrics = {"loss": 0.12345, "query_accuracy": 0.5, "other": 1.0}
    text = progress.describe(120, 1000, 0.2, metrics)
    assert text == "step 120/1000  0.2 steps/s  1:13:20 left  loss 0.1235  query_accuracy 0.500"


def test_evolution_shows_its_fitness_and_no_loss():
    metrics = dict.fromkeys(HOST_METRICS.step, 36.67)
    text = progress.describe(1, 2, 0.0, metrics)
    assert text == "step 1/2  fitness 36.67  best 36.67"


def test_log_gets_the_first_and_last_lines_and_one_per_interval(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log = io.StringIO()
    lines = progress.make_progress(100, log)
    assert isinstance(lines, progress.PlainProgress)
    for step in range(1, 31):
        now[0] += 1.0
        lines.update(step, 1.0, {})
    lines.close()
    steps = [line.split("/")[0] for line in log.getvalue().splitlines()]
    assert steps == ["step 1", "step 11", "step 21", "step 30"]


@pytest.mark.parametrize("close_early", [False, True])
def test_terminal_gets_one_live_line(close_early):
    terminal = Terminal()
    line = progress.make_progress(10, terminal)
    if not close_early:
        line.update(10, 2.0, {"loss": 1.0})
    line.close()
    wanted = "compiling" if close_early else "step 10/10"
    assert wanted in terminal.getvalue()
    assert terminal.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is shown again


def test_compiling_is_said_on_stderr(capsys):
    progress.say_compiling()
    progress.say_compiling("trained")
    assert capsys.readouterr() == ("", "compiling ...\ntrained: compiling ...\n")
