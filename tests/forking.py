"""Runs scripts in forks of a process that has imported what they need.

Imports are most of what a short command costs. A line of JSON in says which script, with which
arguments, in which folder, and where its output goes; a line out is its exit code.
"""

import gc
import io
import json
import os
import runpy
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch.utils.tensorboard  # noqa: F401
from ending import end_with
from matplotlib.figure import Figure

import vision.compare.report.page
import vision.compare.run_comparison
import vision.diffusion.encode_latents
import vision.diffusion.sample
import vision.evaluation.anatomy.report
import vision.evaluation.evaluate
import vision.evaluation.generative.comparison_report
import vision.evaluation.reconstructions
import vision.tasks.classify
import vision.tasks.dit
import vision.tasks.mae
import vision.training.preview
import vision.training.train  # noqa: F401

TIMEOUT = 600  # seconds; then the fork ends by SIGALRM


def become(request: dict[str, Any]) -> NoReturn:
    """Turn this process into the script, as far as it can tell."""
    signal.alarm(TIMEOUT)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, key in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[key], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(request["folder"])
    sys.argv = [request["script"], *request["arguments"]]
    end_with(partial(runpy.run_path, request["script"], run_name="__main__"))


def draw_once() -> None:
    """Find the fonts, which takes half a second in each process that draws its first picture."""
    figure = Figure()
    axis = figure.subplots()
    axis.set_yscale("log")
    axis.plot([1, 20], label="a")
    axis.legend()
    figure.savefig(io.BytesIO())


def main() -> None:
    draw_once()
    gc.collect()
    gc.freeze()  # else each fork goes through all that was imported once more as it ends: 1.5 s
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            become(json.loads(line))
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
