"""A share of the training images: balanced, chosen by the seed, seen by the data module."""

from collections import Counter

from vision.config.schema import DataConfig
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.digits import DigitsReader
from vision.datasets.views import ReaderView, choose_fraction


def digits_config(fraction: float) -> DataConfig:
    return DataConfig(
        test_split="test", img_size=8, in_chans=1, mean=[0.3], std=[0.4], num_workers=0,
        train_fraction=fraction,
    )  # fmt: skip


def test_each_class_gives_the_same_number() -> None:
    reader = DigitsReader("train")
    chosen = choose_fraction(reader, 0.1, seed=0)
    assert len(chosen) == len(set(chosen)) == 120  # 125 / 10, rounded down, of each class
    assert Counter(reader.labels[i] for i in chosen) == dict.fromkeys(range(10), 12)


def test_the_seed_alone_chooses() -> None:
    reader = DigitsReader("train")
    first = choose_fraction(reader, 0.1, seed=0)
    assert first == choose_fraction(reader, 0.1, seed=0)
    assert first != choose_fraction(reader, 0.1, seed=1)


def test_the_smallest_share_has_one_image_of_each_class() -> None:
    assert len(choose_fraction(DigitsReader("train"), 1e-6, seed=0)) == 10


def test_without_labels_any_images_are_taken() -> None:
    class Unlabelled:
        labels = None
        class_names = None

        def __len__(self) -> int:
            return 50

    assert len(choose_fraction(Unlabelled(), 0.1, seed=0)) == 5


def test_the_data_module_trains_on_the_share_and_judges_on_everything() -> None:
    data = ImageDataModule(digits_config(0.1), seed=3, batch_size_total=24)
    assert data.sizes == {"train": 120, "validation": 180, "test": 360}
    assert data.steps_per_epoch == 5
    reader = DigitsReader("train")
    subset = ReaderView(reader, choose_fraction(reader, 0.1, seed=3))
    batch = next(iter(data.train_dataloader()))
    for index, target in zip(batch.indices.tolist(), batch.targets.tolist(), strict=True):
        assert subset.labels[index] == target
        assert subset[index][1] == target
        assert subset.filename(index).startswith("load_digits()")


def test_the_bank_is_every_training_image_once_and_unaugmented() -> None:
    data = ImageDataModule(digits_config(1.0), seed=0, batch_size_total=64)
    seen = [i for batch in data.bank_dataloader() for i in batch.indices.tolist()]
    assert seen == list(range(1257))
