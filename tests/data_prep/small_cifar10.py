"""A small CIFAR-10: an archive in the official layout, pickled as Python 2 does."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from small_cifar100 import python2_pickle, write_tar

from tsar_jax.data.types import LabelledImages

NAMES = ("airplane", "automobile", "bird")
FOLDER = "cifar-10-batches-py/"
# By member, the label of every image: the batches and the classes differ in number.
LABELS = {
    "data_batch_1": [2, 0],
    "data_batch_2": [1],
    "data_batch_3": [1, 1, 2],
    "data_batch_4": [0],
    "data_batch_5": [0, 2, 1],
    "test_batch": [1, 0, 1, 2],
}


@dataclasses.dataclass(frozen=True)
class SmallCifar10:
    """archives: the folder of the archive. contents: by member, the dictionary pickled there."""

    archives: Path
    contents: dict[str, dict[str, Any]]
    splits: dict[str, LabelledImages]

    @property
    def path(self) -> Path:
        return self.archives / "cifar-10-python.tar.gz"

    def write(self, **members: bytes | None) -> Path:
        """Writes the archive anew, with these members' bytes, or none, instead of the proper ones.

        "meta" stands for "batches.meta".
        """
        proper = {name: python2_pickle(content) for name, content in self.contents.items()}
        if "meta" in members:
            members["batches.meta"] = members.pop("meta")
        written = {**proper, **members}
        return write_tar(
            self.path, {FOLDER + name: data for name, data in written.items() if data is not None}
        )

    def changed(self, member: str, **entries: Any) -> Path:
        """Writes the archive anew, with other entries in one member's dictionary."""
        content = self.contents["batches.meta" if member == "meta" else member]
        return self.write(**{member: python2_pickle({**content, **entries})})

    @classmethod
    def make(cls, archives: Path) -> "SmallCifar10":
        archives.mkdir()
        random = np.random.default_rng(0)
        contents: dict[str, dict[str, Any]] = {"batches.meta": {"label_names": list(NAMES)}}
        pixels: dict[str, list[np.ndarray]] = {"train": [], "test": []}
        labels: dict[str, list[int]] = {"train": [], "test": []}
        for member, its in LABELS.items():
            images = random.integers(0, 256, (len(its), 32, 32, 3), dtype=np.uint8)
            planes = images.transpose(0, 3, 1, 2).reshape(len(its), 3072)
            contents[member] = {
                "batch_label": b"",
                "labels": its,
                "data": np.ascontiguousarray(planes),
                "filenames": [f"image_{number}.png" for number in range(len(its))],
            }
            split = "test" if member == "test_batch" else "train"
            pixels[split].append(images)
            labels[split] += its
        splits = {
            split: LabelledImages(np.concatenate(parts), np.array(labels[split], np.int32), NAMES)
            for split, parts in pixels.items()
        }
        return cls(archives, contents, splits)
