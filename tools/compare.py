#!/usr/bin/env python3
"""Train every norm on every task with every seed, then write the report.

The same as `vision-compare` of the installed package.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision.commands.compare import run

if __name__ == "__main__":
    run()
