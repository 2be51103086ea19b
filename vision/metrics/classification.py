"""Accuracy and loss over a data set; each sample counts once, however it was batched."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy


class ClassificationMetrics(nn.Module):
    """Top-1, top-5 (for more than five classes) and mean cross-entropy.

    `compute` adds the sums of all ranks, so every sample has the same weight, however unevenly
    samples are spread over batches and ranks.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.top1 = MulticlassAccuracy(num_classes, average="micro")
        self.top5: MulticlassAccuracy | None = None
        if num_classes > 5:
            self.top5 = MulticlassAccuracy(num_classes, top_k=5, average="micro")
        self.loss = MeanMetric(nan_strategy="disable")  # a NaN must show in the mean

    @torch.no_grad()
    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Add logits [B, num_classes] and class indices [B]; B may be 0."""
        if len(targets) == 0:
            return
        logits = logits.float()
        ranked = last_if_not_finite(logits, targets)
        self.top1.update(ranked, targets)
        if self.top5 is not None:
            self.top5.update(ranked, targets)
        self.loss.update(F.cross_entropy(logits, targets, reduction="none"))

    def compute(self) -> dict[str, Tensor]:
        """`top1` and `top5` in percent, `loss` in nats; scalars over all ranks."""
        values = {"top1": 100 * self.top1.compute(), "loss": self.loss.compute()}
        if self.top5 is not None:
            values["top5"] = 100 * self.top5.compute()
        return values

    def reset(self) -> None:
        """Start over."""
        for metric in (self.top1, self.top5, self.loss):
            if metric is not None:
                metric.reset()


def last_if_not_finite(logits: Tensor, targets: Tensor) -> Tensor:
    """`logits` [B, C] with the class `targets` [B] behind all others where a row is not finite.

    The largest of numbers among which one is NaN would be the first NaN: class 0, right or wrong.
    """
    finite = torch.isfinite(logits).all(1, keepdim=True)
    behind = torch.zeros_like(logits).scatter_(1, targets.unsqueeze(1), -1.0)
    return torch.where(finite, logits, behind)


def per_class_accuracy(confusion: list[list[int]]) -> list[float | None]:
    """Accuracy of each class in percent; None for a class without images.

    `confusion`: counts [true, predicted].
    """
    totals = [sum(row) for row in confusion]
    hits = [row[label] for label, row in enumerate(confusion)]
    return [100 * hit / n if n else None for hit, n in zip(hits, totals, strict=True)]
