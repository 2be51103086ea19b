"""The masks of SeeDNorm's dropout of coefficients; test_formula.py has what a mask does."""

from __future__ import annotations

import pytest
import torch

from vision.norms.kernels import cpu
from vision.norms.seednorm import SeeDNorm


def philox(counter: int, key: int, rounds: int) -> list[int]:
    """Philox 4x32 as its paper defines it, for one counter of 64 bits."""
    c = [counter & 0xFFFFFFFF, counter >> 32, 0, 0]
    low, high = key & 0xFFFFFFFF, key >> 32
    for _ in range(rounds):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ low, b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ high, a & 0xFFFFFFFF]
        low, high = (low + 0x9E3779B9) & 0xFFFFFFFF, (high + 0xBB67AE85) & 0xFFFFFFFF
    return c


def test_the_mask_is_that_of_philox():
    known = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]  # published with the generator
    assert philox(0, 0, rounds=10) == known
    key, keep, count = 2**62 + 12345, 0.7, 1000
    blocks = [philox(n, key, rounds=7) for n in range(count)]
    order = [blocks[n + lane][k] for n in range(0, 992, 16) for k in range(4) for lane in range(16)]
    mask = cpu.keep_mask(torch.tensor(key), (992, 4), keep).flatten().tolist()
    assert mask == [number < keep * 2**32 for number in order]
    assert cpu.keep_mask(torch.tensor(key), (37,), keep).tolist() == mask[:37]


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.99])
def test_masks_keep_as_many_as_they_should(keep):
    mask = cpu.keep_mask(torch.tensor(7), (1000, 200), keep).float()
    deviation = (keep * (1 - keep)) ** 0.5
    assert abs(mask.mean() - keep) < 4 * deviation / 200_000**0.5
    # neither of two neighbours, nor of two masks, says anything of the other
    other = cpu.keep_mask(torch.tensor(8), (1000, 200), keep).float()
    for a, b in ((mask[:, 1:], mask[:, :-1]), (mask[1:], mask[:-1]), (mask, other)):
        correlation = ((a - keep) * (b - keep)).mean() / deviation**2
        assert abs(correlation) < 4 / a.numel() ** 0.5


def test_the_mask_follows_the_seed_and_not_the_threads():
    norm = SeeDNorm(24, num_heads=4, coefficient_dropout=0.3, backend="compiled")
    norm.beta.data.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    x = torch.randn(9000, 24, generator=torch.Generator().manual_seed(2))
    threads, drawn = torch.get_num_threads(), []
    try:
        for seed, count in ((5, 1), (5, 2), (6, 1)):
            torch.set_num_threads(count)
            torch.manual_seed(seed)
            drawn.append((norm(x), norm(x)))
    finally:
        torch.set_num_threads(threads)
    (first, second), again, other = drawn
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, second)
    assert not torch.equal(first, other[0])


def test_nothing_but_the_mask_is_kept_more():
    kept = []
    for rate in (0.0, 0.5):
        norm = SeeDNorm(64, num_heads=16, coefficient_dropout=rate, backend="compiled")
        own, seen = {p.data_ptr() for p in norm.parameters()}, {}

        def pack(t, own=own, seen=seen):
            if t.data_ptr() not in own:
                seen[t.data_ptr()] = t.numel() * t.element_size()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            norm(torch.randn(50, 64, requires_grad=True))
        kept.append(sum(seen.values()))
    assert kept[1] - kept[0] == 50 * 16


def test_dropout_compiles_without_a_graph_break():
    norm = SeeDNorm(32, num_heads=4, coefficient_dropout=0.5, backend="compiled")
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    x = torch.randn(8, 32, requires_grad=True)
    torch.manual_seed(0)
    y = norm(x)
    torch.manual_seed(0)
    assert torch.equal(compiled(x), y)
