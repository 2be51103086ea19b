"""Which backend computes, what is said about it, and how the C++ library comes to be."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from vision.norms import convert_norms, create_norm
from vision.norms.kernels import backend, cpu, cpu_build
from vision.norms.kernels.backend import choose_backend
from vision.norms.kernels.ops import KERNELS, Kernel
from vision.norms.layernorm import LayerNorm
from vision.norms.seednorm import SeeDNorm

ROOT = Path(__file__).parents[3]
KERNEL = SeeDNorm.kernel
SMALL = torch.empty(4, 64)
LARGE = torch.empty(4096, 64)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """No choice and no library remembered; an empty cache."""
    monkeypatch.setenv("VISION_KERNEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VISION_NORM_BACKEND", raising=False)
    # what serves direct calls takes 20 seconds to build
    monkeypatch.setattr(cpu, "direct_call", lambda: None)
    caches = [backend._decide, backend._announce, cpu_build.load_library, cpu.function]
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()


def test_auto_depends_on_the_call_and_not_on_what_came_before(fresh):
    assert choose_backend("auto", SMALL, 64, KERNEL) == "compiled"
    assert choose_backend("auto", LARGE, 64, KERNEL) == "compiled"
    assert choose_backend("auto", LARGE.to("meta"), 64, KERNEL) == "eager"


def test_only_the_kernel_that_is_called_is_built(fresh):
    create_norm("rmsnorm", 64)(SMALL)
    assert [file.name[:8] for file in (fresh / "cache").glob("*.so")] == ["rmsnorm-"]


@pytest.fixture
def untuned():
    """A kernel for the CPU alone, unknown to later tests."""
    yield Kernel("Untuned", ("weight",), {"weight": 1.0})
    del KERNELS["untuned"]


def test_a_norm_without_a_triton_kernel_takes_its_formula_there_and_says_so_once(
    fresh, caplog, untuned
):
    with caplog.at_level(logging.INFO, "vision"):
        for _ in range(2):
            assert backend._decide("auto", untuned, "cuda", torch.float32, 64) == "eager"
    assert [r.getMessage() for r in caplog.records] == [
        "Untuned on cuda float32: backend eager (Untuned has no Triton kernel)"
    ]
    with pytest.raises(ValueError, match="'triton' cannot work on cuda input .* no Triton kernel"):
        backend._decide("triton", untuned, "cuda", torch.float32, 64)


def test_layernorm_is_torchs_but_with_scale_and_shift(monkeypatch):
    monkeypatch.delenv("VISION_NORM_BACKEND", raising=False)
    kernels = {"cpu": "compiled"} | ({"cuda": "triton"} if torch.cuda.is_available() else {})
    for device, kernel in kernels.items():
        x = SMALL.to(device)
        for option, alone in (("auto", "eager"), (kernel, kernel)):
            norm = create_norm("layernorm", 64, backend=option)
            assert (norm.choose(x), norm.choose_modulated(x)) == (alone, kernel)


def test_layernorm_with_scale_and_shift_is_tritons_on_a_gpu(fresh):
    pytest.importorskip("triton")
    assert backend._decide("auto", LayerNorm.kernel, "cuda", torch.float32, 64) == "triton"


def test_auto_says_once_what_it_took(fresh, caplog):
    with caplog.at_level(logging.INFO, "vision"):
        for _ in range(3):
            choose_backend("auto", LARGE, 64, KERNEL)
            choose_backend("auto", LARGE[:-1].repeat(2, 1), 64, KERNEL)
    assert [r.getMessage() for r in caplog.records] == ["SeeDNorm on cpu float32: backend compiled"]


def test_the_environment_variable_overrides_the_option(monkeypatch):
    monkeypatch.setenv("VISION_NORM_BACKEND", "eager")
    assert create_norm("seednorm", 8, backend="compiled").backend == "eager"
    monkeypatch.setenv("VISION_NORM_BACKEND", "cuda")
    with pytest.raises(ValueError, match=r"\$VISION_NORM_BACKEND = 'cuda': valid are auto, triton"):
        create_norm("seednorm", 8)


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="backend = 'fast': valid are auto, triton, compiled, ea"):
        create_norm("seednorm", 8, backend="fast")


def test_the_option_reaches_the_layers_of_a_model():
    model = torch.nn.Sequential(torch.nn.LayerNorm(8))
    convert_norms(model, "seednorm", backend="eager")
    assert model[0].backend == "eager" and "backend=eager" in repr(model)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="then it can work")
def test_triton_asked_for_on_the_cpu_is_refused_with_the_reason():
    pytest.importorskip("triton")
    with pytest.raises(
        ValueError, match=r"cpu input of torch.float32: Triton is for CUDA and ROCm"
    ):
        create_norm("seednorm", 64, backend="triton")(SMALL)


def test_without_a_compiler_auto_takes_the_formula_and_says_so(fresh, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.INFO, "vision"):
        assert choose_backend("auto", LARGE, 64, KERNEL) == "eager"
        assert choose_backend("auto", LARGE, 64, KERNEL) == "eager"
    (record,) = caplog.records
    assert "backend eager (no C++ compiler 'no-such-compiler' on PATH" in record.getMessage()
    with pytest.raises(ValueError, match="'compiled' is not available: no C\\+\\+ compiler"):
        create_norm("seednorm", 8, backend="compiled")


def test_a_compiler_that_fails_is_reported(fresh, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(ValueError, match=r"cannot work on cpu .* cannot compile the kernel"):
        create_norm("seednorm", 64, backend="compiled")(SMALL)
    assert not list((fresh / "cache").glob("*.so"))


def test_a_cache_that_cannot_be_written_is_reported(fresh, monkeypatch):
    (fresh / "file").write_text("")
    monkeypatch.setenv("VISION_KERNEL_CACHE", str(fresh / "file" / "cache"))
    with pytest.raises(ValueError, match="set VISION_KERNEL_CACHE to a folder"):
        create_norm("seednorm", 64, backend="compiled")(SMALL)


def test_two_processes_that_build_at_once_share_one_library(fresh):
    program = (
        "import torch; from vision.norms import create_norm; from vision.norms.kernels import cpu;"
        "cpu.direct_call = lambda: None;"
        "print(float(create_norm('seednorm', 64, backend='compiled')(torch.ones(2, 64)).sum()))"
    )

    def run(_: int) -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ
        ).stdout

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(run, range(2))
    assert first == second and float(first) == pytest.approx(128, rel=1e-5)
    assert len(list((fresh / "cache").glob("*.so"))) == 1
    assert {p.suffix for p in (fresh / "cache").iterdir()} == {".so", ".lock"}


def test_bits_do_not_depend_on_the_number_of_threads(make, run):
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(make("cpu", (3000, 40), 4), "compiled"))
    finally:
        torch.set_num_threads(before)
    for y, grads in results[1:]:
        assert torch.equal(y, results[0][0])
        assert all(torch.equal(a, b) for a, b in zip(grads, results[0][1], strict=True))
