"""A release's arrays are of finite real numbers, whoever passes them, and become float32."""

import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.errors import UserError
from tsar_jax.interop.naming import as_weights
from tsar_jax.systems.continual.release import (
    mlp_from_release,
    mlp_names,
    resnet18_from_release,
    resnet18_names,
)
from tsar_jax.systems.episodic.release import KINDS, from_release, release_names
from tsar_jax.systems.hebbian.release import (
    coevolved_from_release,
    hebbian_coefficients_from_release,
    pixel_policy_from_release,
)

LONE = [
    lambda array: hebbian_coefficients_from_release(array, (2, 1)),
    lambda array: coevolved_from_release(array, (2, 1)),
    lambda array: pixel_policy_from_release([array]),
    lambda array: from_release("anml", [array] * len(release_names("anml"))),
    *(lambda array, kind=kind: from_release(kind, [array]) for kind in KINDS),
    lambda array: mlp_from_release(dict.fromkeys(mlp_names(), array)),
    lambda array: resnet18_from_release(dict.fromkeys(resnet18_names(), array)),
]
WRONG = [
    np.array([1.0, np.nan]),
    np.array([1.0, -np.inf]),
    np.array([1e300, 1.0]),
    np.array([True, False]),
    np.array([1 + 2j, 1]),
    np.array(["1", "2"]),
    np.array([b"1", b"2"]),
    np.array([1, None], object),
    np.array([1, 2], "m8[s]"),
    np.array([(1, 2.0)], "i4,f4"),
    [[1.0], [1.0, 2.0]],
    [10**5000, 1],
    "text",
    None,
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: str(type(wrong)))
@pytest.mark.parametrize("read", LONE)
def test_what_is_not_of_finite_numbers_is_named(read, wrong) -> None:
    with pytest.raises(UserError, match=r"^Array .* is (not|no array) ") as raised:
        read(wrong)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int64, np.uint8, jnp.bfloat16, list])
def test_other_numbers_become_float32(kind) -> None:
    values = (
        [1, 2]
        if kind is list
        else jnp.asarray([1, 2], kind)
        if kind is jnp.bfloat16
        else np.array([1, 2], kind)
    )
    (layer,) = hebbian_coefficients_from_release(values, (2, 1))
    assert layer.dtype == np.float32
    assert layer.tolist() == [[[1, 2]]]
    arrays = {name: np.zeros((2, 2) if "weight" in name else 2, np.float64) for name in mlp_names()}
    assert mlp_from_release(arrays).params["layer_0"]["kernel"].dtype == np.float32


def test_a_tensor_that_refuses_to_be_an_array_is_named():
    class Tensor:
        def __array__(self, *_, **__):
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")

    with pytest.raises(UserError, match="Array w is no array of numbers"):
        as_weights("w", Tensor())
