"""Streams of a composition: what a lifetime learns, and how it is scored.

A stream of images is a function of a key over images on the device; one of an environment is the
environment. One more is a function, registered by a module of yours:

    @STREAMS.register("mine")
    def mine(config: ComposeConfig) -> ImageStream | Environment: ...
"""

from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.streams import characters, control, handwriting
from tsar_jax.systems.compose.streams.types import STREAMS, ImageStream, Stream

__all__ = [
    "STREAMS",
    "ImageStream",
    "Stream",
    "characters",
    "control",
    "find_stream",
    "handwriting",
]


def find_stream(config: ComposeConfig) -> Stream:
    """Return the stream that a config names. Raises UserError where there is none."""
    return STREAMS.find(config.stream)(config)
