"""A set with the shape of ImageNet-1k, to rehearse on what nobody has at hand.

  python tests/imagenet_shaped.py FOLDER

writes FOLDER/folder (train and val, 1,000 class folders named as synsets), FOLDER/shards
(WebDataset) and FOLDER/parquet. The images are parts of scikit-learn's two photographs in the sizes
and kinds that the real set has: RGB, grey, CMYK, turned by EXIF, and a PNG with the name of a JPEG.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_images

CLASSES = [f"n{1440764 + 14447 * number:08d}" for number in range(1000)]
_SIZES = ((500, 375), (375, 500), (200, 231), (800, 600), (640, 213), (333, 500))
_ORIENTATION = 0x0112  # EXIF tag


def write_folder(root: Path, train: int = 2, val: int = 1000, classes: int = 1000) -> Path:
    """ROOT/train/SYNSET/SYNSET_N.JPEG and ROOT/val/SYNSET/ILSVRC2012_val_N.JPEG; returns `root`.

    `train` images of each of the first `classes`, and one in val of each of the first `val`. Equal
    images are hard links, so that thousands take seconds and next to no space.
    """
    kinds = [root / f"{number}.JPEG" for number in range(len(_SIZES) + 4)]
    root.mkdir(parents=True)
    for path, content in zip(kinds, _encoded(), strict=True):
        path.write_bytes(content)
    for split, name, label in _names(train, val, classes):
        path = root / split / CLASSES[label] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        number = int(path.stem.rpartition("_")[2]) + label
        os.link(kinds[number % len(kinds)], path)
    for path in kinds:
        path.unlink()
    return root


def write_shards(folder: Path, root: Path, per_shard: int = 700) -> Path:
    """The images of `folder`, as data/README.md says, in WebDataset shards; returns `root`."""
    root.mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    for split in ("train", "val"):
        files = _files(folder / split)
        for start in range(0, len(files), per_shard):
            with tarfile.open(root / f"{split}-{start // per_shard:04d}.tar", "w") as tar:
                for number, file in enumerate(files[start : start + per_shard], start):
                    label = str(CLASSES.index(file.parent.name)).encode()
                    info = tarfile.TarInfo(f"{number:08d}.cls")
                    info.size = len(label)
                    content = tarfile.TarInfo(f"{number:08d}.jpeg")
                    content.size = file.stat().st_size
                    tar.addfile(content, io.BytesIO(file.read_bytes()))
                    tar.addfile(info, io.BytesIO(label))
    return root


def write_parquet(folder: Path, root: Path) -> Path:
    """The images of `folder` in one parquet file per split, for data.name=hfds/ROOT."""
    import datasets

    root.mkdir(parents=True)
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=CLASSES))
    for split, name in (("train", "train"), ("val", "validation")):
        files = _files(folder / split)
        rows = {
            "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
            "label": [CLASSES.index(file.parent.name) for file in files],
        }
        data = datasets.Dataset.from_dict(rows, features=features)
        data.to_parquet(root / f"{name}-00000-of-00001.parquet")
    return root


def _names(train: int, val: int, classes: int) -> Iterator[tuple[str, str, int]]:
    """(split, file name, class) of every image."""
    for label, synset in enumerate(CLASSES[:classes]):
        for number in range(train):
            yield "train", f"{synset}_{number + 1}.JPEG", label
    for label in range(val):
        yield "val", f"ILSVRC2012_val_{label + 1:08d}.JPEG", label


def _files(split: Path) -> list[Path]:
    return sorted(split.glob("*/*.JPEG"))


def _encoded() -> Iterator[bytes]:
    """One file of each kind."""
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    crops = [photos[n % 2].crop((9 * n, 5 * n, 400, 400)).resize(s) for n, s in enumerate(_SIZES)]
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    for image, options in (
        *((crop, {"format": "JPEG"}) for crop in crops),
        (crops[0].convert("L"), {"format": "JPEG"}),
        (crops[1].convert("CMYK"), {"format": "JPEG"}),
        (crops[2], {"format": "JPEG", "exif": exif.tobytes()}),
        (crops[2].convert("P"), {"format": "PNG"}),
    ):
        file = io.BytesIO()
        image.save(file, **options)
        yield file.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    home = parser.parse_args().folder
    made = write_folder(home / "folder")
    write_shards(made, home / "shards")
    write_parquet(made, home / "parquet")
