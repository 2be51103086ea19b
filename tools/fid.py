#!/usr/bin/env python3
"""FID, Inception score, KID, precision and recall of generated images against real ones.

  python tools/fid.py --real images/ --fake samples.npz --metrics fid,is,kid,prc
  python tools/fid.py --real VIRTUAL_imagenet256_labeled.npz --fake runs/dit --number 50000
  python tools/fid.py --real configs/data/digits.yaml --fake runs/dit --extractor run:runs/vit_ti

IMAGES is a folder of images, an .npz (images as ADM's arr_0, or statistics mu, sigma), a data
config, or a run, which is sampled. With torchrun each process computes a part of the features.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision.config.schema import EvaluationConfig, Sampler
from vision.errors import run_tool
from vision.registry import METRICS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, sampling = parser.add_argument, EvaluationConfig()
    add("--real", required=True, metavar="IMAGES")
    add("--fake", required=True, metavar="IMAGES")
    add("overrides", nargs="*", metavar="key=value", help="of a data config")
    splits = ["train", "validation", "test"]
    add("--split", choices=splits, default="train", help="of a data config")
    add("--fake-split", choices=splits, help="of --fake, if another")
    add("--extractor", default="inception", help="inception, dinov2, timm:NAME or run:PATH")
    add("--weights", metavar="FILE", help="weights of the extractor")
    add("--metrics", default="fid", help=f"some of {','.join(METRICS.names())}; default: fid")
    add("--resize", choices=["legacy", "antialias"], default="legacy", help="legacy: as TensorFlow")
    add("--number", type=int, metavar="N", help="images of each set; default: all (50000)")
    add("--batch-size", type=int, default=64, metavar="N")
    add("--num-workers", type=int, default=0, metavar="N", help="processes that read a folder")
    add("--seed", type=int, default=2020, help="of random subsets and generated images")
    add("--device", help="cpu, cuda, ...; default: the accelerator, if any")
    add("--confidence-groups", type=int, default=5, metavar="G", help="of the jackknife; 0: none")
    add("--max-features", type=int, default=10_000, metavar="N", help="kept for kid and prc")
    add("--kid-subset-size", type=int, default=1000, metavar="N")
    add("--steps", type=int, default=sampling.num_inference_steps, help="sampling steps of a run")
    add("--guidance", type=float, default=sampling.guidance_scale, help="guidance scale of a run")
    add("--sampler", choices=get_args(Sampler), default=sampling.sampler, help="of a run")
    add("--cache", metavar="DIR", help="for statistics of --real, or off; default ~/.cache/vision")
    add("--save-stats", metavar="FILE.npz", help="write the statistics of --real")
    add("--json", metavar="FILE", help="write the metrics and every setting")
    arguments = parser.parse_intermixed_args()

    # imports torch and timm: seconds
    from vision.evaluation.generative.comparison_report import report_comparison

    report_comparison(vars(arguments))


if __name__ == "__main__":
    run_tool(main)
