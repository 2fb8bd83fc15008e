"""Every golden file is checked in both precisions."""

import jax
import pytest


@pytest.fixture(params=["float64", "float32"])
def precision(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param
