"""Launch configurations by measurement, on request: VISION_NORM_AUTOTUNE=1. Imports no Triton.

The default configurations follow from the size of a row at no cost. Measuring costs seconds per
kernel and kind of input once per process, and its choice may differ from run to run, and with it
the last bits of the parameters' gradients: it is off unless asked for.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable
from dataclasses import replace

from vision.norms.kernels.triton_config import Config

VARIABLE = "VISION_NORM_AUTOTUNE"

Launch = Callable[[Config], object]
_chosen: dict[Hashable, Config] = {}
_log = logging.getLogger("vision")


def tuned(key: Hashable, default: Config, launch: Launch) -> Config:
    """The fastest configuration for `key` if tuning was asked for, `default` otherwise.

    Args:
        key: What the best configuration depends on.
        default: The one to start from.
        launch: Runs the kernel with a configuration.
    """
    if os.environ.get(VARIABLE) != "1":
        return default
    if key not in _chosen:
        _chosen[key] = fastest(candidates(default), launch, _seconds)
        _log.info("autotuned %s: %s", key, _chosen[key])
    return _chosen[key]


def candidates(default: Config) -> list[Config]:
    """The default and its neighbours: half and twice the warps, the rows, the programs."""
    return [
        replace(default, warps=warps, rows=rows, programs=programs)
        for warps in _around(default.warps, 1, 32)
        for rows in _around(default.rows, 1, 16)
        for programs in (_around(default.programs, 1, 1 << 16) if default.programs else [0])
    ]


def fastest(
    configs: list[Config], launch: Launch, seconds: Callable[[Callable[[], object]], float]
) -> Config:
    """The configuration whose launch takes least time; `inf` stands for one that cannot run."""
    return min(configs, key=lambda config: seconds(lambda: launch(config)))


def _around(value: int, low: int, high: int) -> list[int]:
    return [v for v in (value, value // 2, value * 2) if low <= v <= high]


def _seconds(work: Callable[[], object]) -> float:
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench

    try:
        return do_bench(work, warmup=5, rep=20, return_mode="median") / 1e3
    except OutOfResources:
        return float("inf")
