"""Draw the first training images as the model will see them: cropped, augmented, with classes.

  python tools/preview.py configs/vit_ti.yaml
  python tools/preview.py configs/vit_b_seednorm.yaml configs/recipes/imagenet_vit_b.yaml \\
      data.root=/datasets/imagenet --number 32 --output imagenet.png

Takes what tools/train.py takes, trains nothing, and needs no GPU.
"""

from pathlib import Path
from typing import NoReturn

from vision.commands.arguments import add_config, tool_parser
from vision.errors import run_tool
from vision.notices import loading
from vision.training.check import load_checked


def main() -> None:
    """Parse the command line and do what it says."""
    parser = tool_parser(__doc__)
    add_config(parser)
    parser.add_argument("--number", type=int, default=24, metavar="N", help="images (default: 24)")
    parser.add_argument("--output", type=Path, default=Path("preview.png"), metavar="FILE")
    arguments = parser.parse_intermixed_args()
    if not 1 <= arguments.number <= 400:
        parser.error(f"--number {arguments.number}: expected 1 to 400")
    if arguments.output.suffix not in (".png", ".pdf", ".svg"):
        parser.error(f"--output {arguments.output}: expected a .png, .pdf or .svg file")
    loaded = load_checked([arguments.config, *arguments.more])

    with loading("torch and timm"):
        from vision.training.preview import write_preview

    with loaded.located():
        write_preview(loaded.config, arguments.number, arguments.output)


def run() -> NoReturn:
    """`vision-preview`, or `python tools/preview.py`."""
    run_tool(main)
