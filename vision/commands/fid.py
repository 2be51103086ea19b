"""FID, Inception score, KID, precision and recall of generated images against real ones.

  python tools/fid.py --real images/ --fake samples.npz --metrics fid,is,kid,prc
  python tools/fid.py --real VIRTUAL_imagenet256_labeled.npz --fake runs/dit --number 50000
  python tools/fid.py --real configs/data/digits.yaml --fake runs/dit --extractor run:runs/vit_ti

IMAGES is a folder of images, an .npz (images as ADM's arr_0, or statistics mu, sigma), a data
config, or a run, which is sampled. With torchrun each process computes a part of the features.
"""

from typing import Any, NoReturn, get_args

from vision.commands.arguments import tool_parser
from vision.config.schema import EvaluationConfig, Sampler
from vision.errors import run_tool
from vision.notices import loading
from vision.registry import METRICS


def main() -> None:
    """Parse the command line and do what it says."""
    parser = tool_parser(__doc__)
    add, sampling = parser.add_argument, EvaluationConfig()
    n: Any = {"type": int, "metavar": "N"}
    add("--real", required=True, metavar="IMAGES", help="real images")
    add("--fake", required=True, metavar="IMAGES", help="generated images")
    add("overrides", nargs="*", metavar="key=value", help="settings of a data config")
    split = add("--split", choices=["train", "validation", "test"], default="train")
    split.help = "split of a data config (default: train)"
    add("--fake-split", choices=split.choices, help="split of --fake, if not that of --real")
    add("--extractor", default="inception", help="inception (default), dinov2, timm:NAME, run:PATH")
    add("--weights", metavar="FILE", help="weights of the extractor (default: fetched once)")
    add("--metrics", default="fid", help=f"some of {','.join(METRICS.names())} (default: fid)")
    add("--resize", choices=["legacy", "antialias"], default="legacy", help="legacy: as TensorFlow")
    add("--number", **n, help="generated images to use (default: all; of a run 50000)")
    add("--real-number", **n, help="real images to use (default: all)")
    add("--batch-size", **n, default=64, help="images per batch (default: 64)")
    add("--num-workers", **n, default=0, help="processes that decode a folder's images")
    add(
        "--seed",
        type=int,
        default=2020,
        help="of random subsets and of a run's images (in training: the run's seed)",
    )
    add("--device", help="cpu, cuda, ... (default: the accelerator, if there is one)")
    add("--confidence-groups", **n, default=5, help="jackknife groups for FID's error; 0: no error")
    add("--max-features", **n, default=10_000, help="features kept of each set, for kid and prc")
    add("--kid-subset-size", **n, default=1000, help="images per subset of KID (default: 1000)")
    add("--steps", **n, default=sampling.num_inference_steps, help="sampling steps of a run")
    add("--guidance", type=float, default=sampling.guidance_scale, help="guidance scale of a run")
    add("--sampler", choices=get_args(Sampler), help="of a run (default: ddpm, or its pipeline's)")
    add("--cache", metavar="DIR", help="where statistics of --real are kept, or off")
    add("--save-stats", metavar="FILE.npz", help="write the statistics of --real")
    add("--json", metavar="FILE", help="write the metrics and all settings they depend on")
    arguments = parser.parse_intermixed_args()

    with loading("torch and timm"):
        from vision.evaluation.generative.comparison_report import report_comparison

    report_comparison(vars(arguments))


def run() -> NoReturn:
    """`vision-fid`, or `python tools/fid.py`."""
    run_tool(main)
