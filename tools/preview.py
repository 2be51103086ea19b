#!/usr/bin/env python3
"""Draw the first training images as the model will see them: cropped, augmented, with classes.

The same as `vision-preview` of the installed package.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision.commands.preview import run

if __name__ == "__main__":
    run()
