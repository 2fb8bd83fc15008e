"""The classes, sizes and images of GCIL's phases, as the SYNERgy release draws them."""

import numpy as np
import pytest
from golden import files, load

from tsar_jax.data.continual.gcil import class_order, class_weights, draw_phases


def cases():
    for path in files("gcil_schedule"):
        with np.load(path) as archive:
            heads = {name.partition("__phase")[0] for name in archive.files if "__phase" in name}
        for head in sorted(heads):
            yield pytest.param(path, head, id=f"{path.stem}-{head}")


@pytest.mark.parametrize(("path", "head"), cases())
def test_schedule(path, head) -> None:
    golden = load(path, "float64")
    labels = np.repeat(np.arange(100), 500)
    np.random.RandomState(0).shuffle(labels)
    distribution, seed = head.split("__seed")
    schedule = draw_phases(labels, class_weights(100, distribution == "longtail"), seed=int(seed))
    seen: set[int] = set()
    for number, phase in enumerate(schedule):
        of_phase = f"{head}__phase{number:02d}__"
        first = golden[of_phase + "first_indices"]
        assert np.array_equal(phase.classes, golden[of_phase + "classes"])
        assert np.array_equal(phase.sizes, golden[of_phase + "sizes"])
        assert np.array_equal(phase.indices[: len(first)], first)
        seen |= set(phase.classes.tolist())
        assert 100 * len(seen) == golden[of_phase + "cumulative_test"]
    assert np.array_equal(class_order(schedule), golden[f"{head}__class_order"])
