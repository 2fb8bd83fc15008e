"""SGD along a stream: what it does, its gradients, and the memory that recomputing saves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from tsar_jax.plasticity.gradient_learner import gradient_learner
from tsar_jax.plasticity.learner import Learner, unroll

RATE = 0.3


def predict(params, signals):
    """Outputs [N] of a small network whose updates do not commute."""
    return jnp.tanh(params["kernel"] * signals + params["bias"]).sum(1)


def squared_error(outputs, targets):
    return jnp.square(outputs - targets).sum() / 2


def loss(params, example):
    signal, target = example
    return squared_error(predict(params, signal[None]), target[None])


def learn(params, stream, *, first_order=False, remat="store"):
    """The parameters after a stream, and the losses on the way."""
    everything = jax.tree.map(lambda _: True, params)
    learner = gradient_learner(
        predict, everything, optax.sgd(RATE), loss=squared_error, first_order=first_order
    )
    state, losses = unroll(learner, params, learner.init(params, None), stream, remat=remat)
    return state.params, losses


def example_at(stream, index):
    return jax.tree.map(lambda s: s[index], stream)


def make(length, size=3, dtype=np.float32):
    rng = np.random.default_rng(length)
    params = {"kernel": rng.normal(size=size).astype(dtype), "bias": np.asarray(0.2, dtype)}
    stream = rng.normal(size=(length, size)).astype(dtype), rng.normal(size=length).astype(dtype)
    return params, stream


def outcome(params, stream, **options):
    """What the lifetime leads to, as one number."""
    fast, _ = learn(params, stream, **options)
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
        functions = (outcome, functools.partial(outcome, remat="rematerialise"))
        return [jax.value_and_grad(function, (0, 1))(params, stream) for function in functions]

    plain, rematerialised = both(params, stream)
    assert_close(rematerialised, plain)
    assert np.abs(plain[1][0]["kernel"]).max() > 1e-3


@pytest.mark.parametrize("remat", ["store", "rematerialise"])
def test_a_lifetime_is_optax_sgd_step_by_step(remat):
    params, stream = make(6)
    optimiser = optax.sgd(RATE)

    @jax.jit
    def by_hand(params, seen):
        updates, _ = optimiser.update(jax.grad(loss)(params, seen), optimiser.init(params))
        return optax.apply_updates(params, updates)

    wanted, losses = params, []
    for index in range(6):
        losses.append(loss(wanted, example_at(stream, index)))
        wanted = by_hand(wanted, example_at(stream, index))
    ours, ours_losses = jax.jit(functools.partial(learn, remat=remat))(params, stream)
    assert_close(ours, wanted)
    assert_close(ours_losses, jnp.stack(losses))
    assert jax.tree.map(jnp.result_type, ours) == jax.tree.map(jnp.result_type, params)


def test_second_order_gradient_agrees_with_finite_differences():
    with jax.enable_x64(True):
        params, stream = make(5, dtype=np.float64)
        function = jax.jit(lambda p: outcome(p, stream, remat="rematerialise"))
        check_grads(function, (params,), order=1, modes=["rev"], eps=1e-5, rtol=1e-6, atol=1e-7)


def test_first_order_gradient_takes_the_inner_gradients_as_constants():
    with jax.enable_x64(True):
        params, stream = make(5, dtype=np.float64)

        @jax.jit
        def gradients(params):
            path, p = [], params
            for index in range(5):  # the inner gradients along the way, as plain numbers
                path.append(jax.grad(loss)(p, example_at(stream, index)))
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
    plain = [temporary_bytes(length, "store") for length in (16, 64)]
    rematerialised = [temporary_bytes(length, "rematerialise") for length in (16, 64)]
    assert plain[1] / plain[0] > 3.3
    assert rematerialised[1] / rematerialised[0] < 2.5
    assert rematerialised[1] < plain[1] / 2


def drift(noise):
    """A learner whose state drifts by theta + noise * example, reports where it was, and draws."""

    def update(theta, state, example, key):
        drawn = noise * jax.random.normal(key, state.shape)
        return state + theta + drawn * example, state

    return Learner(lambda theta, key: jnp.zeros_like(theta), update, lambda theta, state, x: x)


@pytest.mark.parametrize("remat", ["store", "rematerialise", "reconstruct"])
def test_each_update_has_a_key_of_its_own_however_states_come_back(remat):
    key, length = jax.random.key(5), 7
    examples = jnp.arange(1.0, length + 1)
    theta = jnp.array([0.5, -1.0])

    def run(theta):
        return unroll(drift(0.1), theta, jnp.zeros(2), examples, key, remat=remat)

    state, path = jax.jit(run)(theta)
    wanted = np.zeros((length + 1, 2), np.float32)
    for index in range(length):
        drawn = jax.random.normal(jax.random.fold_in(key, index), (2,))
        wanted[index + 1] = wanted[index] + theta + 0.1 * drawn * examples[index]
    np.testing.assert_allclose(path, wanted[:-1], rtol=1e-5)
    np.testing.assert_allclose(state, wanted[-1], rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda t: run(t)[0].sum())(theta), length)


def test_no_gradient_passes_through_what_a_gradient_learner_reports():
    params, stream = make(5)
    gradient = jax.grad(lambda p: learn(p, stream)[1].sum())(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
