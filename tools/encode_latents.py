#!/usr/bin/env python3
"""Encode a data set with a VAE, so that a DiT can be trained on the latents.

The same as `vision-encode-latents` of the installed package.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision.commands.encode_latents import run

if __name__ == "__main__":
    run()
