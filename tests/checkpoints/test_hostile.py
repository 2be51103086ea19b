"""Files from strangers that would run code, or be read outside their folder."""

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vision.checkpoints.read import read_checkpoint
from vision.config import load_config
from vision.datasets.webdataset import WebDatasetReader
from vision.evaluation.generative.array_source import ArraySource
from vision.evaluation.generative.saved_statistics import read_statistics
from vision.training.loggers import make_loggers


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What a trap makes; the test shows that it works when it is not refused."""
    proof = tmp_path / "proof"
    pickle.loads(pickle.dumps(Trap(proof)))
    assert proof.is_dir()
    return tmp_path / "mark"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["whole", "inside", "key", "state"])
def test_a_checkpoint_that_would_run_code_is_refused(
    tmp_path: Path, mark: Path, zipped: bool, place: str
) -> None:
    trap = Trap(mark)
    content = {
        "whole": trap,
        "inside": {"state_dict": {"weight": torch.zeros(2)}, "vision": [1, {"a": trap}]},
        "key": {(trap,): 1},
        "state": {"args": _Holder(trap)},
    }[place]
    file = tmp_path / "a.ckpt"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="refused, it holds more|not a checkpoint") as caught:
        read_checkpoint(file)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


class _Holder:
    def __init__(self, trap: Trap) -> None:
        self.trap = trap


def test_plain_pickles_and_other_opcodes_are_refused(tmp_path: Path, mark: Path) -> None:
    command = f"__import__('os').mkdir({str(mark)!r})"
    for protocol in (0, 2, 4):
        (tmp_path / "a.ckpt").write_bytes(pickle.dumps({"a": Trap(mark)}, protocol))
        with pytest.raises(ValueError, match=r"a\.ckpt"):
            read_checkpoint(tmp_path / "a.ckpt")
    for code in (
        f"cbuiltins\neval\n(V{command}\ntR.",
        f"(V{command}\nibuiltins\neval\n.",
        f"(cbuiltins\neval\nV{command}\no.",
    ):
        (tmp_path / "a.ckpt").write_bytes(code.encode())
        with pytest.raises(ValueError, match=r"a\.ckpt"):
            read_checkpoint(tmp_path / "a.ckpt")
    assert not mark.exists()


def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    header = b'{"a": {"dtype": "F32", "shape": [1000000000], "data_offsets": [0, 4000000000]}}'
    for length in (len(header), 1 << 60):
        file.write_bytes(length.to_bytes(8, "little") + header + b"\0" * 8)
        with pytest.raises(ValueError, match=r"a\.safetensors"):
            read_checkpoint(file)


def test_arrays_of_pickled_objects_are_refused(tmp_path: Path, mark: Path) -> None:
    objects = np.empty(2, dtype=object)
    objects[:] = [Trap(mark), 1]
    file = tmp_path / "a.npz"
    for names in (["arr_0"], ["mu", "sigma"], ["settings", "mu", "sigma"], ["features"]):
        np.savez(file, **dict.fromkeys(names, objects))
        with pytest.raises(ValueError, match=r"[Oo]bject"):
            ArraySource(file) if names == ["arr_0"] else read_statistics(file)
    # a plain pickle under the name of an array, which numpy would otherwise load
    for names in (["arr_0.npy"], ["mu.npy", "sigma.npy"]):
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, pickle.dumps(Trap(mark)))
        with pytest.raises(ValueError, match="magic|no array"):
            ArraySource(file) if names == ["arr_0.npy"] else read_statistics(file)
    assert not mark.exists()


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", link: str | None = None) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    if link is not None:
        info.type, info.linkname = tarfile.SYMTYPE, link
    tar.addfile(info, io.BytesIO(content))


def test_archives_are_read_in_place_whatever_their_members_are_called(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"not in the archive")
    inner = tmp_path / "inner"
    inner.mkdir()
    with tarfile.open(inner / "train.tar", "w") as tar:
        add(tar, "../../evil.jpg", b"image")
        add(tar, "../../evil.cls", b"0")
        add(tar, "linked.jpg", link=str(secret))
        add(tar, "/absolute.jpg", b"other")
        add(tar, "/absolute.cls", b"1")
    before = sorted(tmp_path.rglob("*"))
    shards = WebDatasetReader([inner / "train.tar"])
    assert [shards[i][0].read() for i in range(len(shards))] == [b"image", b"other"]
    assert sorted(tmp_path.rglob("*")) == before


def test_only_a_logger_is_made_of_what_a_config_names(mark: Path) -> None:
    config = load_config([]).config
    config.trainer.loggers = [{"class": "os.mkdir", "path": str(mark)}]
    with pytest.raises(ValueError, match=r"trainer\.loggers = 'os\.mkdir'.*no logger"):
        make_loggers(config)
    assert not mark.exists()
