"""Where images come from: a folder, a data config, memory, or a pipeline that generates them.

Images in .npz files are in `vision.evaluation.generative.array_source`.
"""

from __future__ import annotations

import hashlib
import itertools
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

from vision.config import load_config
from vision.config.schema import DataConfig
from vision.datasets.check import check_data
from vision.datasets.image_files import list_images, read_file
from vision.datasets.reader import Reader, read_image
from vision.datasets.readers import open_reader
from vision.datasets.transforms import eval_pixels
from vision.diffusion.generate import Sampling, check_sampling, generate
from vision.notices import notice


class ImageSource(Protocol):
    """Images, uint8 RGB; grey ones have three equal channels."""

    name: str

    def __len__(self) -> int: ...

    def batches(self, indices: Sequence[int], batch_size: int) -> Iterator[Tensor]:
        """Images [B, 3, H, W] uint8 of ascending `indices`, in their order.

        A batch ends early where the size of the images changes.
        """
        ...

    def fingerprint(self) -> str | None:
        """A hash of the content; None where statistics of it are not worth keeping."""
        ...


class _FileSource(Dataset[Tensor]):
    """Images that are decoded one by one: item i is image i, [3, H, W] uint8."""

    name: str
    num_workers: int

    @abstractmethod
    def __len__(self) -> int: ...

    def batches(self, indices: Sequence[int], batch_size: int) -> Iterator[Tensor]:
        loader = DataLoader(
            self,
            batch_size=batch_size,
            sampler=indices,
            num_workers=self.num_workers,
            collate_fn=list,
            generator=torch.Generator(),  # else each pass draws from the global one
        )
        for images in loader:
            for _, equal in itertools.groupby(images, key=lambda image: image.shape):
                yield torch.stack(list(equal))


class FolderSource(_FileSource):
    """All images below a folder, in the order of their paths."""

    def __init__(self, folder: Path, num_workers: int = 0) -> None:
        self.name = str(folder)
        self.num_workers = num_workers
        found = list_images(folder)
        passed = found.passed_over()
        self.files = sorted(Path(path).resolve() for path in found.files)
        if not self.files:
            raise FileNotFoundError(
                f"{folder}: no images; expected files with an ending of docs/data.md"
                f"{f' (passed over: {passed})' if passed else ''}"
            )
        if passed:
            notice(f"{folder}: passed over {passed}")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return pil_to_tensor(read_file(self.files[index], "RGB"))

    def fingerprint(self) -> str:
        digest = hashlib.sha256(b"folder 2")  # 1: 16 bits were cut at 255
        for file in self.files:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()


class DataSource(_FileSource):
    """One split of a data config, through its evaluation transform.

    Images that have `data.img_size` already stay as they are.
    """

    def __init__(self, name: str, config: DataConfig, split: str) -> None:
        names = {
            "train": config.train_split,
            "validation": config.val_split,
            "test": config.test_split or config.val_split,
        }
        if config.name == "latents":
            raise ValueError("data.name = latents: no images; name the data they were made from")
        self.config = config
        self.size = config.img_size
        self.transform = eval_pixels(config)
        # what the pixels depend on besides the files
        self.settings = {
            "img_size": config.img_size,
            "interpolation": config.interpolation,
            "crop_pct": config.crop_pct,
        }
        self.num_workers = config.num_workers
        self.reader: Reader = open_reader(config, names[split])
        self.name = f"{name} {split}"

    @classmethod
    def load(cls, file: str, overrides: Sequence[str], split: str) -> DataSource:
        """The data of a config file. Raises ConfigError, ValueError or FileNotFoundError."""
        loaded = load_config([file], overrides)
        try:
            check_data(loaded.config.data)
            return cls(file, loaded.config.data, split)
        except (ValueError, FileNotFoundError) as error:
            raise loaded.locate(error) from None

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Tensor:
        image, _ = read_image(self.reader, index, "RGB")
        if image.size == (self.size, self.size):
            return pil_to_tensor(image)
        return self.transform(image)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"data 2 {self.settings}".encode())
        for index in range(len(self.reader)):
            image, _ = self.reader[index]
            if isinstance(image, Image.Image):
                digest.update(f"{image.mode} {image.size}".encode() + image.tobytes())
            else:
                with image:
                    digest.update(hashlib.sha256(image.read()).digest())
        return digest.hexdigest()


class TensorSource:
    """Images [N, 1 or 3, H, W] uint8 in memory. Raises ValueError for any other tensor."""

    def __init__(self, images: Tensor) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"images: expected uint8 [N, 1 or 3, H, W] from 0 to 255, got "
                f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            )
        if len(images) == 0:
            raise ValueError("images: the tensor holds none; expected at least one")
        self.name = f"tensor of {len(images)} images"
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, indices: Sequence[int], batch_size: int) -> Iterator[Tensor]:
        chosen = torch.as_tensor(list(indices))
        for part in chosen.split(batch_size):
            yield self.images[part].expand(-1, 3, -1, -1)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"tensor {list(self.images.shape)}".encode())
        digest.update(self.images.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class PipelineSource:
    """Images that a pipeline generates; image i has class i mod the number of classes.

    Raises ValueError for what the pipeline cannot be sampled with.
    """

    def __init__(self, name: str, pipeline: Any, number: int, sampling: Sampling) -> None:
        check_sampling(pipeline, sampling)
        self.name = name
        self.pipeline = pipeline
        self.number = number
        self.sampling = sampling

    def __len__(self) -> int:
        return self.number

    def batches(self, indices: Sequence[int], batch_size: int) -> Iterator[Tensor]:
        classes = self.pipeline.transformer.config.num_classes
        chosen = [int(index) for index in indices]
        labels = [index % classes for index in chosen]
        for images in generate(self.pipeline, labels, chosen, self.sampling, batch_size):
            yield images.expand(-1, 3, -1, -1)

    def fingerprint(self) -> None:
        return None
