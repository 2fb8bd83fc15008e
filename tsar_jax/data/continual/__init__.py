"""Continual-learning streams as pure functions of (key, step) over data on the device."""

from tsar_jax.data.continual.registry import make_stream, split_name
from tsar_jax.data.continual.types import Stream

__all__ = ["Stream", "make_stream", "split_name"]
