"""Norms with running statistics in the tasks: what moves the statistics, and what must not."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning.plugins import HalfPrecision
from torch import Tensor, nn

from vision.checkpoints.export import export_model, load_exported
from vision.config import Config
from vision.datasets.dataset import Batch
from vision.norms import Norm, get_norm, list_norms
from vision.norms.statistics import describe_statistics
from vision.tasks.base import VisionTask
from vision.tasks.classify import ClassifyTask
from vision.tasks.dit import DiTTask
from vision.tasks.mae import MAETask

RUNNING = [name for name in list_norms() if getattr(get_norm(name), "running", False)]
CLASSES = ["a", "b", "c"]


def small(task: type[VisionTask], norm: str, **model: bool) -> VisionTask:
    name = {ClassifyTask: "classify", MAETask: "mae", DiTTask: "dit"}[task]
    config = Config(task=name)  # type: ignore[arg-type]
    config.norm.name, config.norm.options = norm, {}
    config.model.name = "dit_s_4" if name == "dit" else "vit_tiny_patch16_224"
    config.model.patch_size, config.model.embed_dim = 4, 32
    config.model.depth, config.model.num_heads = 1, 2
    config.data.img_size, config.data.in_chans = 16, 1
    config.data.mean, config.data.std = [0.5], [0.5]
    config.mae.decoder_embed_dim, config.mae.decoder_depth = 16, 1
    config.mae.decoder_num_heads, config.ema.decay = 2, 0.5
    for key, value in model.items():
        setattr(config.model, key, value)
    torch.manual_seed(0)
    return task(config, CLASSES, steps_per_epoch=10).train()


def batch(seed: int = 0) -> Batch:
    images = torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    numbers = torch.arange(6)
    return Batch(images, numbers % 3, numbers, torch.tensor(0))


def state(model: nn.Module) -> dict[str, Tensor]:
    norms = [(n, m) for n, m in model.named_modules() if isinstance(m, Norm) and m.running]
    return {f"{n}.{k}": b.clone() for n, m in norms for k, b in m.named_buffers()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    return [key for key in before if not torch.equal(before[key], after[key])]


@pytest.mark.parametrize("norm", RUNNING)
@pytest.mark.parametrize("task", [ClassifyTask, MAETask, DiTTask])
def test_training_moves_the_statistics_and_evaluation_does_not(task, norm):
    trained = small(task, norm)
    before = state(trained.model)
    loss = trained.compute_loss(batch())
    loss.backward()
    after = state(trained.model)
    assert loss.isfinite() and moved(before, after)
    with torch.no_grad():
        trained.eval().evaluate_batch(batch(1))
    assert not moved(after, state(trained.model))
    assert all(value.isfinite() for value in trained.compute_metrics().values())


def test_statistics_over_a_part_of_the_batch_are_said():
    model = small(ClassifyTask, "batchnorm").model
    assert describe_statistics(model, 64, 1) is None
    assert describe_statistics(small(ClassifyTask, "layernorm").model, 64, 4) is None
    said = "3 norms take statistics over 16 images, as the batch of 64 is accumulated in 4 parts"
    assert describe_statistics(model, 64, 4) == said


@pytest.mark.parametrize("norm", RUNNING)
def test_the_frozen_encoder_of_a_linear_probe_keeps_its_statistics(norm):
    probe = small(ClassifyTask, norm, linear_probe=True)
    before = state(probe.model)
    probe.compute_loss(batch()).backward()
    assert before and not moved(before, state(probe.model))


@pytest.mark.parametrize("norm", RUNNING)
@pytest.mark.parametrize("foreach", [True, False])
def test_the_averaged_model_gets_the_statistics_too(norm, foreach):
    task = small(ClassifyTask, norm)
    task.ema.foreach = foreach  # false with sharded weights
    for step in range(30):
        task.compute_loss(batch(step % 2))
        task.ema.update(task.model, step=step)
    for step in range(20):
        task.ema.update(task.model, step=100 + step)
    task.eval()
    with torch.no_grad():
        ours, average = (model(batch().images) for model in task.evaluated_models().values())
    torch.testing.assert_close(average, ours, rtol=1e-4, atol=1e-4)
    for key, value in state(task.ema.module).items():
        torch.testing.assert_close(value, state(task.model)[key], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", RUNNING)
def test_exported_models_keep_the_statistics(norm, tmp_path: Path):
    task = small(ClassifyTask, norm)
    task.compute_loss(batch())
    model = task.model.eval()
    export_model(model, task.config, tmp_path, CLASSES)
    with torch.no_grad():
        assert torch.equal(load_exported(tmp_path)(batch().images), model(batch().images))


@pytest.mark.parametrize("norm", RUNNING)
def test_half_precision_keeps_the_statistics_in_float32(norm):
    plugin, task = HalfPrecision("bf16-true"), small(ClassifyTask, norm)
    plugin.convert_module(task)
    with plugin.forward_context():
        images = plugin.convert_input(batch().images)
        task.model(images).sum().backward()
    values = state(task.model).values()
    assert {value.dtype for value in values if value.is_floating_point()} == {torch.float32}
    assert task.model.head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("norm", RUNNING)
def test_compiled_models_do_what_the_plain_ones_do(norm):
    torch.compiler.reset()
    plain, compiled = small(ClassifyTask, norm), small(ClassifyTask, norm)
    compiled.model.compile(backend="eager")
    for step in range(2):
        losses = [task.compute_loss(batch(step)) for task in (plain, compiled)]
        [loss.backward() for loss in losses]
        torch.testing.assert_close(*losses)
    for key, value in state(plain.model).items():
        torch.testing.assert_close(state(compiled.model)[key], value, rtol=1e-4, atol=1e-5)
