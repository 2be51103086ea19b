"""What is counted on fake tensors is what real ones do."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vision.config import Config
from vision.models.classifier import create_classifier
from vision.training.plan.listen import StepListener
from vision.training.plan.recording import Recording

DEPTH, WIDTH, TOKENS, PATCHES, CLASSES, IMAGES = 5, 48, 17, 16, 10, 4


Recorded = Callable[..., Recording]


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(torch.randn(IMAGES, 3, 16, 16)), torch.zeros(IMAGES).long())


def test_flops_are_the_closed_form_and_those_of_torch_with_real_tensors(
    small: Config, recorded: Recorded
) -> None:
    recording = recorded("layernorm")
    # per token 4 D² of attention's and 8 D² of the MLP's weights; scores and their use: L² D each
    weights = 12 * WIDTH**2 * DEPTH * TOKENS + PATCHES * 48 * WIDTH + WIDTH * CLASSES
    attention = 2 * TOKENS**2 * WIDTH * DEPTH
    assert recording.flops(backward=False) == 2 * (weights + attention)

    model, _ = create_classifier(small, CLASSES)
    # attention as plain products, which the counter knows on a CPU
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            loss = loss_of(model)
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    assert recording.flops(backward=False) * IMAGES == forward.get_total_flops()
    # fused attention computes the scores once more
    again = 2 * TOKENS**2 * WIDTH * DEPTH * IMAGES
    assert recording.flops(backward=True) * IMAGES == backward.get_total_flops() + again


def test_a_depthwise_convolution_is_counted_per_group() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    with StepListener() as step:
        layer(torch.randn(2, 8, 5, 5, requires_grad=True)).sum().backward()
    forward = 2 * (2 * 8 * 5 * 5) * 9
    assert sum(op.flops for op in step.ops) == 3 * forward
    assert {op.rate for op in step.ops if op.flops} == {"grouped"}


def kept_bytes(model: nn.Module) -> int:
    """What autograd keeps of a step, parameters aside."""
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss_of(model)
    return sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in known)


def test_activations_are_what_autograd_keeps_of_real_tensors(
    small: Config, small_seednorm: Config, recorded: Recorded
) -> None:
    for config in (small, small_seednorm):  # so small that SeeDNorm takes its formula
        recording = recorded(config.norm.name)
        measured = kept_bytes(create_classifier(config, CLASSES)[0])
        assert abs(recording.activations.at(IMAGES) / measured - 1) < 0.01, config.norm.name


def test_the_seednorm_kernel_keeps_less_and_moves_less_than_the_formula(
    recorded: Recorded,
) -> None:
    kernel, formula = recorded("seednorm", gpu_kernels=True), recorded("seednorm")
    norms = 2 * DEPTH + 1
    # the formula keeps two more tensors of x's size for each norm
    assert formula.activations.each - kernel.activations.each >= 2 * norms * TOKENS * WIDTH * 4
    assert kernel.flops(True) == formula.flops(True)
    moved = [sum(n * k.bytes.each for k, n in r.kernels.items()) for r in (kernel, formula)]
    assert moved[0] < 0.8 * moved[1]


def test_the_peak_of_a_step_is_what_the_plan_says_of_its_activations(
    small: Config, recorded: Recorded
) -> None:
    model, _ = create_classifier(small, CLASSES)
    loss_of(model).backward()  # gradients are there, as after a first micro-batch
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        loss_of(model).backward()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    planned = recorded("layernorm").activations.at(IMAGES)
    assert planned < peak < 1.3 * planned
