"""Every norm there is trains and evaluates an MAE and a DiT, or is refused in one line."""

import re

import pytest
import torch

from vision.config import Config
from vision.datasets.dataset import Batch
from vision.norms import Norm, list_norms
from vision.tasks.base import VisionTask
from vision.tasks.dit import DiTTask
from vision.tasks.mae import MAETask

REFUSED = {  # task and norm: why
    (MAETask, "evonorm_s0"): "contains an activation, and the decoder has no norm behind one; set",
    (DiTTask, "evonorm_s0"): "contains an activation, and a DiT has no norm behind one",
}


def batch(seed: int) -> Batch:
    images = torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    numbers = torch.arange(6)
    return Batch(images, numbers % 3, numbers, torch.tensor(0))


def small(kind: type[VisionTask], norm: str) -> VisionTask:
    config = Config(task="dit" if kind is DiTTask else "mae")
    config.norm.name, config.norm.options = norm, {}
    config.model.name = "dit_s_4" if kind is DiTTask else "vit_tiny_patch16_224"
    config.model.patch_size, config.model.embed_dim = 4, 32
    config.model.depth, config.model.num_heads = 2, 2
    config.model.mlp_norm = True if kind is MAETask else None
    config.data.img_size, config.data.in_chans = 16, 1
    config.data.mean, config.data.std = [0.5], [0.5]
    config.mae.decoder_embed_dim, config.mae.decoder_depth = 16, 1
    config.mae.decoder_num_heads, config.ema.decay = 2, 0.5
    torch.manual_seed(0)
    return kind(config, ["a", "b", "c"], steps_per_epoch=2)


@pytest.mark.parametrize("norm", list_norms())
@pytest.mark.parametrize("kind", [MAETask, DiTTask])
def test_two_steps_and_an_evaluation_or_one_clear_line(kind: type[VisionTask], norm: str) -> None:
    if (kind, norm) in REFUSED:
        with pytest.raises(ValueError, match=re.escape(REFUSED[kind, norm])) as refusal:
            small(kind, norm)
        assert "\n" not in str(refusal.value)
        return
    task = small(kind, norm).train()
    before = {name: value.clone() for name, value in task.model.named_parameters()}
    optimizer = torch.optim.AdamW(task.model.parameters(), 1e-3)
    for step in range(2):
        for module in task.model.modules():
            if isinstance(module, Norm):
                module.follow(step / 2)
        optimizer.zero_grad()
        task.compute_loss(batch(step)).backward()
        optimizer.step()
        task.ema.update(task.model, step=step)
    learned = {name for name, p in task.model.named_parameters() if p.grad is not None}
    assert learned == {name for name, p in task.model.named_parameters() if p.requires_grad}
    assert any(not torch.equal(value, before[n]) for n, value in task.model.named_parameters())
    with torch.no_grad():
        task.eval().evaluate_batch(batch(2))
    metrics = task.compute_metrics()
    assert metrics and all(value.isfinite() for value in metrics.values())
