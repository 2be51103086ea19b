"""Evaluate a classifier (accuracy, loss, calibration, confusion matrix, speed), or export it.

  python tools/evaluate.py runs/vit_b_seednorm
  python tools/evaluate.py runs/vit_b_seednorm configs/data/imagefolder.yaml data.root=my_digits
  python tools/evaluate.py runs/vit_b_seednorm --export exported/
  python tools/evaluate.py vit_base_patch16_224 --weights vit_b.safetensors \\
      configs/data/imagenet.yaml data.root=/datasets/imagenet

An overlay says where the images are; size, mean and std stay those of training. Metrics are
printed, and written with a picture, confusion_SPLIT.png.
"""

from typing import NoReturn

from vision.commands.arguments import tool_parser
from vision.config.load import split_arguments
from vision.errors import run_tool
from vision.notices import loading


def main() -> None:
    """Parse the command line and do what it says."""
    parser = tool_parser(__doc__)
    parser.add_argument("model", metavar="RUN|CHECKPOINT|TIMM_MODEL")
    parser.add_argument("data", nargs="*", metavar="OVERLAY.yaml|key=value")
    parser.add_argument("--weights", metavar="FILE", help="weights of a timm model")
    parser.add_argument("--checkpoint", choices=["last", "best"], default="last", help="of a run")
    parser.add_argument("--ema", action="store_true", help="evaluate the averaged weights")
    parser.add_argument("--split", choices=["validation", "test"], default="test", help="of data")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="default: 64")
    parser.add_argument("--output", metavar="DIR", help="default: next to the checkpoint")
    parser.add_argument("--export", metavar="DIR", help="only write it for timm and Hugging Face")
    parser.add_argument("--push-to-hub", metavar="REPO", help="upload what --export wrote")
    parser.add_argument("--corruptions", metavar="NAME,...", help="also top-1 under these, or: all")
    arguments = parser.parse_intermixed_args()
    if arguments.push_to_hub is not None and arguments.export is None:
        parser.error("--push-to-hub uploads an export: give --export DIR too")
    files, overrides = split_arguments(arguments.data)

    with loading("torch and timm"):
        from vision.evaluation.evaluate import report_evaluation

    report_evaluation(
        files=files,
        overrides=overrides,
        **{k: v for k, v in vars(arguments).items() if k != "data"},
    )


def run() -> NoReturn:
    """`vision-evaluate`, or `python tools/evaluate.py`."""
    run_tool(main)
