#!/usr/bin/env python3
"""FID, Inception score, KID, precision and recall of generated images against real ones.

  python tools/fid.py --real images/ --fake samples.npz --metrics fid,is,kid,prc
  python tools/fid.py --real VIRTUAL_imagenet256_labeled.npz --fake runs/dit --number 50000
  python tools/fid.py --real configs/data/digits.yaml --fake runs/dit --extractor run:runs/vit_ti

A source is a folder of images, an .npz (images as ADM's arr_0, or statistics mu, sigma), a data
config, or a run, which is sampled. With torchrun every process takes its share.
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
    add("--real", required=True, metavar="SOURCE")
    add("--fake", required=True, metavar="SOURCE")
    add("overrides", nargs="*", metavar="key=value", help="of a data config given as a source")
    add("--split", choices=["train", "validation", "test"], default="train", help="of data configs")
    add("--fake-split", choices=["train", "validation", "test"], help="where it differs")
    add("--extractor", default="inception", help="inception, dinov2, timm:NAME or run:PATH")
    add("--weights", metavar="FILE", help="weights of the extractor")
    add("--metrics", default="fid", help="some of fid,is,kid,prc,sfid")
    add("--resize", choices=["legacy", "antialias"], default="legacy", help="legacy: TensorFlow's")
    add("--number", type=int, metavar="N", help="images of each set; a run's default: 50000")
    add("--batch-size", type=int, default=64, metavar="N")
    add("--num-workers", type=int, default=0, metavar="N", help="processes that read a folder")
    add("--seed", type=int, default=2020, help="of subsets and samples")
    add("--device", help="cpu, cuda, ...; default: the accelerator, where there is one")
    add("--confidence-groups", type=int, default=5, metavar="G", help="of the jackknife; 0: none")
    add("--max-features", type=int, default=10_000, metavar="N", help="kept for kid and prc")
    add("--kid-subset-size", type=int, default=1000, metavar="N")
    add("--steps", type=int, default=250, help="sampling steps of a run")
    add("--guidance", type=float, default=1.0, help="guidance scale of a run")
    add("--sampler", default="ddpm", help="sampler of a run")
    add("--cache", metavar="DIR", help="of reference statistics, or off; default: ~/.cache/vision")
    add("--save-stats", metavar="FILE.npz", help="statistics of the real set")
    add("--json", metavar="FILE")
    arguments = parser.parse_intermixed_args()

    from vision.evaluation.generative.report import run  # imports torch and timm: seconds

    run(vars(arguments))


if __name__ == "__main__":
    run_tool(main)
