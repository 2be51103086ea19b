"""Pre-training and probing tasks without a trainer."""

import torch

from vision.config import Config
from vision.datasets.dataset import Batch
from vision.tasks.classify import ClassifyTask
from vision.tasks.mae import MAETask
from vision.tasks.optimizer import create_optimizer, peak_lr


def small(task: str) -> Config:
    config = Config(task=task)  # type: ignore[arg-type]
    config.model.name, config.model.patch_size = "vit_tiny_patch16_224", 4
    config.model.embed_dim, config.model.depth, config.model.num_heads = 48, 2, 3
    config.data.img_size, config.data.in_chans = 16, 1
    config.mae.decoder_embed_dim, config.mae.decoder_depth = 32, 1
    config.mae.decoder_num_heads = 2
    return config


def batch(count: int, first: int = 0) -> Batch:
    images = torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(first))
    numbers = torch.arange(first, first + count)
    return Batch(images, numbers % 3, numbers, torch.tensor(0))


def test_an_images_mask_depends_on_its_index_alone() -> None:
    task = MAETask(small("mae"), ["a", "b", "c"], steps_per_epoch=1)
    together = torch.stack([task.draws(index, None)[0] for index in (3, 4, 5)])
    assert torch.equal(together[1:2], task.draws(4, None)[0][None])
    assert not torch.equal(together[0], together[1])


def test_the_evaluated_loss_does_not_depend_on_batches() -> None:
    task = MAETask(small("mae"), ["a", "b", "c"], steps_per_epoch=1).eval()
    whole = batch(6)
    with torch.no_grad():
        task.evaluate_batch(whole)
        expected = task.compute_metrics()["loss"]
        for part in (slice(0, 4), slice(4, 6)):
            task.evaluate_batch(Batch(*(t[part] for t in whole[:3]), whole.skipped))
        torch.testing.assert_close(task.compute_metrics()["loss"], expected, atol=1e-6, rtol=0)


def test_base_lr_is_scaled_by_the_batch() -> None:
    config = small("mae")
    config.optim.base_lr, config.trainer.batch_size_total = 1.5e-4, 4096
    assert peak_lr(config.optim, config.trainer.batch_size_total) == 1.5e-4 * 16


def probe() -> ClassifyTask:
    config = small("classify")
    config.model.linear_probe = True
    config.optim.opt, config.optim.base_lr, config.optim.weight_decay = "lars", 0.1, 0.0
    return ClassifyTask(config, ["a", "b", "c"], steps_per_epoch=1)


def test_a_linear_probe_trains_the_head_alone() -> None:
    task = probe().train()
    assert not any(m.training for n, m in task.model.named_modules() if not n.startswith("head"))
    assert task.model.head[0].training
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    optimizer = create_optimizer(task.model, task.config.optim, 256)
    task.compute_loss(batch(6)).backward()
    optimizer.step()
    changed = {k for k, v in task.model.state_dict().items() if not torch.equal(v, before[k])}
    statistics = {"head.0.running_mean", "head.0.running_var", "head.0.num_batches_tracked"}
    assert changed == {"head.1.weight", "head.1.bias", *statistics}
    assert {n for n, p in task.model.named_parameters() if p.grad is not None} == {
        "head.1.weight", "head.1.bias",
    }  # fmt: skip


def test_lars_scales_the_step_to_the_weights_without_weight_decay() -> None:
    task = probe()
    optimizer = create_optimizer(task.model, task.config.optim, 256)
    weight = task.model.head[1].weight
    before = weight.detach().clone()
    task.compute_loss(batch(6)).backward()
    optimizer.step()
    # You et al. 2017: |step| = lr x 0.001 x |weight|, whatever the gradient's size
    expected = 0.1 * 0.001 * before.norm()
    torch.testing.assert_close((weight - before).norm(), expected, rtol=1e-3, atol=0)
