#!/usr/bin/env python3
"""Draw what a masked autoencoder reconstructs of your images: original, masked, reconstruction.

The same as `vision-reconstruct` of the installed package.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision.commands.reconstruct import run

if __name__ == "__main__":
    run()
