"""PowerNorm over several steps against a plain loop."""

import pytest
import torch

from vision.norms import create_norm

DIM = 4


def test_steps_through_warm_up_and_after_it():
    norm = create_norm("powernorm", DIM, warmup=0.3, affine=False, dtype=torch.float64)
    phi, nu = [1.0] * DIM, [0.0] * DIM
    generator = torch.Generator().manual_seed(0)
    for step in range(6):
        x = (step + 1) * torch.randn(2, 3, DIM, generator=generator, dtype=torch.float64)
        g = torch.randn(2, 3, DIM, generator=generator, dtype=torch.float64)
        u = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        norm.follow(step / 6)
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        y.backward(g)
        du = torch.zeros_like(u)
        for c in range(DIM):
            moment = float(u[..., c].square().mean())
            z = u[..., c] / ((moment if step / 6 < 0.3 else phi[c]) + 1e-5) ** 0.5
            torch.testing.assert_close(y[..., c].detach(), z, rtol=0, atol=1e-12)
            delta = g[..., c] - 0.1 * nu[c] * z
            nu[c] += float((delta * z).mean())
            du[..., c] = delta / (moment + 1e-5) ** 0.5
            if step / 6 < 0.3:  # the mean of all so far
                phi[c] += (moment - phi[c]) / (step + 1)
            phi[c] = 0.9 * phi[c] + 0.1 * moment
        twin = x.clone().requires_grad_()
        (twin / (twin.square().mean(-1, keepdim=True) + 1e-5).sqrt()).backward(du)
        torch.testing.assert_close(leaf.grad, twin.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(norm.phi, torch.tensor(phi, dtype=torch.float64))
    torch.testing.assert_close(norm.nu, torch.tensor(nu, dtype=torch.float64))
    assert norm.steps == 6


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="num_groups=3 does not divide dim=4"):
        create_norm("powernorm", DIM, num_groups=3)
