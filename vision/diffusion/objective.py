"""The training loss of a diffusion model: squared error plus a bound for its learned variance.

Notation of Ho et al. 2020 (https://arxiv.org/abs/2006.11239); the bound and the range of the
variance are those of Nichol, Dhariwal 2021 (https://arxiv.org/abs/2102.09672).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vision.config.schema import Prediction

NUM_TIMESTEPS = 1000
BETA_START, BETA_END = 1e-4, 0.02


class Terms(NamedTuple):
    """Losses per sample, [B] float32; `loss` is the sum of the other two."""

    loss: Tensor
    mse: Tensor
    vb: Tensor  # bits per dimension


class DiffusionObjective:
    """Training losses under the linear schedule.

    Args:
        prediction: What the model predicts: the noise, or the velocity
            sqrt(ab)*noise - sqrt(1-ab)*x0 (Salimans, Ho 2022, https://arxiv.org/abs/2202.00512).
        min_snr_gamma: Weight the squared error of x0 by min(SNR, gamma) (Hang et al. 2023,
            https://arxiv.org/abs/2303.09556); None: no weight.
    """

    num_timesteps = NUM_TIMESTEPS

    def __init__(
        self, prediction: Prediction = "epsilon", min_snr_gamma: float | None = None
    ) -> None:
        self.prediction = prediction
        self.betas = torch.linspace(BETA_START, BETA_END, NUM_TIMESTEPS, dtype=torch.float64)
        ab = torch.cumprod(1 - self.betas, 0)
        previous = torch.cat([torch.ones(1, dtype=torch.float64), ab[:-1]])
        posterior = self.betas * (1 - previous) / (1 - ab)
        snr = ab / (1 - ab)
        weight = torch.ones_like(ab)
        if min_snr_gamma is not None:
            bounded = snr.clamp(max=min_snr_gamma)
            weight = bounded / (snr if prediction == "epsilon" else snr + 1)
        tables = {
            "signal": ab.sqrt(),
            "noise": (1 - ab).sqrt(),
            "mean_x0": self.betas * previous.sqrt() / (1 - ab),  # of q(x_{t-1} | x_t, x0)
            "mean_xt": (1 - previous) * (1 - self.betas).sqrt() / (1 - ab),
            # the variance is 0 at t = 0: the logarithm takes the next one
            "min_log_variance": torch.cat([posterior[1:2], posterior[1:]]).log(),
            "max_log_variance": self.betas.log(),
            "weight": weight,
        }
        self._tables = {torch.device("cpu"): {k: v.float() for k, v in tables.items()}}

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of q(x_t | x0) for `noise` of x0's shape [B, C, H, W] and t [B] int64."""
        return self._at("signal", t) * x0 + self._at("noise", t) * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model should predict."""
        if self.prediction == "epsilon":
            return noise
        return self._at("signal", t) * noise - self._at("noise", t) * x0

    def terms(self, output: Tensor, x0: Tensor, xt: Tensor, noise: Tensor, t: Tensor) -> Terms:
        """Losses of a model's `output` for xt: [B, C, H, W], or [B, 2C, H, W] with a variance.

        The bound trains only the variance: the prediction is detached in it.
        """
        output = output.float()
        prediction, *rest = output.split(x0.shape[1], dim=1)
        error = (self.target(x0, noise, t) - prediction).square().flatten(1).mean(1)
        mse = self._at("weight", t).flatten() * error
        if not rest:
            return Terms(mse, mse, torch.zeros_like(mse))
        vb = self._bound(prediction.detach(), rest[0], x0, xt, t)
        return Terms(mse + vb, mse, vb)

    def predict_x0(self, prediction: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """The x0 that a prediction for xt implies, not clipped."""
        signal, noise = self._at("signal", t), self._at("noise", t)
        if self.prediction == "epsilon":
            return (xt - noise * prediction) / signal
        return signal * xt - noise * prediction

    def _bound(
        self, prediction: Tensor, variance: Tensor, x0: Tensor, xt: Tensor, t: Tensor
    ) -> Tensor:
        """KL(q(x_{t-1} | x_t, x0) || p), at t = 0 the likelihood of x0's pixels; bits per dim."""
        low, high = self._at("min_log_variance", t), self._at("max_log_variance", t)
        fraction = (variance + 1) / 2
        log_variance = fraction * high + (1 - fraction) * low
        mean_x0, mean_xt = self._at("mean_x0", t), self._at("mean_xt", t)
        true_mean = mean_x0 * x0 + mean_xt * xt
        mean = mean_x0 * self.predict_x0(prediction, xt, t) + mean_xt * xt
        kl = 0.5 * (
            log_variance
            - low
            + (low - log_variance).exp()
            + (true_mean - mean).square() * (-log_variance).exp()
            - 1
        )
        nll = -discretized_log_likelihood(x0, mean, 0.5 * log_variance)
        first = (t == 0).view(-1, 1, 1, 1)
        return torch.where(first, nll, kl).flatten(1).mean(1) / math.log(2)

    def _at(self, name: str, t: Tensor) -> Tensor:
        """Entries of a table for t [B], as [B, 1, 1, 1] float32."""
        if t.device not in self._tables:
            cpu = self._tables[torch.device("cpu")]
            self._tables[t.device] = {k: v.to(t.device) for k, v in cpu.items()}
        return self._tables[t.device][name][t].view(-1, 1, 1, 1)


def discretized_log_likelihood(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log P of 8-bit pixels under a normal distribution, in nats, elementwise.

    x holds values (2k - 255)/255. The probability of a pixel is the mass within half a level of
    it; the intervals at -1 and 1 are open. The cdf is a tanh approximation, as in published losses.
    """
    half = 1 / 255
    scale = (-log_std).exp()
    above = _normal_cdf(scale * (x - mean + half))
    below = _normal_cdf(scale * (x - mean - half))
    mass = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return mass.clamp(min=1e-12).log()


def drop_labels(labels: Tensor, null: int, fraction: float, uniform: Tensor) -> Tensor:
    """`labels` [B], with `null` where `uniform` [B], drawn from 0 to 1, is below `fraction`."""
    return torch.where(uniform < fraction, null, labels)


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))))
