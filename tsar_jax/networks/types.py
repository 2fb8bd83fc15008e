"""Types that several networks share."""

import jax

LayerArrays = tuple[jax.Array, ...]
"""One array for each layer, from the first: weights, activities or coefficients."""
