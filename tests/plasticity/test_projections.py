"""Projected gradients against their definitions and scipy's solvers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from tsar_jax.plasticity.projections import (
    RIDGE,
    inner_product,
    nonnegative_quadratic,
    project,
    project_into_cone,
)


def trees(seed: int) -> tuple[dict, dict]:
    random = np.random.RandomState(seed)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    return tuple({"a": normal(3, 2), "b": normal(4)} for _ in range(2))


def test_a_projection_only_takes_what_goes_against_the_reference() -> None:
    conflicts = 0
    for seed in range(10):
        gradient, reference = trees(seed)
        projected = project(gradient, reference)
        if inner_product(gradient, reference) >= 0:
            assert all(np.array_equal(projected[name], gradient[name]) for name in gradient)
        else:
            conflicts += 1
            assert abs(inner_product(projected, reference)) < 1e-5
            taken = {name: np.asarray(gradient[name] - projected[name]) for name in gradient}
            cosine = inner_product(taken, reference) / np.sqrt(
                inner_product(taken, taken) * inner_product(reference, reference)
            )
            np.testing.assert_allclose(cosine, -1, atol=1e-5)
    assert 0 < conflicts < 10


def test_a_projection_without_a_reference_changes_nothing() -> None:
    gradient, _ = trees(0)
    projected = project(gradient, jax.tree.map(np.zeros_like, gradient))
    assert all(np.array_equal(projected[name], gradient[name]) for name in gradient)


def dual_by_scipy(quadratic: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """argmin over u >= 0 of u'Pu / 2 + q'u = |L'u + L^-1 q|^2 / 2, P = LL'."""
    root = np.linalg.cholesky(quadratic)
    return nnls(root.T, -np.linalg.solve(root, linear))[0]


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_the_quadratic_programme_is_solved(count) -> None:
    random = np.random.RandomState(count)
    roots = random.normal(size=(30, count, count + 3)) / np.sqrt(count)
    quadratic = roots @ roots.transpose(0, 2, 1) + 0.01 * np.eye(count)
    linear = random.normal(size=(30, count))
    solved = jax.jit(jax.vmap(nonnegative_quadratic))(
        jnp.asarray(quadratic, jnp.float32), jnp.asarray(linear, jnp.float32)
    )
    expected = [dual_by_scipy(p, q) for p, q in zip(quadratic, linear, strict=True)]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(solved, expected, atol=2e-3 * max(scale, 1))


@pytest.mark.parametrize(("tasks", "alike"), [(1, 0.0), (4, 0.0), (20, 0.0), (20, 0.97)])
def test_the_cone_of_gem(tasks, alike) -> None:
    """Against scipy, also where the past tasks' gradients nearly are the same, as they often are;
    the rows of tasks to come are zeros.
    """
    random = np.random.RandomState(tasks)
    size, margin, runs = 60, 0.5, 12
    common = random.normal(size=(runs, 1, size))
    past = alike * common + (1 - alike) * random.normal(size=(runs, tasks, size))
    past = np.concatenate([past, np.zeros((runs, 2, size))], 1)
    gradient = random.normal(size=(runs, size)) - 0.5 * past.mean(1)
    found = jax.jit(jax.vmap(lambda g, p: project_into_cone(g, p, margin)))(
        jnp.asarray(gradient, jnp.float32), jnp.asarray(past, jnp.float32)
    )
    for one, g, rows in zip(np.asarray(found), gradient, past, strict=True):
        linear = rows @ g
        if (linear >= 0).all():
            np.testing.assert_allclose(one, g, rtol=1e-6)
            continue
        quadratic = rows @ rows.T + RIDGE * np.eye(len(rows))
        weights = margin + dual_by_scipy(quadratic, linear + margin * quadratic.sum(1))
        np.testing.assert_allclose(one, g + weights @ rows, atol=5e-3 * np.abs(one).max())
        assert (rows @ one).min() > -0.02 * np.linalg.norm(rows, axis=1).max()
