"""The tail of a histogram: its exponent, where it begins, and what is left out of it."""

import numpy as np
import pytest

from tsar_jax.systems.episodic.analysis.power_law import fit_tail

EDGES = np.linspace(0, 1, 2001)


def expected_counts(exponent: float, xmin: float, number: float) -> np.ndarray:
    """Counts that a power law from xmin to 1 gives in each of 2,000 bins."""
    ends = np.clip(EDGES, xmin, 1) ** (1 - exponent)
    return np.round(number * np.diff(ends) / (1 - xmin ** (1 - exponent)))


@pytest.mark.parametrize("exponent", [0.5, 1.5, 3.0])
def test_a_power_law_has_its_exponent(exponent: float) -> None:
    tail = fit_tail(expected_counts(exponent, 0.002, 1e7))
    assert tail.exponent == pytest.approx(exponent, abs=0.02)
    assert tail.distance < 0.01


def test_what_lies_below_the_tail_does_not_change_its_exponent() -> None:
    counts = expected_counts(2.5, 0.05, 1e6)
    counts[:100] = counts[100] * np.linspace(0, 1, 100) ** 2  # a rise towards a mode
    tail = fit_tail(counts)
    assert tail.exponent == pytest.approx(2.5, abs=0.05)
    assert tail.xmin == pytest.approx(0.05, abs=0.02)
    assert 0 < tail.share < 1


def test_a_peak_has_a_steep_end_and_no_long_tail() -> None:
    peak = np.round(3000 * np.exp(-0.5 * ((EDGES[:-1] - 0.04) / 0.01) ** 2) / 50)
    tail = fit_tail(peak)
    assert tail.exponent > 5
    assert tail.xmin > 0.04


@pytest.mark.parametrize("counts", [np.zeros(2000), np.eye(1, 2000)[0], np.eye(1, 2000, 7)[0]])
def test_too_little_has_no_tail(counts: np.ndarray) -> None:
    assert np.isnan(fit_tail(counts)).all()
