"""Arrays kept in bfloat16: rounded without bias, and trained as well as in float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tsar_jax.ops.mixed_precision import (
    cast_to_float32,
    stochastic_round,
    stochastic_round_like,
    to_bfloat16,
)
from tsar_jax.systems.episodic.tsar import TsarConfig, make_system


def test_rounding_at_random_takes_a_neighbour_and_keeps_the_mean():
    values = np.array([1.0, 1.001, -3.3e-5, 700.0, 0.0], np.float32)
    many = jnp.broadcast_to(values, (20_000, values.size))
    rounded = np.asarray(cast_to_float32(jax.jit(stochastic_round)(many, jax.random.key(0))))
    for column, value in zip(rounded.T, values, strict=True):
        assert len(set(column)) <= 2
        assert np.abs(column - value).max() <= np.abs(value) / 128
        # Half a unit in the last place over the root of the number of draws, five times.
        assert abs(column.mean() - value) <= 5 * abs(value) / 256 / len(column) ** 0.5


def test_only_the_named_arrays_are_narrow():
    tree = {
        "params": {"a": {"kernel": jnp.ones(3)}, "b": {"kernel": jnp.ones(2)}},
        "n": jnp.int32(1),
    }
    narrow = to_bfloat16(tree, ("a/kernel",))
    assert narrow["params"]["a"]["kernel"].dtype == jnp.bfloat16
    assert narrow["params"]["b"]["kernel"].dtype == jnp.float32
    back = stochastic_round_like(cast_to_float32(narrow), narrow, jax.random.key(0))
    assert jax.tree.map(lambda x: x.dtype, back) == jax.tree.map(lambda x: x.dtype, narrow)
    jax.tree.map(np.testing.assert_array_equal, cast_to_float32(back), tree)


def test_adam_in_bfloat16_finds_the_same_minimum():
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(200, 8)), jnp.float32)
    targets = inputs @ jnp.asarray(rng.normal(size=8), jnp.float32)
    optimiser = optax.adam(1e-2)

    def loss(w):
        return jnp.square(inputs @ w - targets).mean()

    def train(names):
        w = jnp.zeros(8)
        start = to_bfloat16({"w": w, "state": optimiser.init(w)}, names)

        def step(carry, key):
            wide = cast_to_float32(carry)
            updates, state = optimiser.update(jax.grad(loss)(wide["w"]), wide["state"])
            new = {"w": wide["w"] + updates, "state": state}
            return stochastic_round_like(new, carry, key), loss(wide["w"])

        return jax.lax.scan(step, start, jax.random.split(jax.random.key(0), 1500))[1]

    wide, narrow = (jax.jit(train, static_argnums=0)(names) for names in ((), ("w", "mu", "nu")))
    assert wide[-50:].mean() < 1e-3 * wide[0]
    assert narrow[-50:].mean() < 1e-3 * narrow[0]


@pytest.mark.slow
def test_small_tsar_trains_as_well_in_bfloat16():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 1, 28, 28)).repeat(20, 1)
    noise = rng.integers(-20, 20, (20, 20, 28, 28))
    data = {"background": jnp.asarray(np.clip(images + noise, 0, 255), jnp.uint8)}
    config = TsarConfig(
        channels=6,
        regulator_channels=6,
        outputs=20,
        train_classes=20,
        inner_updates=5,
        remember=20,
        initial_bias=0.0,
        meta_rate=3e-3,
    )

    def last_losses(bfloat16):
        system = make_system(dataclasses.replace(config, bfloat16=bfloat16))
        state = jax.jit(system.init)(jax.random.key(0))
        kinds = {leaf.dtype for leaf in jax.tree.leaves(state.params["regulator"])}
        assert (jnp.dtype(jnp.bfloat16) in kinds) == bfloat16

        def train(state):
            keys = jax.random.split(jax.random.key(1), 400)

            def step(state, key):
                state, metrics, _ = system.step(state, data, key)
                return state, metrics["loss"]

            return jax.lax.scan(step, state, keys)[1]

        losses = jax.jit(train)(state)
        return float(losses[:20].mean()), float(losses[-100:].mean())

    (first, wide), (_, narrow) = last_losses(False), last_losses(True)
    assert wide < 0.9 * first
    assert narrow == pytest.approx(wide, rel=0.15)
