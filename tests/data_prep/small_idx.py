"""Small EMNIST and MNIST: IDX files in the official layouts, and what must come of them."""

import dataclasses
import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from small_omniglot import write_zip

from tsar_jax.data.types import ImageSet

EMNIST_NAMES = ("0", "A", "b")
EMNIST_PER_CLASS = {"train": 4, "test": 2}
MNIST_NAMES = ("0", "1", "2")
# By split, the label of every image: the digits differ in number, 3 and 2 at least.
MNIST_LABELS = {"train": (0, 2, 1, 1, 0, 2, 0, 1, 1, 2), "test": (1, 1, 0, 2, 2, 0)}
MNIST_PER_CLASS = {"train": 3, "test": 2}


def idx(values: np.ndarray, type_code: int = 8) -> bytes:
    """Any array of bytes as an IDX file, not compressed."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, type_code, values.ndim]) + sizes + values.astype(np.uint8).tobytes()


@dataclasses.dataclass(frozen=True)
class SmallSet:
    """archives: an empty folder for the files. files: by name without .gz, their bytes.

    images, labels: by split, as the files have them. splits: as they must be prepared.
    """

    archives: Path
    files: dict[str, bytes]
    images: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    splits: dict[str, ImageSet]

    def write(self, *, compressed: bool = True, **changed: bytes | None) -> Path:
        """Writes the files, but those with other bytes or none whose names begin as told."""
        for name, data in self._contents(changed, compressed).items():
            (self.archives / name).write_bytes(data)
        return self.archives

    def write_zip(self, **changed: bytes | None) -> Path:
        """Likewise, but into one archive as NIST's."""
        members = {
            f"gzip/{name}": data for name, data in self._contents(changed, compressed=True).items()
        }
        # NIST's has data sets besides Balanced.
        members["gzip/emnist-digits-train-images-idx3-ubyte.gz"] = b"of no use here"
        return write_zip(self.archives / "gzip.zip", members)

    def _contents(self, changed: dict[str, bytes | None], compressed: bool) -> dict[str, bytes]:
        contents = {}
        for name, data in self.files.items():
            starts = [start for start in changed if name.replace("-", "_").startswith(start)]
            written = changed[starts[0]] if starts else data
            if written is None:
                continue
            if compressed and name.endswith("ubyte"):
                contents[f"{name}.gz"] = gzip.compress(written)
            else:
                contents[name] = written
        return contents


class TfdsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Named as it is told, of examples such as tensorflow-datasets' "emnist" and "mnist" have."""

    url_infos = None
    channels = 1

    def __init__(self, small: SmallSet, **options: object) -> None:
        self.small = small
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(28, 28, self.channels))
        # As many as the labels of EMNIST Balanced, of which the small one has the first.
        features = {"image": image, "label": tfds.features.ClassLabel(num_classes=47)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in self.small.images}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        for index, image in enumerate(self.small.images[split]):
            # Of an array tensorflow-datasets would make a PNG by TensorFlow.
            png = io.BytesIO()
            mode = "L" if self.channels == 1 else "RGB"
            Image.fromarray(image).convert(mode).save(png, "PNG")
            png.seek(0)
            yield index, {"image": png, "label": int(self.small.labels[split][index])}


def make_small_emnist(archives: Path) -> SmallSet:
    random = np.random.default_rng(0)
    codes = [f"{label} {ord(name)}\n" for label, name in enumerate(EMNIST_NAMES)]
    files = {"emnist-balanced-mapping.txt": "".join(codes).encode()}
    images, labels, splits = {}, {}, {}
    for split, each in EMNIST_PER_CLASS.items():
        labels[split] = random.permutation(np.repeat(np.arange(3), each))
        images[split] = random.integers(0, 256, (len(labels[split]), 28, 28), dtype=np.uint8)
        files[f"emnist-balanced-{split}-images-idx3-ubyte"] = idx(images[split])
        files[f"emnist-balanced-{split}-labels-idx1-ubyte"] = idx(labels[split])
        upright = np.stack([images[split][labels[split] == label] for label in range(3)])
        splits[split] = ImageSet(upright.transpose(0, 1, 3, 2), EMNIST_NAMES)
    return SmallSet(archives, files, images, labels, splits)


def make_small_mnist(archives: Path) -> SmallSet:
    random = np.random.default_rng(0)
    files, images, labels, splits = {}, {}, {}, {}
    for split, name in {"train": "train", "test": "t10k"}.items():
        labels[split] = np.array(MNIST_LABELS[split])
        images[split] = random.integers(0, 256, (len(labels[split]), 28, 28), dtype=np.uint8)
        files[f"{name}-images-idx3-ubyte"] = idx(images[split])
        files[f"{name}-labels-idx1-ubyte"] = idx(labels[split])
        each = MNIST_PER_CLASS[split]
        first = [images[split][labels[split] == label][:each] for label in range(3)]
        splits[split] = ImageSet(np.stack(first), MNIST_NAMES)
    return SmallSet(archives, files, images, labels, splits)
