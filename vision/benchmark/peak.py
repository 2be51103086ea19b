"""Peak memory of three training steps of one model: `python -m vision.benchmark.peak JSON`."""

from __future__ import annotations

import json
import resource
import sys

import torch

from vision.benchmark.models import ModelSettings, TrainingStep


def main() -> None:
    """Print the peak in bytes."""
    request = json.loads(sys.argv[1])
    settings = ModelSettings(**request["settings"])
    step = TrainingStep(settings, request["norm"])
    for _ in range(3):
        step()
    if settings.device == "cuda":
        print(torch.cuda.max_memory_allocated())
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


if __name__ == "__main__":
    main()
