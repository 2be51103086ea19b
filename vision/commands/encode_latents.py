"""Encode a data set with a VAE, so that a DiT can be trained on the latents.

  python tools/encode_latents.py configs/data/imagenet.yaml data.root=/datasets/imagenet \\
      data.img_size=256 --vae stabilityai/sd-vae-ft-ema --output /datasets/imagenet_latents
  python tools/train.py configs/dit_b4.yaml configs/recipes/imagenet_dit.yaml \\
      configs/norm/seednorm.yaml data.root=/datasets/imagenet_latents

Writes the mean and standard deviation of the latents of each image and its mirror image, from which
training draws, to OUTPUT/SPLIT/shard_*.safetensors. Run the same command again to continue.
"""

from pathlib import Path
from typing import NoReturn

from vision.commands.arguments import tool_parser
from vision.config import load_config
from vision.config.load import split_arguments
from vision.errors import ConfigError, run_tool
from vision.notices import loading
from vision.text import show


def main() -> None:
    """Parse the command line and do what it says."""
    parser = tool_parser(__doc__)
    parser.add_argument("data", nargs="+", metavar="CONFIG.yaml|key=value")
    parser.add_argument("--vae", required=True, help="AutoencoderKL: hub id or folder")
    parser.add_argument("--output", required=True, metavar="DIR", help="the data.root of the DiT")
    parser.add_argument(
        "--shard-size", type=int, default=10_000, metavar="N", help="images per file"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images")
    arguments = parser.parse_intermixed_args()
    loaded = load_config(*split_arguments(arguments.data))
    if min(arguments.shard_size, arguments.batch_size) < 1:
        raise ConfigError("--shard-size and --batch-size: expected 1 or more")

    with loading("torch and diffusers"):
        from vision.diffusion.encode_latents import encode_latents

    output = Path(arguments.output)
    sizes = (arguments.shard_size, arguments.batch_size)
    try:
        counts = encode_latents(loaded.config, arguments.vae, output, *sizes)
    except (ValueError, FileNotFoundError) as error:
        raise loaded.locate(error) from error
    for split, count in counts.items():
        show(f"{split:<16} {count:,} images in {output / split}")


def run() -> NoReturn:
    """`vision-encode-latents`, or `python tools/encode_latents.py`."""
    run_tool(main)
