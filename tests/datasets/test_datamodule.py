import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn

from vision.config.schema import DataConfig
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.dataset import Batch
from vision.datasets.sampler import split_batch

STRONG = {"auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.8, "color_jitter": 0.4}
LOOP = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
}


@pytest.fixture
def digits(make_config) -> DataConfig:
    return make_config(STRONG, name="digits", in_chans=1, test_split="test", interpolation="random")


def module(config: DataConfig, total: int = 64, **options) -> ImageDataModule:
    return ImageDataModule(config, **{"seed": 0, "batch_size_total": total, **options})


class Watcher(pl.LightningModule):
    """Records the training batches; saves a checkpoint after `save_after` of them."""

    def __init__(self, save_after: int | None = None, path: Path | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(192, 1)
        self.batches: list[Batch] = []
        self.save_after, self.path = save_after, path

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.batches.append(batch)
        return self.layer(batch.images.flatten(1)).mean()

    def on_train_batch_end(self, *_: object) -> None:
        if len(self.batches) == self.save_after:
            self.trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self) -> None:
        self.on_train_batch_end()

    def validation_step(self, batch: Batch, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b)
        for x, y in zip(first, second, strict=True)
        for a, b in zip([*x[:4], *x.draws], [*y[:4], *y.draws], strict=True)
    )


def fit(data: ImageDataModule, accumulate: int, watcher: Watcher, checkpoint=None) -> list[Batch]:
    trainer = pl.Trainer(max_epochs=2, accumulate_grad_batches=accumulate, **LOOP)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(watcher, datamodule=data, ckpt_path=checkpoint, weights_only=checkpoint is None)
    assert not [str(w.message) for w in caught if "not resumable" in str(w.message)]
    return watcher.batches


@pytest.mark.parametrize("num_workers", [1, 2])
def test_batches_are_bit_identical_for_any_number_of_workers(digits, num_workers: int) -> None:
    expected = list(module(digits).train_dataloader())
    digits.num_workers = num_workers
    assert len(expected) == 1257 // 64
    assert equal(list(module(digits).train_dataloader()), expected)


@pytest.mark.parametrize(
    ("save_after", "num_workers"), [(1, 0), (3, 0), (3, 1), (4, 0), (5, 0), (6, 1), (8, 0)]
)
def test_a_resumed_run_sees_the_batches_of_the_uninterrupted_one(
    folder: Path, tmp_path: Path, make_config, save_after: int, num_workers: int
) -> None:
    config = make_config(STRONG, name="folder", root=str(folder), num_workers=num_workers)
    options = {"total": 4, "batch_size_device": 2}  # 2 optimizer steps of 2, so 4 per epoch
    whole = fit(module(config, **options), 2, Watcher(save_after, tmp_path / "last.ckpt"))
    assert len(whole) == 8
    rest = fit(module(config, **options), 2, Watcher(), tmp_path / "last.ckpt")
    assert equal(rest, whole[save_after:])


def test_two_ranks_see_the_global_batches_of_one(digits, monkeypatch: pytest.MonkeyPatch) -> None:
    one = [set(batch.indices.tolist()) for batch in module(digits).train_dataloader()]
    ranks = []
    for rank in range(2):
        data = module(digits, batch_size_device=16)
        monkeypatch.setattr(data, "_rank_and_world", lambda rank=rank: (rank, 2))
        ranks.append([batch.indices.tolist() for batch in data.train_dataloader()])
    assert split_batch(64, 16, 2) == (16, 2)
    for step, expected in enumerate(one):
        rows = [rank[2 * step + m] for rank in ranks for m in range(2)]
        assert {index for row in rows for index in row} == expected


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_covers_each_image_once(digits, world_size: int, monkeypatch) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        data = module(digits, eval_batch_size=50)
        monkeypatch.setattr(data, "_rank_and_world", lambda rank=rank: (rank, world_size))
        seen += torch.cat([batch.indices for batch in data.test_dataloader()]).tolist()
    assert sorted(seen) == list(range(360))


def test_lightning_predicts_each_image_once_and_in_order(digits) -> None:
    class Predictor(Watcher):
        def predict_step(self, batch: Batch) -> torch.Tensor:
            return batch.indices

    trainer = pl.Trainer(**LOOP)
    indices = torch.cat(trainer.predict(Predictor(), datamodule=module(digits)))
    assert indices.tolist() == list(range(360))


def test_a_pass_over_a_loader_leaves_the_global_generator_alone(digits) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    data = module(digits)
    list(data.val_dataloader())
    next(iter(data.train_dataloader()))
    assert torch.equal(torch.rand(3), expected)


def test_digits_are_described_in_one_line(digits) -> None:
    data = module(digits)
    assert data.describe() == (
        "digits (scikit-learn): 1257 train / 180 validation / 360 test images of 8x8x1, 10 classes"
    )
    digits.split_seed, digits.img_size = 7, 32
    assert (
        module(digits)
        .describe()
        .endswith(" images of 8x8x1, resized to 32x32, 10 classes, split by seed 7")
    )
    assert data.sizes == {"train": 1257, "validation": 180, "test": 360}
    assert data.num_classes == 10
    assert data.class_names == [str(i) for i in range(10)]


def test_the_test_split_defaults_to_the_validation_split(make_config) -> None:
    data = module(make_config(name="digits", in_chans=1))
    images = torch.cat([batch.images for batch in data.test_dataloader()])
    assert images.shape == (180, 1, 8, 8)
    assert data.sizes == {"train": 1257, "validation": 180}


def test_folders_are_described_with_their_root(folder: Path, make_config) -> None:
    data = module(make_config(name="folder", root=str(folder)), 4)
    assert data.describe() == (
        f"folder ({folder}): 10 train / 5 validation images of various sizes, resized to 8x8, "
        "3 classes"
    )


def test_classes_that_no_training_image_has_are_counted(folder: Path, make_config) -> None:
    data = module(make_config(name="folder", root=str(folder), num_classes=5), 4)
    assert data.describe().endswith("resized to 8x8, 5 classes (2 of no training image)")
    config = make_config(name="digits", in_chans=1, num_classes=11, test_split="test")
    assert module(config).describe().endswith("8x8x1, 11 classes (1 of no training image)")


def test_a_split_that_lacks_a_class_keeps_the_numbers_of_training(folder, make_config) -> None:
    for path in (folder / "val" / "bee").iterdir():
        path.unlink()
    data = module(make_config(name="folder", root=str(folder)), 4)
    targets = torch.cat([batch.targets for batch in data.val_dataloader()])
    assert sorted(targets.tolist()) == [0, 0, 2]
    assert data.class_names == ["ant", "bee", "cat"]


def test_a_class_that_training_lacks_is_refused(folder: Path, make_config) -> None:
    (folder / "val" / "dog").mkdir()
    Image.new("L", (4, 4)).save(folder / "val" / "dog" / "1.png")
    with pytest.raises(
        ValueError, match=r"data.val_split = 'validation': .*training has not \(dog\)"
    ):
        module(make_config(name="folder", root=str(folder)), 4).setup()


def test_classes_are_counted_from_labels_where_they_have_no_names(
    tmp_path: Path, write_tar, make_config
) -> None:
    write_tar(tmp_path / "train-0.tar", {"a.png": b"", "a.cls": b"4", "b.png": b"", "b.cls": b"0"})
    write_tar(tmp_path / "val-0.tar", {"a.png": b"", "a.cls": b"2"})
    config = make_config(name="wds", root=str(tmp_path))
    data = module(config, 2)
    assert data.num_classes == 5
    assert data.class_names == ["0", "1", "2", "3", "4"]
    config.num_classes = 1000
    assert module(config, 2).num_classes == 1000
    config.num_classes = 4
    with pytest.raises(
        ValueError, match=r"data.num_classes = 4: .*'train' .*class 4.*to 5 or more"
    ):
        module(config, 2).setup()
    write_tar(tmp_path / "val-0.tar", {"a.png": b"", "a.cls": b"-1"})
    config.num_classes = None
    with pytest.raises(ValueError, match=r"data.val_split = 'validation': .*class -1"):
        module(config, 2).setup()


def test_an_unknown_number_of_classes_is_asked_for(make_config) -> None:
    data = module(make_config(name="digits", in_chans=1))
    data.setup()
    data._readers["train"].class_names = data._readers["train"].labels = None
    with pytest.raises(ValueError, match=r"data.num_classes = null: digits does not say"):
        _ = data.num_classes


def test_a_batch_larger_than_the_train_split_is_refused(digits) -> None:
    with pytest.raises(ValueError, match=r"trainer.batch_size_total = 2048: .*to 1257 or less"):
        module(digits, 2048).train_dataloader()


def test_corrupt_images_are_counted_in_training_batches(folder: Path, make_config) -> None:
    next((folder / "train" / "ant").iterdir()).write_bytes(b"no image")
    config = make_config(name="folder", root=str(folder), on_corrupt="skip", num_workers=1)
    batches = list(module(config, 10).train_dataloader())
    assert [len(batch.images) for batch in batches] == [10]
    assert int(batches[0].skipped) == 1
