"""Bytes, seconds and hours from the cost of a step, by their formulas."""

import copy
import dataclasses

import pytest

from vision.config import Config
from vision.training.plan.hardware import ring_bandwidth
from vision.training.plan.planner import IMAGENET, Layout, Planner, training_set


@pytest.fixture(scope="module")
def planner(small_seednorm: Config) -> Planner:
    return Planner(small_seednorm)


def test_state_is_16_bytes_per_weight_and_4_for_the_buckets_of_ddp(planner: Planner) -> None:
    cost = planner.count("bf16-mixed", 8)
    p = cost.parameters
    assert p == cost.trainable
    one, eight = (planner.plan(Layout(devices, 8, 1)) for devices in (1, 8))
    assert (one.weights, one.gradients, one.optimizer_state, one.ema) == (4 * p, 4 * p, 8 * p, 0)
    assert (eight.weights, eight.gradients, eight.optimizer_state) == (4 * p, 8 * p, 8 * p)
    sharded = planner.plan(Layout(8, 8, 1, sharded=True))
    gathered = 2 * 2 * 4 * cost.largest_block  # two blocks, weights and gradients
    state = sharded.weights + sharded.gradients + sharded.optimizer_state
    assert state - gathered == 16 * p / 8
    averaged = copy.deepcopy(planner.config)
    averaged.ema.decay = 0.99
    assert Planner(averaged).plan(Layout(1, 8, 1)).ema == 4 * p


def test_checkpointing_keeps_the_inputs_of_blocks_and_one_block(planner: Planner) -> None:
    plain, again = (planner.plan(Layout(1, 8, 1, checkpointing=on)) for on in (False, True))
    inputs = 5 * 17 * 48 * 4 * 8  # blocks, tokens, width, float32, images
    assert inputs < again.activations < inputs + plain.activations / 3
    assert plain.compute < again.compute < 1.5 * plain.compute
    assert again.flops == plain.flops


def test_bytes_sent_are_those_of_a_ring(planner: Planner) -> None:
    p = planner.count("bf16-mixed", 8).parameters
    assert planner.plan(Layout(1, 8, 1)).sent == 0
    ddp = planner.plan(Layout(8, 8, 3))
    fsdp = planner.plan(Layout(8, 8, 3, sharded=True))
    assert ddp.sent == 2 * 7 / 8 * 4 * p  # once per step
    assert fsdp.sent == 3 * (3 * 7 / 8 * 4 * p)  # per micro-batch
    assert ring_bandwidth(8) == 450e9 * 0.8
    assert ring_bandwidth(16) == 8 * 50e9 * 0.8  # a node's eight adapters


def test_hours_are_steps_times_seconds_times_gpus(planner: Planner) -> None:
    found = planner.plan(planner.layout(2))
    assert found.layout == Layout(2, 32, 1)
    assert found.steps == 1257 // 64 * planner.config.trainer.epochs
    assert found.gpu_hours == pytest.approx(found.steps * found.seconds * 2 / 3600)
    with pytest.raises(ValueError, match=r"trainer\.batch_size_total = 64: does not divide over 3"):
        planner.layout(3)


def test_images_of_a_data_set_are_known_by_name_or_asked_for(small: Config) -> None:
    data = small.data
    folder = dataclasses.replace(data, name="folder", num_classes=1000)
    latents = dataclasses.replace(data, name="latents")
    own = dataclasses.replace(data, name="wds", num_classes=37)
    assert training_set(data) == (1257, 10)
    assert training_set(folder) == training_set(latents) == IMAGENET
    assert IMAGENET == (1_281_167, 1000)
    assert training_set(own, 500) == (500, 37)
    assert training_set(dataclasses.replace(own, train_fraction=0.1), 500) == (50, 37)
    with pytest.raises(ValueError, match=r"data\.name = 'wds'.*--images NUMBER"):
        training_set(own)


def test_a_precision_without_rates_is_refused(planner: Planner) -> None:
    with pytest.raises(ValueError, match=r"trainer\.precision = '64-true'"):
        planner.plan(Layout(1, 8, 1, precision="64-true"))
