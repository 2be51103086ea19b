#!/usr/bin/env python3
"""Generate images with a trained DiT: PNG files, grid.png, and samples.npz for ADM's evaluation.

The same as `vision-sample` of the installed package.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision.commands.sample import run

if __name__ == "__main__":
    run()
