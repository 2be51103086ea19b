"""Files as people have them, through the tools: bit depths, endings, hidden files, one class."""

import csv
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision.datasets.image_files import read_file

GREY = [np.random.default_rng(i).integers(0, 256, (16, 16), np.uint8) for i in range(8)]


def twelve_bits(pixels: np.ndarray, path: Path) -> None:
    """A grey TIFF of 12 bits, which Pillow reads and does not write: two values in three bytes."""
    values = np.rint(pixels.astype(float) * 4095 / 255).astype(int).reshape(-1, 2)
    packed = [v for a, b in values for v in (a >> 4, (a & 15) << 4 | b >> 8, b & 255)]
    buffer = io.BytesIO()
    # its header says where the strip of bytes is; 258: bits per sample, 279: bytes of the strip
    Image.fromarray(pixels.astype(np.uint16)).save(buffer, "TIFF")
    content = bytearray(buffer.getvalue())
    with Image.open(buffer) as image:
        start = image.tag_v2[273][0]
    content[start : start + len(packed)] = bytes(packed)
    for tag, value in ((258, 12), (279, len(packed))):
        entries = [struct.pack("<HHI", tag, kind, 1) for kind in (3, 4)]  # 16 or 32 bits
        at = max(content.find(entry) for entry in entries) + len(entries[0])
        content[at : at + 2] = struct.pack("<H", value)
    path.write_bytes(content)


DEPTHS: dict[str, Callable[[np.ndarray, Path], None]] = {
    "16.png": lambda p, path: Image.fromarray(p.astype(np.uint16) * 257).save(path),
    "16.tif": lambda p, path: Image.fromarray(p.astype(np.uint16) * 257).save(path),
    "16.pgm": lambda p, path: Image.fromarray(p.astype(np.uint16) * 257).save(path),
    "float.tif": lambda p, path: Image.fromarray(p.astype(np.float32) / 255).save(path),
    "12.tif": twelve_bits,
}
UNKNOWN = {
    "int.tif": GREY[0].astype(np.int32),
    "float.tif": GREY[0].astype(np.float32),
    "nan.tif": np.full((8, 8), np.nan, np.float32),
}
TRAIN = [
    "configs/vit_ti.yaml", "norm.name=layernorm", "configs/data/imagefolder.yaml",
    "model.embed_dim=32", "model.depth=1", "model.num_heads=2", "model.patch_size=8",
    "data.img_size=16", "data.num_workers=0", "optim.warmup_epochs=0", "trainer.epochs=1",
    "trainer.batch_size_total=4", "trainer.progress_bar=false",
]  # fmt: skip


@pytest.mark.parametrize("kind", DEPTHS)
def test_bit_depths_of_a_picture_are_the_same_picture(kind: str, fid, tmp_path: Path) -> None:
    for name in ("8", "deep"):
        (tmp_path / name).mkdir()
    for number, pixels in enumerate(GREY):
        Image.fromarray(pixels).save(tmp_path / "8" / f"{number}.png")
        DEPTHS[kind](pixels, tmp_path / "deep" / f"{number}{Path(kind).suffix}")
        deep = read_file(tmp_path / "deep" / f"{number}{Path(kind).suffix}", "L")
        assert np.array_equal(np.asarray(deep), pixels)
    found, _ = fid("--real", tmp_path / "8", "--fake", tmp_path / "deep")
    assert abs(found["fid"]) < 1e-6


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_range_that_no_file_states_is_refused_by_name(kind: str, fid, tmp_path: Path) -> None:
    for number in range(4):
        Image.fromarray(GREY[number]).save(tmp_path / f"{number}.png")
    Image.fromarray(UNKNOWN[kind]).save(tmp_path / kind)
    _, error = fid("--real", tmp_path, "--fake", tmp_path, code=2)
    assert error.count("\n") == 1
    assert f"cannot read image {tmp_path / kind}" in error
    assert "save it with 8 or 16 bits" in error


def write_classes(root: Path, write: Callable[[np.ndarray, Path], None], ending: str) -> None:
    for split in ("train", "val"):
        for label in range(2):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(4):
                write(GREY[4 * label + number], folder / f"{number}.{ending}")


@pytest.mark.parametrize("name", ["folder", "torch/image_folder"])
def test_training_sees_the_same_pictures_at_any_bit_depth(
    name: str, forked, tmp_path: Path
) -> None:
    tables = []
    for kind in ("8", "16"):
        write = DEPTHS["16.png"] if kind == "16" else lambda p, path: Image.fromarray(p).save(path)
        write_classes(tmp_path / kind, write, "png")
        where = [f"data.root={tmp_path / kind}", f"data.name={name}", f"output_dir={tmp_path}"]
        forked("tools/train.py", *TRAIN, *where, f"name=run{kind}")
        with open(tmp_path / f"run{kind}" / "metrics.csv", newline="") as file:
            tables.append([(row["train/loss"], row["val/loss"]) for row in csv.DictReader(file)])
    assert tables[0] == tables[1]
    assert any(row[1] for row in tables[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["16.png", "12.tif"])
def test_so_does_every_other_tool_that_reads_pictures(
    kind: str, forked, vae, tmp_path: Path
) -> None:
    ending = Path(kind).suffix[1:]
    write_classes(tmp_path / "8", lambda p, path: Image.fromarray(p).save(path), ending)
    write_classes(tmp_path / "deep", DEPTHS[kind], ending)
    vae().save_pretrained(tmp_path / "vae")
    train = [*TRAIN, f"data.root={tmp_path / '8'}", f"output_dir={tmp_path}"]
    decoder = ["mae.decoder_embed_dim=16", "mae.decoder_depth=1", "mae.decoder_num_heads=2"]
    forked("tools/train.py", *train, "name=run")
    forked("tools/train.py", "configs/mae_ti.yaml", *train[1:], *decoder, "name=mae")
    found = []
    for name in ("8", "deep"):
        (tmp_path / "data").unlink(missing_ok=True)
        (tmp_path / "data").symlink_to(tmp_path / name)  # pictures have the folder for a title
        root, out = f"data.root={tmp_path / 'data'}", tmp_path / f"out_{name}"
        forked("tools/evaluate.py", tmp_path / "run", root, "--output", out)
        forked("tools/preview.py", *TRAIN, root, "--output", out / "preview.png")
        files = sorted((tmp_path / name / "val" / "class1").iterdir())
        drawn = ["--output", out / "reconstruction.png"]
        forked("tools/reconstruct.py", tmp_path / "mae", *files, *drawn)
        latents = ["--vae", tmp_path / "vae", "--output", out / "latents"]
        data = ["configs/data/imagefolder.yaml", "data.img_size=16", root]
        forked("tools/encode_latents.py", *data, *latents)
        content = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*.[ps]*")}
        (metrics,) = (json.loads(path.read_text()) for path in out.glob("*.json"))
        found.append(content | {k: v for k, v in metrics.items() if k != "images_per_sec"})
    assert {"preview.png", "reconstruction.png", "loss"} <= found[0].keys()
    assert len([key for key in found[0] if key.endswith(".safetensors")]) == 2
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        assert found[1][key] == value, key


LITTER = {  # beside the pictures of a class, and what is said of it
    "train/class0/._0.png": "hidden",
    "train/class0/.ipynb_checkpoints/0-checkpoint.png": "hidden",
    "train/.thumbs/0.png": "hidden",
    "train/__MACOSX/class0/0.png": "hidden",
    "train/class1/0.xcf": "1 .xcf",
    "train/class1/README": "1 without ending",
    "train/empty/notes.txt": "1 folders without an image (empty)",
}


@pytest.mark.parametrize("name", ["folder", "torch/image_folder"])
def test_what_is_no_picture_of_a_class_is_left_out_and_said(
    name: str, forked, fid, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    write_classes(root, lambda p, path: Image.fromarray(p).save(path), "gif")
    for path in LITTER:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    (root / "train/class0/folder.png").mkdir()  # a folder named as a file
    arguments = [*TRAIN, f"data.root={root}", f"data.name={name}", f"output_dir={tmp_path}"]
    result = forked("tools/train.py", *arguments)
    assert "8 train / 8 validation" in result.stdout and "2 classes" in result.stdout
    (said,) = [line for line in result.stderr.splitlines() if "passed over" in line]
    for words in (
        "3 files that are no images",
        "1 .xcf",
        "4 hidden",
        "1 .txt",
        "2 folders without",
    ):
        assert words in said
    found, error = fid("--real", root / "train", "--fake", root / "val")
    assert (found["settings"]["real"]["count"], found["settings"]["fake"]["count"]) == (8, 8)
    assert said.removeprefix(f"note: {root / 'train'}: ") in error


def test_the_same_holds_for_shards(forked, write_tar, tmp_path: Path) -> None:
    def encoded(ending: str) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(GREY[0]).save(buffer, ending)
        return buffer.getvalue()

    members: dict[str, bytes] = {}
    for number, ending in enumerate(("png", "gif", "tga", "webp")):
        key = f"./class{number % 2}/{number}"
        members |= {f"{key}.{ending}": encoded(ending), f"{key}.cls": b"%d" % (number % 2)}
        members |= {f"./class{number % 2}/._{number}.{ending}": b"", f"{key}.xcf": b""}
    for split in ("train", "val"):
        write_tar(tmp_path / f"{split}-0.tar", members)
        (tmp_path / f"._{split}-0.tar").write_bytes(b"\0\5\x16\7")  # as macOS copies to a share
    where = [f"data.root={tmp_path}", "data.name=wds", f"output_dir={tmp_path / 'runs'}"]
    result = forked("tools/train.py", *TRAIN, *where)
    assert "4 train / 4 validation" in result.stdout
    assert "passed over 4 files that are no images (4 .xcf); 4 hidden" in result.stderr


@pytest.mark.parametrize("name", ["folder", "wds"])
def test_one_class_is_refused_by_a_classifier_and_fine_for_mae(
    name: str, forked, write_tar, tmp_path: Path
) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "only").mkdir(parents=True)
        for number, pixels in enumerate(GREY):
            Image.fromarray(pixels).save(tmp_path / split / "only" / f"{number}.png")
        files = {file.name: file.read_bytes() for file in (tmp_path / split / "only").iterdir()}
        labels = {f"{Path(file).stem}.cls": b"0" for file in files}
        write_tar(tmp_path / f"{split}-0.tar", {**files, **labels})
    where = [f"data.root={tmp_path}", f"data.name={name}", f"output_dir={tmp_path / 'runs'}"]
    result = forked("tools/train.py", *TRAIN, *where, code=2)
    one = "only" if name == "folder" else "0"
    assert f"data.root = '{tmp_path}': has one class ({one})" in result.stderr
    assert result.stderr.count("\n") == 1
    mae = ["configs/mae_ti.yaml", *TRAIN[1:], *where, "mae.pictures_every_n_epochs=null"]
    sizes = ["mae.decoder_embed_dim=16", "mae.decoder_depth=1", "mae.decoder_num_heads=2"]
    result = forked("tools/train.py", *mae, *sizes)
    assert "no val/knn_top1: the images have one class" in result.stderr
