"""Many at once: the same as one by one, in order, on one device or several."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax import devices
from tsar_jax.devices import map_over, on_each_device, usable_cores

SEVERAL = """
import jax, jax.numpy as jnp
from tsar_jax.devices import map_over, on_each_device
jax.config.update("jax_num_cpu_devices", 4)
doubled = {n: jax.jit(map_over(lambda x, y: x * y, n))(jnp.arange(n), 2) for n in range(1, 10)}
print([found.tolist() for found in doubled.values()])
print(len(doubled[4].sharding.device_set), len(doubled[8].sharding.device_set))
sums = jax.jit(on_each_device(lambda x, y: x.sum() + y))(jnp.arange(8).reshape(4, 2), jnp.arange(4))
print(sums.tolist(), len(sums.sharding.device_set))
"""


def test_each_gets_its_own_and_what_is_shared() -> None:
    keys = jax.random.split(jax.random.key(0), 5)

    def draw(key, scale):
        return {"drawn": scale * jax.random.normal(key, (2,))}

    found = jax.jit(map_over(draw, 5))(keys, jnp.float32(3))["drawn"]
    np.testing.assert_allclose(found, [draw(key, 3.0)["drawn"] for key in keys], rtol=1e-6)


def test_any_number_is_spread_over_four_devices() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    found, devices, sums, _ = done.stdout.split("\n")
    assert found == str([[2 * i for i in range(n)] for n in range(1, 10)])
    assert devices == "4 4"
    assert sums == "[1, 6, 11, 16] 4"


def test_one_device_takes_the_whole_share() -> None:
    assert jax.device_count() == 1
    np.testing.assert_array_equal(on_each_device(lambda x: x + 1)(jnp.arange(3)[None]), [[1, 2, 3]])


@pytest.mark.parametrize("known", [True, False])
def test_usable_cores_are_counted_where_the_system_says_and_where_not(known, monkeypatch) -> None:
    if known:
        monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
        assert usable_cores() == 2
    else:
        monkeypatch.delattr(devices.os, "sched_getaffinity", raising=False)
        assert usable_cores() == os.cpu_count()
