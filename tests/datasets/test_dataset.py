import functools
import io
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from vision.datasets.dataset import Batch, ImageDataset, collate
from vision.datasets.readers import open_reader
from vision.datasets.sampler import Draw
from vision.datasets.transforms import eval_transform, train_transform
from vision.errors import CorruptImageError, corrupt_line

TRUNCATED, TEXT, EMPTY, HALF_PNG = 2, 5, 8, 9


@pytest.fixture
def broken(folder: Path) -> Path:
    """Train images 2 (truncated JPEG), 5 (text), 8 (empty) and 9 (PNG with a broken chunk)."""
    files = sorted((folder / "train").rglob("*.png"))
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "jpeg")
    files[TRUNCATED].write_bytes(buffer.getvalue()[:-400])
    files[TEXT].write_text("<html>404</html>")
    files[EMPTY].write_bytes(b"")
    data = bytearray(files[HALF_PNG].read_bytes())
    data[60:64] = b"\0\0\0\0"
    files[HALF_PNG].write_bytes(data)
    return folder


@pytest.fixture
def make_dataset(make_config):
    def make(root: Path, **options) -> ImageDataset:
        config = make_config(name="folder", root=str(root))
        return ImageDataset(open_reader(config, "train"), eval_transform(config), 0, **options)

    return make


def load(dataset: ImageDataset, batch_size: int = 4, num_workers: int = 0) -> list[Batch]:
    return list(
        DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=[Draw(0, index) for index in range(len(dataset))],
            num_workers=num_workers,
            collate_fn=functools.partial(collate, shape=(3, 8, 8)),
        )
    )


@pytest.mark.parametrize("index", [TRUNCATED, TEXT, EMPTY, HALF_PNG])
def test_a_broken_image_stops_with_its_path(index: int, broken: Path, make_dataset) -> None:
    dataset = make_dataset(broken)
    path = sorted((broken / "train").rglob("*.png"))[index]
    with pytest.raises(CorruptImageError) as caught:
        dataset[Draw(0, index)]
    line = str(caught.value)
    assert line.startswith(f"cannot read image {path}: ")
    assert line.endswith("; remove it or set data.on_corrupt=skip")
    assert "\n" not in line
    assert corrupt_line(caught.value) == line
    assert str(pickle.loads(pickle.dumps(caught.value))) == line


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_line_is_found_again_behind_a_worker(num_workers, broken: Path, make_dataset) -> None:
    with pytest.raises(CorruptImageError) as caught:
        load(make_dataset(broken), num_workers=num_workers)
    path = sorted((broken / "train").rglob("*.png"))[TRUNCATED]
    line = corrupt_line(caught.value)
    assert line.startswith(f"cannot read image {path}: ")
    assert line.endswith("data.on_corrupt=skip")
    assert "\n" not in line


@pytest.mark.parametrize("num_workers", [0, 1])
def test_evaluation_leaves_broken_images_out_and_counts_them(
    num_workers: int, broken: Path, make_dataset
) -> None:
    batches = load(make_dataset(broken, on_corrupt="skip"), 2, num_workers)
    assert [len(batch.images) for batch in batches] == [2, 1, 1, 2, 0]
    assert [int(batch.skipped) for batch in batches] == [0, 1, 1, 0, 2]
    assert torch.cat([batch.indices for batch in batches]).tolist() == [0, 1, 3, 4, 6, 7]
    assert batches[-1].images.shape == (0, 3, 8, 8)
    assert batches[-1].targets.dtype == torch.int64


def test_training_takes_the_next_readable_image_and_counts(broken: Path, make_dataset) -> None:
    dataset = make_dataset(broken, on_corrupt="skip", replace_corrupt=True)
    batches = load(dataset, 5)
    assert [len(batch.images) for batch in batches] == [5, 5]
    assert torch.cat([batch.indices for batch in batches]).tolist() == [
        0,
        1,
        3,
        3,
        4,
        6,
        6,
        7,
        0,
        0,
    ]
    assert [int(batch.skipped) for batch in batches] == [1, 4]  # 8 passes 9 on its way to 0
    assert batches[0].targets[2] == dataset.reader.labels[3]


@pytest.mark.parametrize("replace_corrupt", [False, True])
def test_a_data_set_without_any_readable_image_is_an_error(
    replace_corrupt: bool, folder: Path, make_dataset
) -> None:
    for path in (folder / "train").rglob("*.png"):
        path.write_bytes(b"no")
    dataset = make_dataset(folder, on_corrupt="skip", replace_corrupt=replace_corrupt)
    with pytest.raises(CorruptImageError, match="cannot read any of 10 images in a row") as caught:
        load(dataset, num_workers=1)
    assert corrupt_line(caught.value).startswith("cannot read any of 10 images")


def test_a_decompression_bomb_is_a_broken_image(folder: Path, make_dataset, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(CorruptImageError, match="exceeds limit"):
        make_dataset(folder)[Draw(0, 0)]


def test_a_file_that_is_gone_is_named(folder: Path, make_dataset) -> None:
    dataset = make_dataset(folder)
    path = Path(dataset.reader.filename(0))
    path.unlink()
    with pytest.raises(CorruptImageError, match=rf"{path}: .*No such file"):
        dataset[Draw(0, 0)]


def test_samples_depend_on_seed_epoch_and_index_alone(folder: Path, make_config) -> None:
    augment = {"auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.8, "color_jitter": 0.4}
    config = make_config(augment, name="folder", root=str(folder), interpolation="random")
    reader = open_reader(config, "train")

    def image(seed: int, epoch: int, index: int) -> torch.Tensor:
        dataset = ImageDataset(reader, train_transform(config), seed)
        dataset.__getitems__([Draw(9, 4)] * torch.randint(3, ()).item())  # must not matter
        return dataset[Draw(epoch, index)].image

    assert torch.equal(image(0, 1, 2), image(0, 1, 2))
    assert not torch.equal(image(0, 1, 2), image(0, 2, 2))
    assert not torch.equal(image(0, 1, 2), image(1, 1, 2))


def test_loading_leaves_the_global_generators_alone(folder: Path, make_config) -> None:
    config = make_config({"re_prob": 1.0}, name="folder", root=str(folder))
    dataset = ImageDataset(open_reader(config, "train"), train_transform(config), 0)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dataset[Draw(0, 0)]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("source", ["1", "L", "P", "RGBA", "CMYK", "RGB"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_any_kind_of_image_is_converted(source, mode, folder, make_config) -> None:
    config = make_config(name="folder", root=str(folder), in_chans=1 if mode == "L" else 3)
    reader = open_reader(config, "train")
    Image.new("RGB", (9, 9), (255, 255, 255)).convert(source).save(reader.filename(0), "tiff")
    image = ImageDataset(reader, eval_transform(config), 0, mode=mode)[Draw(0, 0)].image
    assert image.shape == (config.in_chans, 8, 8)
    assert torch.equal(image, torch.ones_like(image))
