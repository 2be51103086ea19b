#!/usr/bin/env python3
"""Measure what norms cost in time and memory, and how fast images are loaded.

The same as `vision-benchmark` of the installed package.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision.commands.benchmark import run

if __name__ == "__main__":
    run()
