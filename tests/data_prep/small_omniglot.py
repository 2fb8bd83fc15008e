"""A small Omniglot: archives in the official layout, and what must come of them."""

import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from tsar_jax.data.types import ImageSet

CLASSES = {
    "background": ("Greek/character01", "Greek/character02", "Latin/character01"),
    "evaluation": ("Angelic/character01", "Tengwar/character12"),
}


@dataclasses.dataclass(frozen=True)
class SmallOmniglot:
    """archives: the folder of both. members: by split, the path and bytes of each drawing."""

    archives: Path
    members: dict[str, dict[str, bytes]]
    splits: dict[str, ImageSet]

    def write(self, split: str, members: dict[str, bytes]) -> Path:
        """Writes other members as a split's archive."""
        return write_zip(self.archives / f"images_{split}.zip", members)


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def png(pixels: np.ndarray) -> bytes:
    """0 and 255 [height, width] -> a 1-bit PNG, as Omniglot's are."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("1").save(buffer, format="PNG")
    return buffer.getvalue()


def resized(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((28, 28), Image.Resampling.LANCZOS))
