"""Draw what norms do to inputs of another size, and print it as a table.

  python tools/anatomy.py layernorm rmsnorm seednorm dyt --output picture.png
  python tools/anatomy.py seednorm seednorm:num_heads=16,alpha_init=0.5
  python tools/anatomy.py --run runs/vit_ti_seednorm --output layers.png
  python tools/anatomy.py --run runs/vit_ti_seednorm --coefficients --output coefficients.png

The input grows from 0.01 to 100 times; shown are the output's size, the norm of the Jacobian, how
much of the input's norm the output keeps, and how far the norm is saturated. NORM is a name, with
options behind a colon; without one, all norms are drawn on random tokens. --run draws every norm of
a trained model, each on what it gets from validation images. With --coefficients the picture shows
instead, for each SeeDNorm of a trained ViT, its coefficient tanh(x·β) over the patches of images.
"""

from pathlib import Path
from typing import NoReturn

from vision.commands.arguments import tool_parser
from vision.errors import run_tool
from vision.notices import loading


def main() -> None:
    """Parse the command line and do what it says."""
    parser = tool_parser(__doc__)
    add = parser.add_argument
    add("norms", nargs="*", metavar="NORM", help="NAME or NAME:key=value,... (default: all)")
    add("--run", metavar="RUN", help="run directory or checkpoint to take the norms from")
    dynamic = add("--coefficients", action="store_true")
    dynamic.help = "draw SeeDNorm's coefficient per patch of the run's images"
    add("--output", type=Path, default=Path("anatomy.png"), metavar="FILE", help="the picture")
    add("--width", type=int, metavar="N", help="channels of random tokens (default: 192)")
    noise = add("--noise", type=float, metavar="STD")
    noise.help = "of what weight-decayed parameters are moved by; 0: start values (1/sqrt(width))"
    add("--images", type=int, metavar="N", help="validation images of a run (default: 8)")
    add("--seed", type=int, default=0, help="of random tokens and noise, or of a run's masks")
    arguments = parser.parse_intermixed_args()
    for_run, for_names = ["images", "coefficients"], ["norms", "width", "noise"]
    for key in for_run if arguments.run is None else for_names:
        if getattr(arguments, key) not in (None, [], False):
            parser.error(
                f"{key}: has no effect {'without' if arguments.run is None else 'with'} --run"
            )
    if arguments.output.suffix not in (".png", ".pdf", ".svg"):
        parser.error(
            f"--output {arguments.output}: expected a name that ends in .png, .pdf or .svg"
        )

    with loading("torch and timm"):
        from vision.evaluation.anatomy.coefficients import report_coefficients
        from vision.evaluation.anatomy.report import report_anatomy

    if arguments.coefficients:
        report_coefficients(arguments.run, arguments.images or 8, arguments.output)
        return
    report_anatomy(**{k: v for k, v in vars(arguments).items() if k != "coefficients"})


def run() -> NoReturn:
    """`vision-anatomy`, or `python tools/anatomy.py`."""
    run_tool(main)
