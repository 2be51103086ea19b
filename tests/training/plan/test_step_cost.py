"""What is counted on fake tensors is what real ones do."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vision.config import Config
from vision.models.classifier import create_classifier
from vision.training.plan.step_cost import (
    FORMULAS,
    StepCost,
    compute_loss,
    count_step,
    fake_tensors,
)

DEPTH, WIDTH, TOKENS, PATCHES, CLASSES, IMAGES = 5, 48, 17, 16, 10, 4

Counted = Callable[..., StepCost]


def test_flops_are_the_closed_form_and_those_of_torch_with_real_tensors(
    small: Config, counted: Counted
) -> None:
    cost = counted("layernorm")
    # per token 4 D² of attention's and 8 D² of the MLP's weights; scores and their use: L² D each
    weights = 12 * WIDTH**2 * DEPTH * TOKENS + PATCHES * 48 * WIDTH + WIDTH * CLASSES
    attention = 2 * TOKENS**2 * WIDTH * DEPTH
    assert cost.forward_flops == 2 * (weights + attention) * IMAGES

    model, _ = create_classifier(small, CLASSES)
    # attention as plain products, which the counter knows on a CPU
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            loss = compute_loss(small, model, IMAGES, None)
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    assert cost.forward_flops == forward.get_total_flops()
    # fused attention computes the scores once more
    again = 2 * TOKENS**2 * WIDTH * DEPTH * IMAGES
    assert cost.backward_flops == backward.get_total_flops() + again


def test_parameters_are_those_of_the_model(small: Config, counted: Counted) -> None:
    model, _ = create_classifier(small, CLASSES)
    cost = counted("layernorm")
    assert cost.parameters == cost.trainable == sum(p.numel() for p in model.parameters())
    assert cost.parameter_bytes == 4
    assert cost.largest_block == sum(
        p.numel() for p in model.get_submodule("blocks.0").parameters()
    )


def test_a_depthwise_convolution_is_counted_per_group() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        layer(torch.randn(2, 8, 5, 5, requires_grad=True)).sum().backward()
    forward = 2 * (2 * 8 * 5 * 5) * 9
    assert counter.get_total_flops() == 3 * forward


def kept_bytes(config: Config, model: nn.Module, autocast: torch.dtype | None) -> int:
    """What autograd keeps of a real step, parameters aside."""
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        compute_loss(config, model, IMAGES, autocast)
    return sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in known)


@pytest.mark.parametrize(
    ("precision", "autocast"), [("32-true", None), ("bf16-mixed", torch.bfloat16)]
)
def test_activations_are_what_autograd_keeps_of_real_tensors(
    small: Config, small_seednorm: Config, precision: str, autocast: torch.dtype | None
) -> None:
    small_seednorm.norm.options["backend"] = "eager"
    for config in (small, small_seednorm):
        counted = count_step(config, CLASSES, precision, IMAGES).kept
        measured = kept_bytes(config, create_classifier(config, CLASSES)[0], autocast)
        assert abs(counted / measured - 1) < 0.01, config.norm.name


def test_the_seednorm_kernel_keeps_less_than_the_formula(counted: Counted) -> None:
    kernel, formula = counted("seednorm"), counted("formula")
    norms = 2 * DEPTH + 1
    # the formula keeps two more tensors of x's size for each norm
    assert formula.kept - kernel.kept >= 2 * norms * TOKENS * WIDTH * 4 * IMAGES
    assert kernel.backward_flops == formula.backward_flops


def test_the_peak_of_a_step_is_what_the_plan_says_of_its_activations(
    small: Config, counted: Counted
) -> None:
    model, _ = create_classifier(small, CLASSES)
    compute_loss(small, model, IMAGES, None).backward()  # gradients are there, as after a first one
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        compute_loss(small, model, IMAGES, None).backward()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    planned = counted("layernorm").kept
    assert planned < peak < 1.3 * planned


def test_torchs_private_fake_tensors_have_shapes_and_no_memory() -> None:
    meta = nn.Linear(3, 1 << 40, device="meta")  # 12 TiB
    with fake_tensors():
        layer = meta.to_empty(device="cpu")
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(torch.empty(2, 3))
    assert (y.shape, y.dtype, y.device.type) == ((2, 1 << 40), torch.bfloat16, "cpu")
    assert y.untyped_storage() is y.view(-1).untyped_storage()  # so that sets hold each once
