"""Bytes, seconds and hours from a recording, by their formulas."""

import dataclasses

import pytest

from vision.config import Config
from vision.training.plan.estimate import Planner
from vision.training.plan.hardware import link_bandwidth
from vision.training.plan.images import IMAGENET, training_set
from vision.training.plan.memory import memory
from vision.training.plan.setup import Setup
from vision.training.plan.step import step


@pytest.fixture(scope="module")
def planner(small_seednorm: Config) -> Planner:
    return Planner(small_seednorm)


def test_state_is_16_bytes_per_weight_and_4_for_the_buckets_of_ddp(planner: Planner) -> None:
    recording = planner.recording("bf16-mixed")
    p = recording.parameters
    assert p == recording.trainable
    one = memory(planner.config, recording, Setup(1, 8, 1))
    eight = memory(planner.config, recording, Setup(8, 8, 1))
    assert (one.weights, one.gradients, one.moments, one.ema) == (4 * p, 4 * p, 8 * p, 0)
    assert (eight.weights, eight.gradients, eight.moments) == (4 * p, 8 * p, 8 * p)
    sharded = memory(planner.config, recording, Setup(8, 8, 1, sharded=True))
    assert sharded.weights + sharded.gradients + sharded.moments == 16 * p / 8
    averaged = dataclasses.replace(planner.config, ema=dataclasses.replace(planner.config.ema))
    averaged.ema.decay = 0.99
    assert memory(averaged, recording, Setup(1, 8, 1)).ema == 4 * p


def test_checkpointing_keeps_the_inputs_of_blocks_and_one_block(planner: Planner) -> None:
    recording = planner.recording("bf16-mixed")
    whole, less = (
        memory(planner.config, recording, Setup(1, 8, 1, checkpointing=on)).activations
        for on in (False, True)
    )
    inputs = 5 * 17 * 48 * 4 * 8  # blocks, tokens, width, float32, images
    assert inputs < less < inputs + whole / 3
    plain, again = (
        step(planner.config, recording, Setup(1, 8, 1, checkpointing=on)) for on in (False, True)
    )
    assert plain.compute < again.compute < 1.5 * plain.compute
    assert again.flops == plain.flops


def test_bytes_over_the_links_are_those_of_a_ring(planner: Planner) -> None:
    recording = planner.recording("bf16-mixed")
    p = recording.parameters
    assert step(planner.config, recording, Setup(1, 8, 1)).sent == 0
    ddp = step(planner.config, recording, Setup(8, 8, 3))
    fsdp = step(planner.config, recording, Setup(8, 8, 3, sharded=True))
    assert ddp.sent == 2 * 7 / 8 * 4 * p  # once per step
    assert fsdp.sent == 3 * (3 * 7 / 8 * 4 * p)  # per micro-batch
    assert link_bandwidth(8) == 450e9 * 0.8
    assert link_bandwidth(16) == 8 * 50e9 * 0.8  # a node's eight adapters


def test_hours_are_steps_times_seconds_times_gpus(planner: Planner) -> None:
    found = planner.on(2)
    assert found.setup == Setup(2, 32, 1)
    assert found.steps == 1257 // 64 * planner.config.trainer.epochs
    assert found.gpu_hours == pytest.approx(found.steps * found.step.seconds * 2 / 3600)
    with pytest.raises(ValueError, match=r"trainer\.batch_size_total = 64: does not divide over 3"):
        planner.on(3)


def test_images_of_a_data_set_are_known_by_name_or_asked_for(small: Config) -> None:
    data = small.data
    folder = dataclasses.replace(data, name="folder", num_classes=1000)
    latents = dataclasses.replace(data, name="latents")
    own = dataclasses.replace(data, name="wds", num_classes=37)
    assert training_set(data) == ("digits", 1257, 10)
    assert training_set(folder) == training_set(latents) == IMAGENET
    assert IMAGENET.images == 1_281_167
    assert training_set(own, 500) == ("wds", 500, 37)
    assert training_set(dataclasses.replace(own, train_fraction=0.1), 500).images == 50
    with pytest.raises(ValueError, match=r"data\.name = 'wds'.*--images NUMBER"):
        training_set(own)


def test_a_precision_without_rates_is_refused(small: Config) -> None:
    with pytest.raises(ValueError, match=r"trainer\.precision = '64-true'"):
        Planner(small).estimate(Setup(1, 8, 1, precision="64-true"))
