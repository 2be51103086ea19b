"""Draw what a masked autoencoder reconstructs of your images: original, masked, reconstruction.

  python tools/reconstruct.py runs/mae_ti_seednorm photo.png other.jpg --output picture.png
  python tools/reconstruct.py mae_visualize_vit_large.pth photo.jpg --num-heads 16

CHECKPOINT is an MAE run, its .ckpt file, or a published file with a decoder (give --num-heads then,
and --norm-pix-loss if it was trained on normalized pixels).
"""

from pathlib import Path
from typing import NoReturn

from vision.commands.arguments import tool_parser
from vision.errors import run_tool
from vision.notices import loading


def main() -> None:
    """Parse the command line and do what it says."""
    parser = tool_parser(__doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--output", type=Path, default=Path("reconstruction.png"), metavar="FILE")
    parser.add_argument(
        "--mask-ratio",
        type=float,
        metavar="R",
        help="fraction (default: as trained)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random masks")
    parser.add_argument("--num-heads", type=int, metavar="N", help="of a published file's encoder")
    parser.add_argument(
        "--decoder-num-heads", type=int, default=16, metavar="N", help="default: 16"
    )
    parser.add_argument("--norm-pix-loss", action="store_true", help="of a published file")
    arguments = parser.parse_args()
    if arguments.mask_ratio is not None and not 0 < arguments.mask_ratio < 1:
        parser.error(f"--mask-ratio {arguments.mask_ratio}: expected a number between 0 and 1")

    with loading("torch and timm"):
        from vision.evaluation.reconstructions import write_reconstructions

    write_reconstructions(**vars(arguments))


def run() -> NoReturn:
    """`vision-reconstruct`, or `python tools/reconstruct.py`."""
    run_tool(main)
