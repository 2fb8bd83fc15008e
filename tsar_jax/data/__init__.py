"""Data sets as arrays in memory."""

from tsar_jax.data.registry import load
from tsar_jax.data.types import Dataset, ImageSet

__all__ = ["Dataset", "ImageSet", "load"]
