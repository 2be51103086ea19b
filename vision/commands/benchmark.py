"""Measure what norms cost in time and memory, and how fast images are loaded.

    OMP_NUM_THREADS=2 python tools/benchmark.py norms --json runs/norms.json
    OMP_NUM_THREADS=2 python tools/benchmark.py models --norms all --json runs/costs.json
    OMP_NUM_THREADS=2 python tools/benchmark.py peers --json runs/peers.json
    python tools/benchmark.py data --workers 4 --json runs/data.json

Targets on a GPU, which nobody has measured yet: SeeDNorm by triton reaches 90 % of a copy's bytes
per second and takes at most 1.05 times Liger's RMSNorm (norms --dtype bfloat16 --peer liger).
"""

import argparse
import importlib
import sys
from typing import NoReturn

from vision.errors import ConfigError, run_tool
from vision.files import check_writable
from vision.notices import loading

SUBJECTS = {
    "norms": "each norm in each of its implementations, against nn.LayerNorm",
    "models": "training step and peak memory of ViT-B, MAE-B and DiT-B, norm by norm",
    "peers": "our DiT, MAE and ViT against plain ones of timm's layers with nn.LayerNorm",
    "mae": "MAE pre-training step of a model against its supervised step",
    "diagnostics": "training step with the norms watched, against one without",
    "data": "our loader against timm's create_loader",
    "gpu": "all of it on a GPU in under ten minutes, with the tests that need one",
}


def main() -> None:
    """Parse the command line and do what it says."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    subjects = parser.add_subparsers(required=True, metavar="SUBJECT")
    for name, text in SUBJECTS.items():
        subject = subjects.add_parser(name, help=text, formatter_class=layout)
        if name in sys.argv[1:2]:  # only its libraries are imported
            with loading("torch and timm"):
                module = importlib.import_module(f"vision.benchmark.{name}")
            subject.description = module.__doc__
            subject.set_defaults(run=module.run)
            module.add_arguments(subject)
    arguments = parser.parse_args()
    if getattr(arguments, "json", None) is not None:
        check_writable(arguments.json)
    try:
        arguments.run(arguments)
    except ConfigError:
        raise
    except ValueError as error:
        parser.error(str(error))


def run() -> NoReturn:
    """`vision-benchmark`, or `python tools/benchmark.py`."""
    run_tool(main)
