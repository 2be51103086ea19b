"""`ImageDataModule`: the data of one configuration as loaders for Lightning."""

from __future__ import annotations

import functools
import signal
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import BatchSampler, DataLoader, Sampler

from vision.config.schema import DataConfig
from vision.datasets.check import IN_PACKAGES, check_data
from vision.datasets.dataset import ImageDataset, ResumableLoader, Sample, collate
from vision.datasets.draws import RandomDraws, with_draws
from vision.datasets.image_files import image_mode
from vision.datasets.latents import LatentDataset
from vision.datasets.reader import Reader
from vision.datasets.readers import open_reader
from vision.datasets.sampler import (
    Draw,
    EvalSampler,
    GlobalBatchSampler,
    ReadAheadSampler,
    split_batch,
    steps_per_epoch,
)
from vision.datasets.splits import config_splits, split_key
from vision.datasets.transforms import eval_transform, train_transform
from vision.datasets.views import ReaderView, choose_fraction, with_classes


class ImageDataModule(pl.LightningDataModule):
    """Train, validation, test and predict loaders of `Batch`es.

    Needs `Trainer(use_distributed_sampler=False, accumulate_grad_batches=...)` with the second
    number of `split_batch`. Training batches depend on seed and progress only: not on
    `num_workers`, on the number of devices, or on whether the run was interrupted.

    `max_steps`: optimizer steps after which the training ends; None: no epoch is cut short.
    `batch_multiple`: micro-batches have a multiple of this many images (2 for mixup).
    `eval_batch_size` None: that of training, per device. `class_names`: the classes of a trained
    model, in its order; None takes those of the train split.
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        seed: int,
        batch_size_total: int,
        batch_size_device: int | None = None,
        max_steps: int | None = None,
        eval_batch_size: int | None = None,
        batch_multiple: int = 1,
        class_names: list[str] | None = None,
    ) -> None:
        super().__init__()
        check_data(config)
        # made here, so that an unknown augmentation is reported before data is read; latents
        # are what a VAE made of transformed images
        transforms = () if config.name == "latents" else (train_transform, eval_transform)
        self._transforms = [make(config) for make in transforms]
        self.config = config
        self.seed = seed
        self.batch_size_total = batch_size_total
        self.batch_size_device = batch_size_device
        self.max_steps = max_steps
        self.eval_batch_size = eval_batch_size
        self.batch_multiple = batch_multiple
        self._class_names = class_names
        self._readers: dict[str, Reader] = {}
        self.draws: RandomDraws | None = None  # of the task: `Batch.draws`, made by the workers

    def prepare_data(self) -> None:
        """Fetch what `data.download` allows; Lightning calls this in one process per node."""
        if self.config.download:
            for split in config_splits(self.config):
                open_reader(self.config, split)

    def setup(self, stage: str | None = None) -> None:
        """Open all splits, whatever the stage: the classes are those of the train split."""
        if self._readers:
            return
        config = self.config
        readers = {split: open_reader(config, split) for split in config_splits(config)}
        names = self._class_names or readers[config.train_split].class_names
        for split, reader in readers.items():
            readers[split] = with_classes(config, split, reader, names)
        self._readers = readers
        self._check_labels()
        if config.train_fraction < 1:
            train = readers[config.train_split]
            chosen = choose_fraction(train, config.train_fraction, self.seed)
            readers[config.train_split] = ReaderView(train, chosen)

    @property
    def num_classes(self) -> int:
        """`data.num_classes`, or as many as the train split names or, without names, uses."""
        train = self._reader(self.config.train_split)
        if self.config.num_classes is not None:
            return self.config.num_classes
        if train.class_names is not None:
            return len(train.class_names)
        if train.labels is not None:
            return max(train.labels) + 1
        raise ValueError(
            f"data.num_classes = null: {self.config.name} does not say how many classes it has; "
            "set data.num_classes"
        )

    @property
    def class_names(self) -> list[str]:
        """One name per class; its number where the data set has no name for it."""
        names = self._reader(self.config.train_split).class_names or []
        return [*names, *map(str, range(len(names), self.num_classes))][: self.num_classes]

    @property
    def sizes(self) -> dict[str, int]:
        """Images per split, by the names that the configuration gives them."""
        self.setup()
        return {split: len(reader) for split, reader in self._readers.items()}

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one epoch. Raises ValueError where the images do not fill one batch.

        (Lightning's `estimated_stepping_batches` would start the loader's workers to find out,
        before a resumed trainer knows its progress, so they would begin at the wrong batch.)
        """
        return steps_per_epoch(self.sizes[self.config.train_split], self.batch_size_total)

    def describe(self) -> str:
        """One line: data set, images per split, what an image is, classes."""
        config = self.config
        package = IN_PACKAGES.get(config.name)
        where = package[1].partition(",")[0] if package else config.root
        counts = " / ".join(f"{count} {split}" for split, count in self.sizes.items())
        size, made = self._reader(config.train_split).image_size, config.img_size
        shape = f"{size[0]}x{size[1]}x{config.in_chans}" if size else "various sizes"
        shape += "" if size == (made, made) else f", resized to {made}x{made}"
        chosen = "" if config.split_seed is None else f", split by seed {config.split_seed}"
        title = f"{config.name} ({where})" if where else config.name
        labels = self._reader(config.train_split).labels
        unseen = 0 if labels is None else self.num_classes - len(set(labels))
        classes = f"{self.num_classes} classes" + f" ({unseen} of no training image)" * (unseen > 0)
        return f"{title}: {counts} images of {shape}, {classes}{chosen}"

    def train_dataloader(self) -> ResumableLoader:
        """Loader for the rest of the epoch that the trainer is in."""
        rank, world_size = self._rank_and_world()
        dataset = self._dataset(self.config.train_split, training=True)
        sampler: Sampler[Any] = GlobalBatchSampler(
            len(dataset),
            self.batch_size_total,
            seed=self.seed,
            batches_done=self._batches_done,
            rank=rank,
            world_size=world_size,
            accumulate=self._split(world_size)[1],
            max_steps=self.max_steps,
            shard_sizes=dataset.reader.shard_sizes,
        )
        if dataset.reader.shard_sizes is not None:
            sampler = ReadAheadSampler(sampler, dataset.reader)
        drawn = with_draws(dataset, self.draws, training=True)
        return ResumableLoader(drawn, batch_sampler=sampler, **self._loader_options())

    def val_dataloader(self) -> DataLoader[Sample]:
        """Loader for the validation split: each image once over all ranks."""
        return self._eval_dataloader(self.config.val_split)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Loader for the test split; the validation split where `data.test_split` is None."""
        return self._eval_dataloader(self.config.test_split or self.config.val_split)

    def bank_dataloader(self) -> DataLoader[Sample]:
        """Loader for the training images as evaluation sees them: each once over all ranks."""
        return self._eval_dataloader(self.config.train_split)

    def predict_dataloader(self) -> DataLoader[Sample]:
        """The test loader."""
        return self.test_dataloader()

    def ordered_loader(
        self, split: str, indices: range, batch_size: int | None = None
    ) -> DataLoader[Sample]:
        """Loader for some images of a split, in order, as for evaluation, the same on all ranks."""
        draws = [Draw(0, index) for index in indices]
        size = batch_size or self.batch_size_total
        return self._in_order(split, draws, size, persistent_workers=False)

    def sample_loader(self, split: str, number: int, batch_size: int) -> DataLoader[Sample]:
        """Loader for `number` images (or all) spread evenly over a split; the first ones of a split
        that is read in its own order."""
        reader = self._reader(split)
        number = min(number, len(reader))
        step = 1 if reader.shard_sizes is not None else len(reader) // number
        return self.ordered_loader(split, range(0, number * step, step), batch_size)

    def _eval_dataloader(self, split: str) -> DataLoader[Sample]:
        rank, world_size = self._rank_and_world()
        sampler = EvalSampler(len(self._reader(split)), rank, world_size)
        return self._in_order(split, sampler, self.eval_batch_size or self._split(world_size)[0])

    def _in_order(
        self, split: str, draws: Iterable[Draw], batch_size: int, **options: Any
    ) -> DataLoader[Sample]:
        """Loader for evaluation of all `draws`; the last batch may be smaller."""
        dataset = self._dataset(split, training=False)
        drawn = with_draws(dataset, self.draws, training=False)
        options = {**self._loader_options(), **options}
        if dataset.reader.shard_sizes is None:
            return DataLoader(drawn, sampler=draws, batch_size=batch_size, **options)
        batches: Sampler[Any] = BatchSampler(draws, batch_size, drop_last=False)  # type: ignore[arg-type]
        ahead = ReadAheadSampler(batches, dataset.reader)
        return DataLoader(drawn, batch_sampler=ahead, **options)

    def _dataset(self, split: str, training: bool) -> ImageDataset | LatentDataset:
        reader, config = self._reader(split), self.config
        if config.name == "latents":
            return LatentDataset(reader, self.seed, config.augment.hflip if training else 0.0)
        return ImageDataset(
            reader,
            self._transforms[0 if training else 1],
            seed=self.seed,
            mode=image_mode(config.in_chans),
            on_corrupt=config.on_corrupt,
            replace_corrupt=training,
        )

    def _loader_options(self) -> dict[str, Any]:
        size = self.config.img_size
        workers = self.config.num_workers
        return {
            # DataLoader sets one torch thread per worker by itself
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": functools.partial(collate, shape=(self.config.in_chans, size, size)),
            # without it each pass over a loader draws from the global generator
            "generator": torch.Generator(),
            "worker_init_fn": None if self.trainer is None else _leave_signals,
        }

    def _reader(self, split: str) -> Reader:
        self.setup()
        return self._readers[split]

    def _split(self, world_size: int) -> tuple[int, int]:
        return split_batch(
            self.batch_size_total, self.batch_size_device, world_size, self.batch_multiple
        )

    def _rank_and_world(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _batches_done(self) -> int:
        if self.trainer is None:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.ready

    def _check_labels(self) -> None:
        for split, reader in self._readers.items():
            if reader.labels is None:
                continue
            lowest, highest = min(reader.labels), max(reader.labels)
            if lowest < 0:
                raise ValueError(
                    f"{split_key(self.config, split)} = {split!r}: has images of class {lowest}, "
                    "so it is not labelled; choose a split with labels"
                )
            if highest >= self.num_classes:
                raise ValueError(
                    f"data.num_classes = {self.config.num_classes}: the split {split!r} has "
                    f"images of class {highest}, counted from 0; set data.num_classes to "
                    f"{highest + 1} or more"
                )


def _leave_signals(worker: int) -> None:
    """Ignore signals that every process gets: the training process stops us."""
    for kind in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(kind, signal.SIG_IGN)
