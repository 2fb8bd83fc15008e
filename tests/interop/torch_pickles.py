"""Files of torch.save that may claim anything, written by hand."""

import zipfile
from pathlib import Path

from tsar_jax.interop import torch_writer as writer


def zipped(path: Path, pickled: bytes, storages=(), **members: bytes) -> Path:
    """A file in zip format of a pickle, storages and other members."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        for index, data in enumerate(storages):
            archive.writestr(f"a/data/{index}", data)
        for name, data in members.items():
            archive.writestr(f"a/{name}", data)
    return path


def tensor(kind="FloatStorage", count=6, offset=0, shape=(6,), strides=(1,), key="0") -> bytes:
    """A pickle of one tensor, which may claim anything."""
    text, name, number, numbers = writer._text, writer._name, writer._number, writer._numbers
    storage = b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu")
    storage += number(count) + b"tQ"
    view = number(offset) + numbers(shape) + numbers(strides) + b"\x89N"
    return b"\x80\x02" + name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + view + b"tR."
