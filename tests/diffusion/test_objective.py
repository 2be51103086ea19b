"""The training objective against the published one, term by term, and its options."""

import math
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file

from vision.checkpoints.dit_formats import from_official
from vision.diffusion.objective import DiffusionObjective, discretized_log_likelihood, drop_labels

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    return load_file(FIXTURES / "dit_tiny.safetensors")


def batch(reference) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return reference["loss_x0"], reference["loss_noise"], reference["loss_t"]


def test_the_schedule_is_the_published_one(reference) -> None:
    torch.testing.assert_close(DiffusionObjective().betas, reference["betas"], atol=1e-15, rtol=0)


@pytest.mark.parametrize("term", ["loss", "mse", "vb"])
def test_terms_are_the_published_ones(reference, term: str) -> None:
    state = {k.removeprefix("state."): v for k, v in reference.items() if k.startswith("state.")}
    model = from_official(state, num_heads=3).eval()
    objective = DiffusionObjective()
    x0, noise, t = batch(reference)
    assert 0 in t.tolist() and 999 in t.tolist()
    xt = objective.add_noise(x0, noise, t)
    with torch.no_grad():
        output = model(xt, t, reference["loss_y"]).sample
    found = getattr(objective.terms(output, x0, xt, noise, t), term)
    torch.testing.assert_close(found, reference[f"loss_{term}"], atol=1e-5, rtol=0)


def test_the_bound_trains_the_variance_alone(reference) -> None:
    x0, noise, t = batch(reference)
    objective = DiffusionObjective()
    output = torch.zeros(4, 8, 8, 8, requires_grad=True)
    terms = objective.terms(output, x0, objective.add_noise(x0, noise, t), noise, t)
    (gradient,) = torch.autograd.grad(terms.vb.sum(), output, retain_graph=True)
    assert gradient[:, :4].abs().max() == 0
    assert gradient[:, 4:].abs().max() > 0
    (gradient,) = torch.autograd.grad(terms.mse.sum(), output)
    assert gradient[:, 4:].abs().max() == 0


def test_the_right_answer_has_no_error_and_the_least_bound(reference) -> None:
    x0, noise, _ = (part[1:] for part in batch(reference))
    t = torch.tensor([1, 2, 5])  # late ones have nearly no range for the variance
    objective = DiffusionObjective()
    xt = objective.add_noise(x0, noise, t)
    low = torch.full_like(noise, -1.0)  # the variance of the posterior itself
    terms = objective.terms(torch.cat([noise, low], 1), x0, xt, noise, t)
    assert terms.mse.max() == 0
    assert terms.vb.abs().max() < 1e-4
    worse = objective.terms(torch.cat([noise, low + 1], 1), x0, xt, noise, t)
    assert (worse.vb > terms.vb).all()


def test_without_a_learned_variance_the_loss_is_the_error(reference) -> None:
    x0, noise, t = batch(reference)
    objective = DiffusionObjective()
    terms = objective.terms(torch.zeros_like(x0), x0, objective.add_noise(x0, noise, t), noise, t)
    torch.testing.assert_close(terms.loss, noise.square().flatten(1).mean(1))
    assert terms.vb.abs().max() == 0


def test_velocity_is_the_one_of_diffusers_and_gives_back_the_image(reference) -> None:
    x0, noise, t = batch(reference)
    objective = DiffusionObjective("v_prediction")
    scheduler = DDPMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    velocity = objective.target(x0, noise, t)
    torch.testing.assert_close(velocity, scheduler.get_velocity(x0, noise, t), atol=1e-5, rtol=0)
    xt = objective.add_noise(x0, noise, t)
    torch.testing.assert_close(xt, scheduler.add_noise(x0, noise, t), atol=1e-5, rtol=0)
    torch.testing.assert_close(objective.predict_x0(velocity, xt, t), x0, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weighs_the_error_of_the_image(prediction: str) -> None:
    """min(SNR, 5) times the squared error of x0, whatever the model predicts."""
    t = torch.tensor([0, 100, 400, 999])
    generator = torch.Generator().manual_seed(0)
    x0, noise, output = torch.randn(3, 4, 1, 8, 8, generator=generator)
    objective = DiffusionObjective(prediction, min_snr_gamma=5.0)
    xt = objective.add_noise(x0, noise, t)
    mse = objective.terms(output, x0, xt, noise, t).mse
    ab = torch.cumprod(1 - objective.betas, 0)[t]
    snr = ab / (1 - ab)
    error = (objective.predict_x0(output, xt, t) - x0).square().flatten(1).mean(1)
    torch.testing.assert_close(mse, (snr.clamp(max=5) * error).float(), rtol=1e-3, atol=1e-6)


def test_probabilities_of_all_levels_sum_to_one() -> None:
    levels = torch.linspace(-1, 1, 256)
    log_p = discretized_log_likelihood(levels, torch.tensor(0.3), torch.tensor(math.log(0.2)))
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert levels[log_p.argmax()].item() == pytest.approx(0.3, abs=1 / 255)


def test_labels_are_dropped_at_the_given_rate() -> None:
    torch.manual_seed(0)
    dropped = drop_labels(torch.full((20_000,), 3), 10, 0.1, torch.rand(20_000))
    assert set(dropped.tolist()) == {3, 10}
    assert (dropped == 10).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert drop_labels(torch.tensor([1, 2]), 10, 0.0, torch.zeros(2)).tolist() == [1, 2]
