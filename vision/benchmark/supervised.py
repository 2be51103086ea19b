"""A supervised training step of a timm model, which other subjects compare theirs with."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.benchmark import command_line
from vision.benchmark.steps import CLASSES, HEADS
from vision.environment import choose_device
from vision.norms import convert_norms


@dataclass(frozen=True)
class ModelSettings:
    """What is trained, for a few steps on random images."""

    model: str = "vit_base_patch16_224"
    batch: int = 16
    img_size: int = 224
    dtype: str = "float32"  # of autocast where it is not float32
    device: str = "cpu"

    @classmethod
    def given(cls, a: Namespace) -> ModelSettings:
        """Those of the command line. Raises ValueError for a device that is not here."""
        return cls(a.model, a.batch, a.img_size, a.dtype, str(choose_device(a.device)))


def add_model_arguments(parser: ArgumentParser, size: str, batch: int, rounds: int) -> None:
    """Add the arguments of `ModelSettings`; `size` as in timm's ViT names."""
    command_line.add_arguments(parser, batch, rounds)
    parser.add_argument("--model", default=f"vit_{size}_patch16_224", help="a timm name")
    parser.add_argument("--img-size", type=int, default=224, help="pixels")


class TrainingStep:
    """Called, it does one step: forward, `loss` on images, backward, `before_optimizer`, AdamW."""

    def __init__(
        self, settings: ModelSettings, model: nn.Module, loss: Callable[[Tensor], Tensor]
    ) -> None:
        self._loss, self._settings = loss, settings
        self.model = model.to(settings.device).train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        shape = (settings.batch, 3, settings.img_size, settings.img_size)
        self._images = torch.randn(shape, device=settings.device)

    def __call__(self, before_optimizer: Callable[[], object] = lambda: None) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        kind, dtype = torch.device(self._settings.device).type, self._settings.dtype
        with torch.autocast(kind, getattr(torch, dtype), enabled=dtype != "float32"):
            loss = self._loss(self._images)
        loss.backward()
        before_optimizer()
        self.optimizer.step()


def supervised_step(settings: ModelSettings, norm: str) -> TrainingStep:
    """A step of timm's model with another norm, on 1000 classes."""
    torch.manual_seed(0)
    vit = settings.model.startswith("vit_")
    size: dict[str, Any] = {"img_size": settings.img_size} if vit else {}
    model = timm.create_model(settings.model, num_classes=CLASSES, **size)
    options: dict[str, Any] = {"num_heads": HEADS} if norm == "seednorm" else {}
    convert_norms(model, norm, **options)
    labels = torch.randint(CLASSES, (settings.batch,), device=settings.device)
    return TrainingStep(settings, model, lambda images: F.cross_entropy(model(images), labels))
