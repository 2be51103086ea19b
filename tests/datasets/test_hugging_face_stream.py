"""Hugging Face data sets as a stream: once per epoch over ranks and workers, resumed exactly."""

import io
import itertools
import json
import math
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from vision.config.schema import DataConfig
from vision.datasets.check import check_data
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.dataset import Batch
from vision.datasets.readers import open_reader
from vision.datasets.sampler import BLOCK, GlobalBatchSampler, ahead, shard_order

pytest.importorskip("datasets")

SHARDS = (300, 20, 130)  # rows; the first has two blocks, the second is smaller than a batch
TOTAL = 30
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["ant", "bee", "cat"], "_type": "ClassLabel"},
}


def png(number: int) -> bytes:
    """An image whose pixels say which it is."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number // 256, number % 256, 0)).save(buffer, "png")
    return buffer.getvalue()


def write_parquet(path: Path, images: list[bytes], labels: list, **features: dict) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"bytes": data, "path": None} for data in images]
    metadata = {"huggingface": json.dumps({"info": {"features": {**FEATURES, **features}}})}
    table = pa.table({"image": rows, "label": pa.array(labels)}).replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=100)
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, start = tmp_path_factory.mktemp("streamed"), 0
    for number, size in enumerate(SHARDS):
        indices = range(start, start + size)
        images, labels = [png(i) for i in indices], [i % 3 for i in indices]
        write_parquet(folder / "data" / f"train-{number}.parquet", images, labels)
        start += size
    write_parquet(folder / "data" / "validation-0.parquet", [png(7), png(8)], [1, 2])
    return folder


Open = Callable[..., ImageDataModule]


@pytest.fixture(scope="module")
def streamed(shards: Path, make_config) -> Open:
    """The data module as rank `rank` of `world_size` has it after `done` micro-batches."""

    def make(
        rank: int = 0, world_size: int = 1, num_workers: int = 0, done: int = 0
    ) -> ImageDataModule:
        config: DataConfig = make_config(
            {"scale": [1.0, 1.0], "ratio": [1.0, 1.0]},
            name=f"hfids/{shards / 'data'}",
            root=str(shards / "cache"),
            num_workers=num_workers,
            img_size=4,
        )
        data = ImageDataModule(config, seed=0, batch_size_total=TOTAL, batch_size_device=15)
        data._rank_and_world = lambda: (rank, world_size)
        data._batches_done = lambda: done
        return data

    return make


def numbers(batches: list[Batch]) -> list[list[int]]:
    """Which images they are, by their pixels; they have to be those that the batch names."""
    found = []
    for batch in batches:
        assert torch.equal(batch.targets, batch.indices % 3)
        pixels = ((batch.images[:, :2, 0, 0] + 1) * 127.5).round().long()
        assert torch.equal(pixels[:, 0] * 256 + pixels[:, 1], batch.indices)
        found.append(batch.indices.tolist())
    return found


def flat(lists: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


@pytest.fixture(scope="module")
def whole(streamed: Open) -> list[list[int]]:
    """The micro-batches of the first epoch: 15 steps of two."""
    return numbers(list(streamed().train_dataloader()))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_two_ranks_see_each_image_once_per_epoch(
    streamed: Open, whole: list[list[int]], num_workers: int
) -> None:
    ranks = [numbers(list(streamed(rank, 2, num_workers).train_dataloader())) for rank in range(2)]
    assert [len(rank) for rank in ranks] == [15, 15]  # no rank waits for another at the end
    assert sorted(i for rank in ranks for batch in rank for i in batch) == list(range(450))
    for step in range(15):  # and the optimizer's batches are those of one device
        assert {*ranks[0][step], *ranks[1][step]} == {*whole[2 * step], *whole[2 * step + 1]}


def test_epochs_have_their_own_order(streamed: Open, whole: list[list[int]]) -> None:
    second = numbers(list(streamed(done=30).train_dataloader()))
    assert sorted(flat(second)) == sorted(flat(whole)) == list(range(450))
    assert second != whole


@pytest.mark.parametrize(("done", "num_workers"), [(7, 0), (19, 2)])
def test_a_resumed_epoch_continues_where_it_stopped(
    streamed: Open, whole: list[list[int]], done: int, num_workers: int
) -> None:
    rest = streamed(num_workers=num_workers, done=done).train_dataloader()
    assert numbers(list(rest)) == whole[done:]


def test_an_epoch_left_in_the_middle_is_no_trouble_for_the_next(
    streamed: Open, whole: list[list[int]]
) -> None:
    data = streamed(num_workers=2)
    first = next(iter(data.train_dataloader()))
    assert numbers([first]) == whole[:1]
    assert numbers(list(data.train_dataloader())) == whole


@pytest.mark.parametrize("world_size", [1, 2])
def test_evaluation_sees_each_image_once(streamed: Open, world_size: int) -> None:
    loaders = [streamed(rank, world_size).bank_dataloader() for rank in range(world_size)]
    ranks = [flat(numbers(list(loader))) for loader in loaders]
    assert flat(ranks) == list(range(450))
    assert max(map(len, ranks)) - min(map(len, ranks)) <= 1


def test_the_stream_knows_sizes_labels_and_classes(streamed: Open) -> None:
    data = streamed()
    assert data.sizes == {"train": 450, "validation": 2}
    assert data.class_names == ["ant", "bee", "cat"]
    assert data.steps_per_epoch == 15
    assert numbers(list(data.ordered_loader("train", range(290, 310)))) == [list(range(290, 310))]


def test_any_index_can_be_read_at_any_time(shards: Path, make_config) -> None:
    config = make_config(name=f"hfids/{shards / 'data'}", root=str(shards / "cache"))
    reader = open_reader(config, "training")
    assert reader.shard_sizes == list(SHARDS)
    for index in (449, 0, 310, 0, 299, 256, 255):
        assert reader[index][0].read() == png(index)
    assert pickle.loads(pickle.dumps(reader))[310][0].read() == png(310)
    assert reader.filename(310).endswith("[train] shard 1 row 10")


def test_a_broken_image_is_replaced_by_one_of_another_batch(tmp_path: Path, make_config) -> None:
    images = [b"no image" if i == 5 else png(i) for i in range(8)]
    for split in ("train", "validation"):
        write_parquet(tmp_path / "data" / f"{split}-0.parquet", images, [i % 3 for i in range(8)])
    config = make_config(name=f"hfids/{tmp_path}/data", root=str(tmp_path / "cache"), img_size=4)
    config.on_corrupt = "skip"
    data = ImageDataModule(config, seed=0, batch_size_total=1)
    batches = list(data.train_dataloader())
    assert sorted(int(batch.indices) for batch in batches) == [0, 1, 2, 3, 4, 6, 6, 7]
    assert sum(int(batch.skipped) for batch in batches) == 1


def test_tars_can_be_streamed_too(tmp_path: Path, make_config) -> None:
    (tmp_path / "data").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "data" / f"train-{shard}.tar", "w") as tar:
            for i in range(3):
                for kind, content in (("png", png(3 * shard + i)), ("cls", b"%d" % i)):
                    info = tarfile.TarInfo(f"{shard}{i}.{kind}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    config = make_config(name=f"hfids/{tmp_path}/data", root=str(tmp_path / "cache"))
    reader = open_reader(config, "train")
    assert reader.shard_sizes == [3, 3]
    assert reader.labels == [0, 1, 2, 0, 1, 2]
    assert [reader[i][0].read() for i in range(6)] == [png(i) for i in range(6)]


def test_a_shard_cut_short_is_named(tmp_path: Path, make_config) -> None:
    for number in range(2):
        path = write_parquet(tmp_path / "data" / f"train-{number}.parquet", [png(0)], [0])
    path.write_bytes(path.read_bytes()[:-20])
    config = make_config(name=f"hfids/{tmp_path}/data", root=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=rf"{path} cannot be read to its end .*write it again"):
        open_reader(config, "train")


@pytest.mark.parametrize(
    ("labels", "feature", "message"),
    [
        (["a"], {"_type": "Value", "dtype": "string"}, r"column 'label' holds .*class numbers"),
        ([None], {"_type": "Value", "dtype": "int64"}, r"column 'label' holds object"),
    ],
)
def test_labels_that_are_no_numbers_are_refused(
    tmp_path: Path, make_config, labels: list, feature: dict, message: str
) -> None:
    write_parquet(tmp_path / "data" / "train-0.parquet", [png(0)], labels, label=feature)
    config = make_config(name=f"hfids/{tmp_path}/data", root=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=rf"data.name = 'hfids/{tmp_path}/data': {message}"):
        open_reader(config, "train")


def test_missing_sets_and_splits_are_named(shards: Path, tmp_path: Path, make_config) -> None:
    config = make_config(name=f"hfids/{shards / 'data'}", root=str(shards / "cache"))
    with pytest.raises(FileNotFoundError, match=r"'test': no such split .*train, validation"):
        open_reader(config, "test")
    config.name = f"hfids/{tmp_path}/none"
    with pytest.raises(FileNotFoundError, match=r"none': .* cannot load .*expected hfids/ORGANISA"):
        open_reader(config, "train")
    config.train_fraction = 0.1
    with pytest.raises(ValueError, match=r"data.train_fraction = 0.1: .*use hfds/NAME"):
        check_data(config)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_ranks_share_few_blocks(accumulate: int) -> None:
    sizes = (10_000, 3_000, 7_000)
    blocks = sum(math.ceil(size / BLOCK) for size in sizes)
    read = 0
    for rank in range(4):
        sampler = GlobalBatchSampler(
            sum(sizes), 64, seed=0, batches_done=lambda: 0, rank=rank, world_size=4,
            accumulate=accumulate, shard_sizes=sizes,
        )  # fmt: skip
        ends = [0, 10_000, 13_000]
        places = [
            (max(end for end in ends if end <= draw.index), draw.index)
            for batch in sampler
            for draw in batch
        ]
        read += len({(end, (index - end) // BLOCK) for end, index in places})
    assert read <= blocks + 32  # a lane may begin inside a block


def test_the_order_mixes_shards_and_neighbours() -> None:
    order = shard_order((5_000, 5_000), 64, torch.Generator().manual_seed(0))
    assert len(order) == len(set(order.tolist())) == 10_000 // 64 * 64
    first = order[:64]
    assert 20 < int((first < 5_000).sum()) < 44  # as many lanes begin in each shard
    assert int((first[0::2] - first[1::2]).abs().max()) < BLOCK  # two of each lane
    assert int((first[0::2] - first[1::2]).abs().min()) > 1


def test_work_is_done_ahead_and_in_order() -> None:
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        if item == 5:
            raise ValueError("five")
        return item * item

    results = ahead(work, range(10), 2)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match="five"):
        next(results)
    assert max(started) <= 7
