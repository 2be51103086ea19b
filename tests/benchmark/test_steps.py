"""What the measured training steps are."""

from __future__ import annotations

import pytest
import torch

from vision.benchmark import steps
from vision.benchmark.steps import StepSettings, training_step


@pytest.mark.parametrize("norm", ["derf", "seednorm"])
def test_steps_leave_the_model_at_its_start(monkeypatch, norm):
    # trained on noise, Derf's gradients soon are no normal numbers, and steps take several times as
    # long
    made = []
    create = steps.create

    def noted(*arguments):
        made.append(create(*arguments))
        return made[-1]

    monkeypatch.setattr(steps, "create", noted)
    settings = StepSettings("ViT", "classify", "vit_tiny_patch16_224", 2, 32, 3, {"depth": 1})
    step = training_step(settings, norm, False, torch.device("cpu"), torch.float32)
    (task,) = made
    before = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    step()
    step()
    assert all(p.grad is not None and p.grad.any() for p in task.model.head.parameters())
    for name, p in task.model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name], rtol=0, atol=1e-20, msg=name)
