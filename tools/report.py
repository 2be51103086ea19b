#!/usr/bin/env python3
"""Turn the directory of a comparison into a page: report.html, and its table as .md, .tex, .csv.

The same as `vision-report` of the installed package.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision.commands.report import run

if __name__ == "__main__":
    run()
