"""A small mini-ImageNet, as a folder or zipped, and what must come of it."""

import dataclasses
import io
from pathlib import Path

import numpy as np
from PIL import Image
from small_omniglot import write_zip

from tsar_jax.data.types import ImageSet

CLASSES = {"train": 3, "val": 1, "test": 2}
PER_CLASS = 4
MODES = ("RGB", "L", "CMYK")


@dataclasses.dataclass(frozen=True)
class SmallMiniImagenet:
    """archives: the folder it is in. files: by path, as they are in a zip or a folder."""

    archives: Path
    files: dict[str, bytes]
    splits: dict[str, ImageSet]

    @classmethod
    def make(cls, archives: Path) -> "SmallMiniImagenet":
        archives.mkdir()
        random = np.random.default_rng(0)
        files, splits, first = {}, {}, 0
        for split, classes in CLASSES.items():
            # Neither the classes nor the images of one are in the order of their names.
            names = [f"n{first + number:08}" for number in range(classes)]
            first += classes
            rows = [(f"{name}{9 - i}.jpg", name) for i in range(PER_CLASS) for name in names[::-1]]
            for number, (image, _) in enumerate(rows):
                size = (30 + number, 84)
                pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
                files[f"images/{image}"] = jpeg(pixels, MODES[number % len(MODES)])
            files[f"{split}.csv"] = csv(*rows)
            images = [
                [resized(files[f"images/{image}"]) for image, label in rows if label == name]
                for name in names
            ]
            splits[split] = ImageSet(np.array(images), tuple(names))
        return cls(archives, files, splits)

    def write_zip(self, root: str = "mini-imagenet/") -> Path:
        members = {root + name: data for name, data in self.files.items()}
        return write_zip(self.archives / "mini-imagenet.zip", members)

    def write_folder(self) -> Path:
        (self.archives / "images").mkdir()
        for name, data in self.files.items():
            (self.archives / name).write_bytes(data)
        return self.archives


def csv(*rows: tuple[str, ...], header: tuple[str, ...] = ("filename", "label")) -> bytes:
    return "".join(",".join(row) + "\n" for row in (header, *rows)).encode()


def jpeg(pixels: np.ndarray, mode: str = "RGB", image_format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format=image_format)
    return buffer.getvalue()


def resized(data: bytes, side: int = 28) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
