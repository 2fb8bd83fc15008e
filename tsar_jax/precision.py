"""The precision of products on accelerators, which is chosen here and not left to the compiler.

A GPU's or TPU's compiler may round the factors of a float32 product to 10 or 7 bits of mantissa
where nothing forbids it. A CPU computes in float32 whatever is chosen.
"""

import os
import sys

VARIABLE = "JAX_DEFAULT_MATMUL_PRECISION"
FULL, FAST = "float32", "tensorfloat32"
PRECISIONS = (FULL, FAST)
"""Precisions of products and convolutions of float32 arrays, in JAX's words: exact factors, or
factors of 10 bits of mantissa or more, for which accelerators have faster units.
"""


def choose_full_precision() -> None:
    """Let this process compute all products in full precision, but for what chooses another.

    It imports no JAX, for which the command line does not wait.
    """
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_default_matmul_precision", FULL)
    else:
        os.environ[VARIABLE] = FULL
