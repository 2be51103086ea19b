"""The plain models that ours are measured against compute what ours compute."""

import pytest
import torch

from vision.benchmark.peers import PLAIN, make_loss, make_model
from vision.benchmark.steps import StepSettings
from vision.models.classifier import count_parameters

SIZES = {"embed_dim": 32, "depth": 2, "num_heads": 2}
TINY = (
    StepSettings("DiT", "dit", "dit_b_4", 3, 8, 4, SIZES),
    StepSettings("MAE", "mae", "vit_tiny_patch16_224", 3, 64, 3, SIZES),
    StepSettings("ViT", "classify", "vit_tiny_patch16_224", 3, 32, 3, SIZES),
)


@pytest.mark.parametrize("settings", TINY, ids=lambda s: s.model)
def test_the_plain_model_has_the_parameters_and_with_them_the_loss_of_ours(
    settings: StepSettings,
) -> None:
    plain, ours = make_model(settings, PLAIN), make_model(settings, "layernorm")
    assert count_parameters(plain) == count_parameters(ours)
    with torch.no_grad():
        for p in ours.parameters():  # what starts at zero must count too
            if p.requires_grad:
                p.normal_(std=0.3)
    state = {name.removeprefix("encoder."): t for name, t in ours.state_dict().items()}
    plain.load_state_dict(state)
    loss = make_loss(settings, torch.device("cpu"))
    values = [loss(model.eval()) for model in (plain, ours)]
    assert torch.isfinite(values[0]) and abs(values[0]) > 0.1
    torch.testing.assert_close(*values, rtol=1e-5, atol=0)
    gradients = []
    for value, model in zip(values, (plain, ours), strict=True):
        value.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[1].items():
        other = gradients[0][name.removeprefix("encoder.")]
        scale = float(gradient.abs().max())
        torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-4 * scale, msg=name)
