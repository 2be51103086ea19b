#!/usr/bin/env python3
"""Make images with a trained DiT: PNG files, grid.png, and samples.npz as ADM's suite reads it.

  python tools/sample.py runs/dit_b4_seednorm --n 1000 --cfg 2 --steps 50 --out samples/
  python tools/sample.py runs/dit_b4_seednorm --classes 3 8 --sampler dpm++ --steps 20 --out eights/
  torchrun --nproc-per-node 8 tools/sample.py RUN --n 50000 --steps 250 --cfg 1.5 --out samples/

Image i depends on --seed and i alone: not on the number of processes, nor on a stop in between. Run
the same command again to continue. RUN is a run directory, a .ckpt, or a saved pipeline's folder.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision.errors import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--n", type=int, default=100, help="images in all, default 100")
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="numbers or names; all")
    parser.add_argument("--cfg", type=float, default=2.0, metavar="SCALE", help="default 2")
    parser.add_argument("--cfg-channels", type=int, metavar="N", help="guide the first N; all")
    parser.add_argument(
        "--cfg-interval", type=float, nargs=2, metavar=("LOW", "HIGH"), default=[0.0, 1.0],
        help="guide only where timestep/1000 lies within; everywhere",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=50, help="default 50")
    parser.add_argument("--sampler", choices=["ddpm", "ddim", "dpm++", "unipc"], default="ddpm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=100, metavar="N", help="default 100")
    parser.add_argument("--checkpoint", choices=["last", "best"], default="last")
    parser.add_argument("--no-ema", action="store_true", help="not the averaged weights")
    parser.add_argument("--bf16", action="store_true", help="the model in bfloat16")
    parser.add_argument("--classifier", metavar="RUN", help="a run: count what it recognizes")
    arguments = parser.parse_args()

    from vision.diffusion.sample import sample_command  # imports torch and diffusers: seconds

    options = vars(arguments)
    classifier = options.pop("classifier")
    settings = sample_command(**options)
    if settings is not None and classifier is not None:
        from vision.evaluation.recognition import report_recognized

        report_recognized(classifier, settings, Path(arguments.out))


if __name__ == "__main__":
    run_tool(main)
