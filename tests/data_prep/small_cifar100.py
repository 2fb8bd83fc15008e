"""A small CIFAR-100: an archive in the official layout, pickled as Python 2 does."""

import dataclasses
import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from tsar_jax.data.types import ImageSet

CLASSES = 3
PER_CLASS = {"train": 4, "test": 2}
NAMES = ("apple", "aquarium_fish", "baby")


@dataclasses.dataclass(frozen=True)
class SmallCifar100:
    """archives: the folder of the archive. contents: by member, the dictionary pickled there.

    splits, originals: what must come of them, at 28x28 and at 32x32.
    """

    archives: Path
    contents: dict[str, dict[str, Any]]
    splits: dict[str, ImageSet]
    originals: dict[str, ImageSet]

    @property
    def path(self) -> Path:
        return self.archives / "cifar-100-python.tar.gz"

    def write(self, **members: bytes) -> Path:
        """Writes the archive anew, with these members' bytes in place of the proper ones."""
        proper = {name: python2_pickle(content) for name, content in self.contents.items()}
        return write_tar(
            self.path, {f"cifar-100-python/{k}": v for k, v in {**proper, **members}.items()}
        )

    def changed(self, member: str, **entries: Any) -> Path:
        """Writes the archive anew, with other entries in one member's dictionary."""
        return self.write(**{member: python2_pickle({**self.contents[member], **entries})})


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Protocol 2 with text and bytes both as Python 2's only kind of string."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


def python2_pickle(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Python2Pickler(buffer, 2).dump(value)
    return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    return write_tar_members(
        path, [(tarfile.TarInfo(name), data) for name, data in members.items()]
    )


def write_tar_members(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def make_small_cifar100(archives: Path) -> SmallCifar100:
    random = np.random.default_rng(0)
    contents: dict[str, dict[str, Any]] = {"meta": {"fine_label_names": list(NAMES)}}
    splits, originals = {}, {}
    for split, each in PER_CLASS.items():
        labels = random.permutation(np.repeat(np.arange(CLASSES), each)).tolist()
        pixels = random.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
        planes = pixels.transpose(0, 3, 1, 2).reshape(len(labels), 3072)
        contents[split] = {
            "filenames": [f"image_{number}.png" for number in range(len(labels))],
            "fine_labels": labels,
            "coarse_labels": [0] * len(labels),
            "data": np.ascontiguousarray(planes),
        }
        grouped = [
            [pixels[i] for i, label in enumerate(labels) if label == wanted]
            for wanted in range(CLASSES)
        ]
        originals[split] = ImageSet(np.array(grouped), NAMES)
        images = [[resized(image) for image in images] for images in grouped]
        splits[split] = ImageSet(np.array(images), NAMES)
    return SmallCifar100(archives, contents, splits, originals)


def resized(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((28, 28), Image.Resampling.BILINEAR))
