"""Weights to and from the original PyTorch releases: their order, their layout and their files.

`torch_files` reads what `torch.save` wrote, without PyTorch and without running anything that a
file asks for; `torch_writer` writes what PyTorch loads. `episodic` (ANML, OML, TSAR), `hebbian` and
`continual` map arrays between a release's order and layout and ours.
"""

from tsar_jax.interop.episodic import KINDS, from_release, release_names, to_release

__all__ = ["KINDS", "from_release", "release_names", "to_release"]
