"""A lifetime: what SGD does, its gradients, and the memory that rematerialisation saves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from tsar_jax.plasticity.lifetime import live, sgd_update

RATE = 0.3


def loss(params, seen):
    """Of a small network whose updates do not commute."""
    signal, target = seen
    output = jnp.tanh(params["kernel"] * signal + params["bias"]).sum()
    return jnp.square(output - target) / 2


def moment(stream, index):
    return jax.tree.map(lambda s: s[index], stream)


def make(length, size=3, dtype=np.float32):
    rng = np.random.default_rng(length)
    params = {"kernel": rng.normal(size=size).astype(dtype), "bias": np.asarray(0.2, dtype)}
    stream = rng.normal(size=(length, size)).astype(dtype), rng.normal(size=length).astype(dtype)
    return params, stream


def outcome(params, stream, *, first_order=False, remat=False):
    """What the lifetime leads to, as one number."""
    fast = live(sgd_update(loss, RATE, first_order=first_order), params, stream, remat=remat)
    return jnp.sin(fast["kernel"]).sum() + jnp.square(fast["bias"])


def assert_close(ours, wanted, tolerance=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, wanted
    )


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 9, 12, 16, 17])
def test_rematerialisation_changes_neither_value_nor_gradient(length):
    params, stream = make(length)

    @jax.jit
    def both(params, stream):
        functions = (outcome, functools.partial(outcome, remat=True))
        return [jax.value_and_grad(function, (0, 1))(params, stream) for function in functions]

    plain, rematerialised = both(params, stream)
    assert_close(rematerialised, plain)
    assert np.abs(plain[1][0]["kernel"]).max() > 1e-3


@pytest.mark.parametrize("remat", [False, True])
def test_a_lifetime_is_optax_sgd_step_by_step(remat):
    params, stream = make(6)
    optimiser = optax.sgd(RATE)

    @jax.jit
    def by_hand(params, seen):
        updates, _ = optimiser.update(jax.grad(loss)(params, seen), optimiser.init(params))
        return optax.apply_updates(params, updates)

    wanted = params
    for index in range(6):
        wanted = by_hand(wanted, moment(stream, index))
    ours = jax.jit(lambda p, s: live(sgd_update(loss, RATE, first_order=False), p, s, remat=remat))(
        params, stream
    )
    assert_close(ours, wanted)
    assert jax.tree.map(jnp.result_type, ours) == jax.tree.map(jnp.result_type, params)


def test_second_order_gradient_agrees_with_finite_differences():
    with jax.enable_x64(True):
        params, stream = make(5, dtype=np.float64)
        function = jax.jit(lambda p: outcome(p, stream, remat=True))
        check_grads(function, (params,), order=1, modes=["rev"], eps=1e-5, rtol=1e-6, atol=1e-7)


def test_first_order_gradient_takes_the_inner_gradients_as_constants():
    with jax.enable_x64(True):
        params, stream = make(5, dtype=np.float64)

        @jax.jit
        def gradients(params):
            path, p = [], params
            for index in range(5):  # the inner gradients along the way, as plain numbers
                path.append(jax.grad(loss)(p, moment(stream, index)))
                p = jax.tree.map(lambda a, g: a - RATE * g, p, path[-1])

            def displaced(params):
                fast = params
                for gradient in jax.lax.stop_gradient(path):
                    fast = jax.tree.map(lambda a, g: a - RATE * g, fast, gradient)
                return jnp.sin(fast["kernel"]).sum() + jnp.square(fast["bias"])

            first = jax.grad(lambda p: outcome(p, stream, first_order=True))(params)
            second = jax.grad(lambda p: outcome(p, stream))(params)
            return first, jax.grad(displaced)(params), second

        first, constants, second = gradients(params)
        assert_close(first, constants, 1e-12)
        assert np.abs(first["kernel"] - second["kernel"]).max() > 1e-2


def temporary_bytes(length, remat):
    """Memory that the second-order gradient through a lifetime takes, parameters of 64 kB."""
    params, stream = make(length, size=1)
    params = {"kernel": np.ones(2**14, np.float32), "bias": params["bias"]}
    gradient = jax.jit(jax.grad(lambda p, s: outcome(p, s, remat=remat)))
    return gradient.lower(params, stream).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_with_the_root_of_the_length():
    """Four times the length: twice the memory with rematerialisation, else four times."""
    plain = [temporary_bytes(length, False) for length in (16, 64)]
    rematerialised = [temporary_bytes(length, True) for length in (16, 64)]
    assert plain[1] / plain[0] > 3.3
    assert rematerialised[1] / rematerialised[0] < 2.5
    assert rematerialised[1] < plain[1] / 2
