#!/usr/bin/env python3
"""What norms cost in time and memory, and how fast images are loaded.

norms   each norm in each of its implementations, on the activations of ViT-Ti/B/L and DiT-XL:
        forward, forward and backward (medians), bytes kept between them, bytes per second as a
        share of a plain copy (x.clone()) measured beside it, ratio to nn.LayerNorm
models  training step (with AdamW) and peak memory of a whole timm model
mae     MAE pre-training step of that model against its supervised step
diagnostics   training step with the norms watched, as it is once in 20, against one without
data    our loader against timm's create_loader: images per second of whole epochs, in turn, and
        decoding, augmentation and collating timed apart, per image, in one process

"by" says what computes: torch (its own layer), formula (the norm's plain formula), torch.compile
(that formula, compiled), compiled (our C++ kernel), triton (ours), liger.
Targets on a GPU, which nobody has measured yet: SeeDNorm by triton reaches 90 % of a copy's bytes
per second and takes at most 1.05 times Liger's RMSNorm (norms --dtype bfloat16 --peer liger).
    OMP_NUM_THREADS=2 python tools/benchmark.py norms --json runs/norms.json --plot runs/norms.png
    OMP_NUM_THREADS=2 python tools/benchmark.py models --norms layernorm seednorm
    python tools/benchmark.py data --workers 4 --json runs/data.json
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vision.benchmark import benchmark
from vision.errors import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tools = parser.add_subparsers(required=True, metavar="norms|models|mae|diagnostics|data")
    names = ("norms", "models", "mae", "diagnostics")
    norms, models, mae, diagnostics = (tools.add_parser(name) for name in names)
    benchmark.add_data_parser(tools)
    for tool, batch, rounds, run in (
        (norms, 64, 20, benchmark.run_norms),
        (models, 16, 10, benchmark.run_models),
        (mae, 8, 5, benchmark.run_mae),
        (diagnostics, 8, 20, benchmark.run_diagnostics),
    ):
        tool.set_defaults(run=run, plot=None)
        tool.add_argument("--batch", type=int, default=batch, help="images")
        tool.add_argument("--rounds", type=int, default=rounds, help="calls of each, on the CPU")
        tool.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
        tool.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
        tool.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    for tool in (norms, models):
        tool.add_argument("--plot", type=Path, metavar="FILE", help="draw them: .png, .svg, .pdf")
    for tool, size in ((models, "base"), (mae, "base"), (diagnostics, "tiny")):
        tool.add_argument("--model", default=f"vit_{size}_patch16_224", help="a timm name")
        tool.add_argument("--img-size", type=int, default=224)
    norms.add_argument("--peer", action="append", default=[], choices=["liger"])
    norms.add_argument("--torch-compile", action=argparse.BooleanOptionalAction, default=True)
    for tool in (models, diagnostics):
        tool.add_argument("--norms", nargs="+", default=["layernorm", "seednorm"])
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    run_tool(main)
