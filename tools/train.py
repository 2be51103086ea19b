#!/usr/bin/env python3
"""Train a model from config files and overrides.

The same as `vision-train` of the installed package.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision.commands.train import run

if __name__ == "__main__":
    run()
