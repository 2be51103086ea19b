#!/usr/bin/env python3
"""FID, Inception score, KID, precision and recall of generated images against real ones.

The same as `vision-fid` of the installed package.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision.commands.fid import run

if __name__ == "__main__":
    run()
