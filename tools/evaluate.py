#!/usr/bin/env python3
"""Evaluate a classifier (accuracy, loss, calibration, confusion matrix, speed), or export it.

The same as `vision-evaluate` of the installed package.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision.commands.evaluate import run

if __name__ == "__main__":
    run()
