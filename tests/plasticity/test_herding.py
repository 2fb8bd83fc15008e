"""Herding against a loop that tries everyone."""

import jax
import numpy as np

from tsar_jax.plasticity.herding import herd


def test_herding_is_a_greedy_search() -> None:
    random = np.random.RandomState(0)
    features = random.normal(size=(30, 5)).astype(np.float32)
    member = random.uniform(size=30) < 0.5
    order = jax.jit(herd, static_argnums=2)(features, member, 20, 9)
    mean, chosen = features[member].mean(0), []
    for k in range(9):
        left = [row for row in np.flatnonzero(member) if row not in chosen]
        apart = [np.linalg.norm(mean - features[[*chosen, row]].sum(0) / (k + 1)) for row in left]
        chosen.append(left[int(np.argmin(apart))])
    assert order[:9].tolist() == chosen
    assert not order[9:].any()
