"""Generate images with a trained DiT: PNG files, grid.png, and samples.npz for ADM's evaluation.

  python tools/sample.py runs/dit_b4_seednorm --number 1000 --guidance 2 --steps 50 --out samples/
  python tools/sample.py runs/dit_b4_seednorm --classes 3 8 --sampler dpm++ --steps 20 --out eights/
  torchrun --nproc-per-node 8 tools/sample.py RUN --number 50000 --steps 250 --out samples/

Image i depends on --seed and i only, not on the number of processes or on interruptions: run the
same command again to continue. RUN is a run directory, a .ckpt file or a saved pipeline's folder.
"""

from pathlib import Path
from typing import NoReturn, get_args

from vision.commands.arguments import tool_parser
from vision.config.schema import Sampler
from vision.errors import run_tool
from vision.notices import loading


def main() -> None:
    """Parse the command line and do what it says."""
    parser = tool_parser(__doc__)
    add = parser.add_argument
    add("run", metavar="RUN")
    add("--out", required=True, metavar="DIR")
    add("--number", dest="count", type=int, default=100, metavar="N", help="images; default 100")
    add("--classes", nargs="+", metavar="CLASS", help="numbers or names; default: all")
    add("--guidance", dest="guidance_scale", type=float, default=2.0, help="1: none; default 2")
    add("--guidance-channels", type=int, metavar="N", help="guide only the first N; default: all")
    add(
        "--guidance-interval", type=float, nargs=2, metavar=("LOW", "HIGH"), default=(0.0, 1.0),
        help="guide only where LOW <= timestep/1000 <= HIGH",
    )  # fmt: skip
    add("--steps", dest="num_inference_steps", type=int, default=50, metavar="N", help="default 50")
    add("--sampler", choices=get_args(Sampler), help="default: ddpm; of a saved pipeline its own")
    add("--seed", type=int, default=0, help="default 0")
    add("--batch-size", type=int, default=100, metavar="N", help="default 100")
    add("--checkpoint", choices=["last", "best"], default="last", help="default last")
    add("--no-ema", dest="ema", action="store_false", help="use the weights without averaging")
    add("--bf16", action="store_true", help="run the model in bfloat16")
    add("--classifier", metavar="RUN", help="count the images that this classifier recognizes")
    options = vars(parser.parse_args())
    classifier = options.pop("classifier")

    with loading("torch and diffusers"):
        from vision.diffusion.sample import sample_command
        from vision.evaluation.classifier import report_recognized

    settings = sample_command(**options)
    if settings is not None and classifier is not None:
        report_recognized(classifier, settings, Path(options["out"]))


def run() -> NoReturn:
    """`vision-sample`, or `python tools/sample.py`."""
    run_tool(main)
