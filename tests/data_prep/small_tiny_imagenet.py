"""A small Tiny ImageNet: an archive in the official layout, and what must come of it."""

import dataclasses
import io
from pathlib import Path

import numpy as np
from PIL import Image
from small_mini_imagenet import jpeg
from small_omniglot import write_zip

from tsar_jax.data.types import LabelledImages

ROOT = "tiny-imagenet-200/"
# By class, its images for training and for testing: the classes differ in number.
COUNTS = {"n00000007": (3, 1), "n00000003": (1, 2), "n00000005": (2, 1)}


@dataclasses.dataclass(frozen=True)
class SmallTinyImagenet:
    """archives: the folder of the archive. files: by path below ROOT, their bytes."""

    archives: Path
    files: dict[str, bytes]
    splits: dict[str, LabelledImages]

    @property
    def path(self) -> Path:
        return self.archives / "tiny-imagenet-200.zip"

    def write(self, files: dict[str, bytes]) -> Path:
        """Writes these files as the archive."""
        return write_zip(self.path, {ROOT + name: data for name, data in files.items()})

    @classmethod
    def make(cls, archives: Path) -> "SmallTinyImagenet":
        archives.mkdir()
        random = np.random.default_rng(0)
        photographs: dict[str, str] = {}
        for name, (train, test) in COUNTS.items():
            paths = [f"train/{name}/images/{name}_{number}.JPEG" for number in range(train)]
            paths += [f"val/images/val_{len(photographs) + i}.JPEG" for i in range(test)]
            photographs |= dict.fromkeys(paths, name)
        files = {
            path: jpeg(
                random.integers(0, 256, (64, 64, 3), dtype=np.uint8), "L" if index % 3 else "RGB"
            )
            for index, path in enumerate(photographs)
        }
        names = tuple(sorted(COUNTS))
        splits = {}
        for split, folder in {"train": "train/", "test": "val/"}.items():
            paths = sorted(path for path in photographs if path.startswith(folder))
            images = [np.asarray(Image.open(io.BytesIO(files[p])).convert("RGB")) for p in paths]
            labels = [names.index(photographs[path]) for path in paths]
            splits[split] = LabelledImages(np.array(images), np.array(labels, np.int32), names)
        annotations = [
            f"{path.removeprefix('val/images/')}\t{name}\t0\t1\t62\t63\n"
            for path, name in photographs.items()
            if path.startswith("val/")
        ]
        files |= {
            "wnids.txt": "".join(f"{name}\n" for name in COUNTS).encode(),
            "words.txt": b"n00000003\tsomething\n",
            "val/val_annotations.txt": "".join(annotations).encode(),
            "test/images/test_0.JPEG": b"without a label, of no use here",
            **{f"train/{name}/{name}_boxes.txt": b"of no use here" for name in COUNTS},
        }
        return cls(archives, files, splits)
