"""WebDataset shards: once per epoch over ranks and workers, resumed exactly, damage named."""

import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vision.config.schema import DataConfig
from vision.datasets import index_cache
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.readers import open_reader

SHARDS = (11, 3, 22)  # images
KINDS = ("png", "webp", "bmp")


def encoded(number: int) -> tuple[str, bytes]:
    """(ending, file) of an image whose pixels say which it is, of several formats."""
    kind = KINDS[number % len(KINDS)]
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "webp" else {}
    Image.new("RGB", (4, 4), (number, number, number)).save(buffer, kind, **options)
    return kind, buffer.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, write_tar) -> Path:
    folder, start = tmp_path_factory.mktemp("shards"), 0
    for shard, size in enumerate(SHARDS):
        members: dict[str, bytes] = {}
        for number in range(start, start + size):
            kind, data = encoded(number)
            # labels before and behind their image, and members that are neither
            pair = [(f"{number:03d}.{kind}", data), (f"{number:03d}.cls", b"%d" % (number % 3))]
            members |= dict(pair[:: 1 if number % 2 else -1])
            members[f"{number:03d}.json"] = b"{}"
        write_tar(folder / f"train-{shard}.tar", members)
        start += size
    write_tar(folder / "val-0.tar", {"a.png": encoded(0)[1], "a.cls": b"0"})
    return folder


def batches(
    config: DataConfig, rank: int = 0, world_size: int = 1, done: int = 0
) -> list[list[int]]:
    """Micro-batches of the first epoch, by the pixels of the images: 3 steps, 2 micro-batches."""
    data = ImageDataModule(config, seed=0, batch_size_total=12, batch_size_device=6)
    data._rank_and_world = lambda: (rank, world_size)
    data._batches_done = lambda: done
    found = []
    for batch in data.train_dataloader():
        numbers = ((batch.images[:, 0, 0, 0] + 1) * 127.5).round().long()
        assert torch.equal(numbers, batch.indices)
        assert torch.equal(batch.targets, batch.indices % 3)
        found.append(numbers.tolist())
    return found


@pytest.fixture
def config(root: Path, make_config) -> Callable[..., DataConfig]:
    whole = {"scale": [1.0, 1.0], "ratio": [1.0, 1.0]}
    return lambda **changes: make_config(whole, name="wds", root=str(root), img_size=4, **changes)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_two_ranks_see_each_image_once_per_epoch(config, num_workers: int) -> None:
    ranks = [batches(config(num_workers=num_workers), rank, 2) for rank in range(2)]
    assert [len(rank) for rank in ranks] == [3, 3]
    assert sorted(i for rank in ranks for batch in rank for i in batch) == list(range(36))


@pytest.mark.parametrize("done", [1, 4])
def test_a_resumed_epoch_continues_where_it_stopped(config, done: int) -> None:
    assert batches(config(num_workers=2), done=done) == batches(config())[done:]


def test_names_in_a_shard_lead_nowhere(tmp_path: Path, make_config) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(9)[1])
    names = ("../secret", str(tmp_path / "secret"), "a/../../secret")
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / "train-0.tar", "w") as tar:
        for number, name in enumerate(names):
            for kind, data in (("png", encoded(3 * number)[1]), ("cls", b"0")):
                info = tarfile.TarInfo(f"{name}.{kind}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE)):
            link = tarfile.TarInfo(f"link{number}.png")
            link.type, link.linkname = kind, "../secret.png"
            tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    reader = open_reader(make_config(name="wds", root=str(tmp_path / "data")), "train")
    # what is read are bytes of the shard, whatever its members are called; links are ignored
    assert [reader[i][0].read() for i in range(len(reader))] == [
        encoded(3 * number)[1] for number in range(3)
    ]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("members", [1, 4], ids=["inside an image", "between two members"])
def test_a_shard_cut_short_is_named(root: Path, tmp_path: Path, make_config, members: int) -> None:
    whole = (root / "train-0.tar").read_bytes()
    with tarfile.open(root / "train-0.tar") as tar:
        info = tar.getmembers()[members]
    cut = info.offset if members == 4 else info.offset_data + 5
    (tmp_path / "train-0.tar").write_bytes(whole)
    (tmp_path / "train-1.tar").write_bytes(whole[:cut])
    with pytest.raises(ValueError, match=r"train-1.tar is not an uncompressed, whole tar file"):
        open_reader(make_config(name="wds", root=str(tmp_path)), "train")


def test_a_damaged_header_is_not_the_end_of_a_shard(root: Path, tmp_path, make_config) -> None:
    with tarfile.open(root / "train-2.tar") as tar:
        at = tar.getmembers()[30].offset
    content = bytearray((root / "train-2.tar").read_bytes())
    content[at : at + 8] = b"\xff" * 8
    (tmp_path / "train-0.tar").write_bytes(content)
    with pytest.raises(ValueError, match=rf"no end mark at byte {at}: cut short or damaged"):
        open_reader(make_config(name="wds", root=str(tmp_path)), "train")


def test_a_large_index_is_kept_until_a_shard_changes(
    root: Path, tmp_path: Path, make_config, write_tar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index_cache, "_WORTH_KEEPING", 1)
    config = make_config(name="wds", root=str(tmp_path))
    path = write_tar(tmp_path / "train-0.tar", {"a.png": b"one", "a.cls": b"1"})
    assert open_reader(config, "train").labels == [1]
    (kept,) = (tmp_path / "cache" / "vision" / "index").iterdir()
    # read from there: a label that no shard holds
    arrays = dict(np.load(kept, allow_pickle=False))
    np.savez(kept, **{**arrays, "label": np.array([7])})
    reader = open_reader(config, "train")
    assert (reader.labels, reader[0][0].read(), reader.filename(0)) == (
        [7],
        b"one",
        f"{path}:a.png",
    )
    kept.write_bytes(b"not an index")
    assert open_reader(config, "train").labels == [1]
    write_tar(path, {"b.png": b"other", "b.cls": b"2"})
    os.utime(path, ns=(0, 0))
    reader = open_reader(config, "train")
    assert (reader.labels, reader[0][0].read()) == ([2], b"other")


def test_a_reader_holds_arrays_and_no_object_per_image(root: Path, make_config) -> None:
    reader = open_reader(make_config(name="wds", root=str(root)), "train")
    held = {key: value for key, value in vars(reader).items() if isinstance(value, list)}
    assert {key: len(value) for key, value in held.items()} == {"shards": 3, "labels": 36}
    assert sum(array.nbytes for array in reader._index.values()) / 36 < 50  # bytes per image


def test_a_label_of_gigabytes_is_refused_without_reading_it(
    tmp_path: Path, make_config, write_tar, forked
) -> None:
    path = tmp_path / "train-0.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("a.cls")
        info.size = 3 << 30
        tar.fileobj.write(info.tobuf())
        tar.fileobj.seek(info.size, os.SEEK_CUR)  # a hole in the file
        tar.offset = tar.fileobj.tell()
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"train-0.tar:a.cls holds .*; expected a class number"):
        open_reader(make_config(name="wds", root=str(tmp_path)), "train")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    write_tar(tmp_path / "val-0.tar", {"a.png": b"", "a.cls": b"0"})
    for config in ("configs/vit_ti.yaml", "configs/mae_ti.yaml"):
        where = [f"data.root={tmp_path}", "data.name=wds", "data.val_split=val"]
        where += ["data.test_split=null", f"output_dir={tmp_path / 'runs'}"]
        said = forked("tools/train.py", config, *where, code=2)
        (line,) = said.stderr.splitlines()
        assert f"{path}:a.cls holds " in line and "expected a class number" in line
    assert not (tmp_path / "runs").exists()
