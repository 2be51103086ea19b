"""Figures do not depend on how the samples were batched."""

import pytest
import torch
from torch.nn import functional as F

from vision.metrics.classification import ClassificationMetrics, per_class_accuracy


@pytest.mark.parametrize("sizes", [[23], [10, 10, 3], [1] * 23, [0, 20, 0, 3]])
def test_uneven_batches_weigh_by_their_samples(sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(23, 7, generator=generator)
    targets = torch.randint(0, 7, (23,), generator=generator)
    metrics = ClassificationMetrics(7)
    for part, labels in zip(logits.split(sizes), targets.split(sizes), strict=True):
        metrics.update(part, labels)
    values = metrics.compute()
    top5 = (logits.topk(5).indices == targets[:, None]).any(1).float().mean()
    assert values["top1"] == pytest.approx(100 * (logits.argmax(1) == targets).float().mean())
    assert values["top5"] == pytest.approx(100 * float(top5))
    assert values["loss"] == pytest.approx(float(F.cross_entropy(logits, targets)), rel=1e-5)


def test_top5_needs_more_than_five_classes() -> None:
    metrics = ClassificationMetrics(5)
    metrics.update(torch.eye(5), torch.arange(5))
    assert metrics.compute().keys() == {"top1", "loss"}


def test_reset_forgets() -> None:
    metrics = ClassificationMetrics(6)
    metrics.update(torch.eye(6), torch.arange(6))
    metrics.reset()
    metrics.update(torch.eye(6), torch.arange(6).flip(0))
    assert metrics.compute()["top1"] == 0


def test_accuracy_per_class_comes_from_the_confusion_and_knows_absent_classes() -> None:
    assert per_class_accuracy([[3, 1, 0], [0, 2, 0], [0, 0, 0]]) == [75.0, 100.0, None]
