#!/usr/bin/env python3
"""Draw what norms do to inputs of another size, and print it as a table.

The same as `vision-anatomy` of the installed package.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision.commands.anatomy import run

if __name__ == "__main__":
    run()
