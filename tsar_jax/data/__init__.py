"""Data sets as arrays in memory."""

from tsar_jax.data.registry import load, load_labelled
from tsar_jax.data.types import Dataset, ImageSet, LabelledDataset, LabelledImages

__all__ = ["Dataset", "ImageSet", "LabelledDataset", "LabelledImages", "load", "load_labelled"]
