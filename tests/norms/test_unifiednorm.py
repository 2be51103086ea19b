"""UnifiedNorm over many steps, one of them an outlier, against a plain loop."""

import math

import pytest
import torch

from vision.norms import create_norm

DIM, WINDOW, EPS = 3, 3, 1e-5


class Plain:
    """One step after another, channel by channel; the rings are lists."""

    def __init__(self) -> None:
        self.running, self.nu = [1.0] * DIM, [0.0] * DIM
        self.moments = [[0.0] * DIM for _ in range(WINDOW)]
        self.gradients = [[0.0] * DIM for _ in range(WINDOW)]
        self.skipped = 0

    def step(self, number, warm, x, g, weight):
        own = [sum(v * v for v in c) / len(c) for c in x]
        late = not warm and number > WINDOW
        roots = [math.sqrt(m) for row in self.moments for m in row]
        mean = sum(roots) / len(roots)
        spread = sum((r - mean) ** 2 for r in roots) / (len(roots) - 1)
        self.moments = [*self.moments[1:], own]
        skip = late and any(
            sum(m) / WINDOW - math.prod(m) ** (1 / WINDOW) > spread * WINDOW
            for m in zip(*self.moments, strict=True)
        )
        if skip:
            self.moments[-1] = list(self.running)
            self.skipped += 1
        y, dx, dw, gradients = [], [], [], []
        for c in range(DIM):
            v = own[c]
            if late and not skip:
                v = math.prod(row[c] for row in self.moments) ** (1 / WINDOW)
            scale, r = math.sqrt(v + EPS), 1.0
            if late and not skip:
                r = min(max(scale / math.sqrt(self.running[c] + EPS), 0.2), 5)
            z = [value / scale for value in x[c]]
            y.append([weight[c] * value for value in z])
            up = [r * value for value in g[c]]
            dw.append(sum(a * b for a, b in zip(up, z, strict=True)))
            gz = weight[c] * dw[-1] / len(z)
            gradients.append(self.nu[c] if skip else gz)
            window = [row[c] for row in self.gradients[1:]] + [gradients[-1]]
            average = sum(window) / WINDOW if late and not skip else gz
            self.nu[c] = 0.9 * self.nu[c] + 0.1 * average
            taken = average if skip else self.nu[c]
            dx.append([(weight[c] * a - taken * b) / scale for a, b in zip(up, z, strict=True)])
            self.running[c] = 0.9 * self.running[c] + 0.1 * v
        self.gradients = [*self.gradients[1:], gradients]
        return y, dx, dw


def test_steps_match_a_plain_loop_through_warm_up_and_an_outlier():
    norm = create_norm("unifiednorm", DIM, window=WINDOW, warmup=0.3, dtype=torch.float64)
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    norm.weight.data.copy_(weight)
    plain, generator = Plain(), torch.Generator().manual_seed(0)
    for number in range(1, 13):
        size = 20.0 if number == 9 else 1.0 + 0.1 * number
        x = size * torch.randn(4, 6, DIM, generator=generator, dtype=torch.float64)
        g = torch.randn(4, 6, DIM, generator=generator, dtype=torch.float64)
        x.requires_grad_(), norm.zero_grad()
        norm.follow(number / 12)
        y = norm(x)
        y.backward(g)
        columns = [t.detach().reshape(-1, DIM).T.tolist() for t in (x, g)]
        expected = plain.step(number, number / 12 < 0.3, *columns, weight.tolist())
        for ours, theirs in zip((y.detach(), x.grad), expected[:2], strict=True):
            theirs = torch.tensor(theirs, dtype=torch.float64).T.reshape(x.shape)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        torch.testing.assert_close(norm.weight.grad.tolist(), expected[2], rtol=1e-10, atol=1e-10)
    assert norm.skipped == plain.skipped and 1 <= plain.skipped < 8
    for name, values in [("nu", plain.nu), ("running_moment", plain.running)]:
        expected = torch.tensor(values, dtype=torch.float64)
        torch.testing.assert_close(getattr(norm, name), expected, rtol=1e-12, atol=1e-12)


def test_nothing_is_skipped_where_that_is_off():
    norm = create_norm("unifiednorm", DIM, window=2, warmup=0.0, skip_outliers=False)
    for size in (1.0, 1.0, 1.0, 100.0):
        norm(size * torch.ones(2, DIM))
    assert norm.skipped == 0
    assert torch.allclose(norm.moments, torch.tensor([[1.0], [1e4]]).expand(2, DIM))


@pytest.mark.parametrize("window", [1, 2.5])
def test_a_window_that_is_too_short_is_refused(window):
    with pytest.raises(
        ValueError, match="window must be a number of batches, at least 2|: expected a whole"
    ):
        create_norm("unifiednorm", DIM, window=window)
