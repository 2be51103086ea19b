"""Train a model from config files and overrides.

  python tools/train.py configs/vit_b_seednorm.yaml
  python tools/train.py configs/vit_ti.yaml norm.name=dyt seed=1 name=dyt_seed1
  python tools/train.py configs/vit_b_seednorm.yaml configs/recipes/imagenet_vit_b.yaml \\
      data.root=/datasets/imagenet

Later files and overrides win. The run goes to OUTPUT_DIR/NAME, by default runs/<first config>:
resolved config, metrics.csv, TensorBoard log, last.ckpt, best.ckpt, curves.png, summary.json. An
existing run is never overwritten: --resume continues it exactly where it was, even after a kill.
--plan trains nothing: memory, step time and GPU hours on H100s, computed without data or GPU.
"""

from typing import NoReturn

from vision.commands.arguments import add_config, tool_parser
from vision.config.load import to_yaml
from vision.errors import run_tool
from vision.notices import loading, metric_text, notice
from vision.text import show
from vision.training.check import load_checked
from vision.training.run_directory import check_run


def main() -> None:
    """Parse the command line and do what it says."""
    parser = tool_parser(__doc__)
    add_config(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run if it exists")
    parser.add_argument(
        "--print-config", action="store_true", help="show the resolved configuration and stop"
    )
    parser.add_argument("--plan", action="store_true", help="estimate memory and time, and stop")
    parser.add_argument("--images", type=int, metavar="N", help="training images, for --plan")
    arguments = parser.parse_intermixed_args()
    loaded = load_checked([arguments.config, *arguments.more], data=not arguments.plan)
    if arguments.print_config:
        lines = to_yaml(loaded.config).rstrip("\n").split("\n")
        show(*lines)
        if not all(line.isprintable() for line in lines):
            notice("it holds characters that cannot be printed; they are shown as escapes")
        return
    if arguments.plan:
        with loading("torch and timm"):
            from vision.training.plan.tables import plan_run

        show(*plan_run(loaded, arguments.images).split("\n"))
        return
    with loaded.located():
        check_run(loaded.config, arguments.resume)
        with loading("torch, timm and Lightning"):
            from vision.training.train import train

        summary = train(loaded.config, arguments.resume)
    stage = "test/"
    if loaded.config.data.test_split is None:
        stage = "val/"
        show("no data.test_split: the last weights on the validation split")
    final = {k: v for k, v in summary["metrics"].items() if k.startswith(stage)}
    show(*(f"{k:<16} {metric_text(v)}" for k, v in final.items()))


def run() -> NoReturn:
    """`vision-train`, or `python tools/train.py`."""
    run_tool(main)
