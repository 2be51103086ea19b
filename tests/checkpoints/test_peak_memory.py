"""Small files that claim or unpack to large ones are refused in a line, and in little memory."""

import io
import json
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/status"),
]
ROOT = Path(__file__).parents[2]
MOST = 200 * 2**20  # bytes that a refusal may take; it is mostly what is imported late


def header(shape: tuple[int, ...], dtype: str) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return out.getvalue()


def lying_arrays(home: Path) -> list[object]:
    """Headers of a terabyte, with nothing behind them."""
    with zipfile.ZipFile(home / "a.npz", "w") as archive:
        archive.writestr("mu.npy", header((2**37,), "<f8"))
        archive.writestr("sigma.npy", header((2**37, 2**37), "<f8"))
    return ["fid", "--real", home / "a.npz", "--fake", home / "a.npz", *extractor(home)]


def lying_images(home: Path) -> list[object]:
    with zipfile.ZipFile(home / "a.npz", "w") as archive:
        archive.writestr("arr_0.npy", header((4, 2**19, 2**19, 3), "|u1"))
    return ["fid", "--real", home / "a.npz", "--fake", home / "a.npz", *extractor(home)]


def packed_array(home: Path) -> list[object]:
    """1.2 GiB of zeros, packed."""
    shape = (150, 2**20)
    np.savez(home / "a.npz", mu=np.zeros(2), sigma=np.eye(2))
    archive = zipfile.ZipFile(home / "a.npz", "a", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("features.npy", "w") as file:
        file.write(header(shape, "<f8"))
        for _ in range(shape[0]):
            file.write(bytes(8 * shape[1]))
    return ["fid", "--real", home / "a.npz", "--fake", home / "a.npz", *extractor(home)]


def extractor(home: Path) -> list[object]:
    """One that needs no download; it is opened before any image."""
    return ["--extractor", f"run:{home / 'run'}", "--device", "cpu"]


def image(home: Path) -> list[object]:
    """A PNG of 40,000 x 40,000 black pixels, 200 KB, among others."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    side = 40_000
    pixels = zlib.compress(bytes((side // 8 + 1) * side), 9)
    start = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    )
    folder = home / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(start + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    for name in "bc":
        Image.new("L", (8, 8)).save(folder / f"{name}.png")
    return ["fid", "--real", folder, "--fake", folder, *extractor(home)]


def aliases(home: Path) -> list[object]:
    """Lists of lists of lists, ten to the ninth elements."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (home / "a.yaml").write_text("\n".join(lines))
    return ["train", home / "a.yaml"]


def references(home: Path) -> list[object]:
    """The same by ${...}, which OmegaConf resolves."""
    options = {"a0": "x" * 100} | {f"a{i}": f"${{norm.options.a{i - 1}}}" * 10 for i in range(1, 9)}
    (home / "a.yaml").write_text(json.dumps({"norm": {"options": options}}))
    return ["train", home / "a.yaml"]


def evaluated(home: Path, file: Path) -> list[object]:
    data = [ROOT / "configs/data/digits.yaml", "model.patch_size=null"]
    return ["evaluate", "vit_tiny_patch16_224", "--weights", file, *data]


def lying_tensors(home: Path) -> list[object]:
    file = home / "a.safetensors"
    entry = {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}
    text = json.dumps({"head.weight": entry}).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    return evaluated(home, file)


def repeated_tensor(home: Path) -> list[object]:
    """One number that calls itself a terabyte: a stride of 0."""
    torch.save({"head.weight": torch.zeros(1).expand(2**38)}, home / "a.pth")
    return evaluated(home, home / "a.pth")


def packed_checkpoint(home: Path) -> list[object]:
    """A checkpoint whose tensors are compressed, which torch.save never does."""
    torch.save({"head.weight": torch.zeros(2**22)}, home / "whole.pth")
    with (
        zipfile.ZipFile(home / "whole.pth") as whole,
        zipfile.ZipFile(home / "a.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    return evaluated(home, home / "a.pth")


@pytest.mark.parametrize(
    "kind",
    [
        lying_arrays, lying_images, packed_array, image, aliases, references, lying_tensors,
        repeated_tensor, packed_checkpoint,
    ],
)  # fmt: skip
def test_a_small_file_does_not_take_the_memory_that_it_asks_for(
    kind: Callable[[Path], list[object]], trained: Path, forked, tmp_path: Path
) -> None:
    (tmp_path / "run").symlink_to(trained)
    tool, *arguments = kind(tmp_path)
    said = forked("tests/peak.py", f"tools/{tool}.py", *arguments, code=2)
    (line,) = [line for line in said.stderr.splitlines() if line.startswith("error: ")]
    names = [str(tmp_path / "a."), str(tmp_path / "images/a.png"), "config: more than 10 values"]
    assert any(name in line for name in names)
    assert "Traceback" not in said.stderr
    peak = int(said.stdout.rpartition("peak ")[2])
    print(f"{kind.__name__}: {peak / 1e6:.0f} MB, {line}")
    assert peak < MOST
