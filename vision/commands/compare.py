"""Train every norm on every task with every seed, then write the report.

  python tools/compare.py configs/compare/digits.yaml
  python tools/compare.py configs/compare/mnist5k.yaml --dry-run
  python tools/compare.py configs/compare/digits.yaml seeds=[0] name=quick --jobs 2
  python tools/compare.py configs/compare/mnist5k.yaml tune=null --sbatch=--gres=gpu:1
  python tools/compare.py configs/compare/imagenet_vit_b.yaml --plan

Each cell is a run of tools/train.py in OUTPUT_DIR/NAME/TASK/LABEL_seedSEED; where the grid has
`tune`, trials come before, LABEL_trialHASH_seedSEED, and the best are trained. A second call leaves
finished and diverged cells alone, resumes interrupted ones and tries failed ones again; runs whose
settings are no longer those of the grid are refused. SIGTERM and Ctrl-C stop the runs when they
have saved.
"""

from typing import NoReturn

from vision.commands.arguments import tool_parser
from vision.compare.grid import load_compare
from vision.config.load import split_arguments
from vision.errors import run_tool
from vision.notices import loading


def main() -> None:
    """Parse the command line and do what it says."""
    parser = tool_parser(__doc__)
    parser.add_argument("config", help="YAML file, as in configs/compare/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. seeds=[0]")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs at a time; default 1"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="count the cells, measure a few steps of each, stop"
    )
    parser.add_argument(
        "--plan", action="store_true", help="GPU hours, computed without data or GPU; stop"
    )
    parser.add_argument(
        "--sbatch",
        nargs="*",
        action="extend",
        metavar="OPTION",
        help="write SLURM job arrays instead of running; --sbatch=OPTION for each of sbatch's",
    )
    parser.add_argument(
        "--rerun", action="store_true", help="put runs aside whose settings are not the grid's"
    )
    arguments = parser.parse_intermixed_args()

    _, overrides = split_arguments(arguments.overrides)
    config = load_compare(arguments.config, overrides)

    with loading("torch, timm and Lightning"):
        from vision.compare.run_comparison import run_comparison

    run_comparison(
        config,
        arguments.jobs,
        arguments.dry_run,
        arguments.plan,
        arguments.sbatch,
        arguments.rerun,
    )


def run() -> NoReturn:
    """`vision-compare`, or `python tools/compare.py`."""
    run_tool(main)
