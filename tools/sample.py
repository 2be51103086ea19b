#!/usr/bin/env python3
"""Make images with a trained DiT: PNG files, grid.png, and samples.npz as ADM's suite reads it.

  python tools/sample.py runs/dit_b4_seednorm --number 1000 --guidance 2 --steps 50 --out samples/
  python tools/sample.py runs/dit_b4_seednorm --classes 3 8 --sampler dpm++ --steps 20 --out eights/
  torchrun --nproc-per-node 8 tools/sample.py RUN --number 50000 --steps 250 --out samples/

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
    add = parser.add_argument
    add("run", metavar="RUN")
    add("--out", required=True, metavar="DIR")
    add("--number", dest="n", type=int, default=100, metavar="N", help="images in all; default 100")
    add("--classes", nargs="+", metavar="CLASS", help="numbers or names; default: all")
    add(
        "--guidance", dest="cfg", type=float, default=2.0, metavar="SCALE", help="default 2; 1: off"
    )
    add(
        "--guidance-channels", dest="cfg_channels", type=int, metavar="N",
        help="guide only the first N channels; default: all",
    )  # fmt: skip
    add(
        "--guidance-interval", dest="cfg_interval", type=float, nargs=2, metavar=("LOW", "HIGH"),
        default=[0.0, 1.0], help="guide only where timestep/1000 lies within; default: everywhere",
    )  # fmt: skip
    add("--steps", type=int, default=50, help="sampling steps; default 50")
    add("--sampler", choices=["ddpm", "ddim", "dpm++", "unipc"], default="ddpm")
    add("--seed", type=int, default=0)
    add("--batch-size", type=int, default=100, metavar="N", help="default 100")
    add("--checkpoint", choices=["last", "best"], default="last")
    add("--no-ema", action="store_true", help="use the last weights, not the averaged ones")
    add("--bf16", action="store_true", help="run the model in bfloat16")
    add("--classifier", metavar="RUN", help="a classifier run: count the samples it recognizes")
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
