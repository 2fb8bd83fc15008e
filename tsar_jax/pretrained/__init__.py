"""Trained runs that come with the package.

    unpack("cart-pole")     -> runs/pretrained/cart-pole, a run like any other
    known()                 -> their descriptions, by name

On the command line `pretrained:NAME` stands wherever a run is named. Each is two files here:
NAME.json (the run's config, where it is from and what it reaches) and NAME.npz (its arrays).
"""

from tsar_jax.pretrained.store import PREFIX, Pretrained, known, resolve, unpack

__all__ = ["PREFIX", "Pretrained", "known", "resolve", "unpack"]
