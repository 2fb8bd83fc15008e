"""Every method over a tiny stream of two tasks, and what one can be asked to learn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_lifetimes import life_of, lived, programs

from tsar_jax.errors import UserError
from tsar_jax.plasticity.methods import METHODS
from tsar_jax.systems.continual.supported import check_supported
from tsar_jax.systems.continual.system import ContinualConfig, make_system

REMEMBERING = ("er", "der", "derpp", "clser", "synergy", "agem", "gem", "gss", "hal", "icarl")

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_lives_through_two_tasks(name) -> None:
    end = lived(name).end
    assert np.isfinite(lived(name).losses).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(end))
    # Task-incremental, of the task just learned, by the reported model.
    life = life_of(name)
    model = life.models.index(life.method.reported)
    last = end.accuracy[-1, -1, model, 1]
    assert last > 0.8


@pytest.mark.parametrize("name", REMEMBERING)
def test_memory_forgets_less(name) -> None:
    life = life_of(name)
    first = lived(name).end.accuracy[1, 0, life.models.index(life.method.reported), 0]
    assert first > lived("sgd").end.accuracy[1, 0, 0, 0] + 0.2


def test_seeds_are_independent() -> None:
    """Lifetimes run together, as on an accelerator, or in turn."""
    init, part = programs("icarl")

    def run(seed):
        init_key, step_key = jax.random.split(jax.random.key(seed))
        keys = jax.random.split(step_key, life_of("icarl").stream.steps)
        return part(init(init_key), keys)[0].accuracy

    together = jax.jit(jax.vmap(run))(jnp.arange(2))
    np.testing.assert_allclose(together[0], lived("icarl").end.accuracy, atol=0.051)


def test_a_stream_that_a_method_cannot_learn() -> None:
    for name, kind, cumulative in (
        ("ewc_on", "general", False),
        ("lwf", "domain", False),
        ("icarl", "class", True),
        ("pnn", "class", True),
    ):
        life = life_of(name)
        stream = life.stream._replace(name="a-stream", kind=kind, cumulative=cumulative)
        with pytest.raises(UserError, match=f"Method {name} cannot learn a-stream") as error:
            check_supported(life.method, name, stream)
        assert "choose another stream, or a method from sgd" in str(error.value)
        with pytest.raises(UserError):
            make_system(ContinualConfig(method=name), dataclasses.replace(life, stream=stream))
    for name in METHODS:
        check_supported(METHODS[name](), name, life_of("sgd").stream)
