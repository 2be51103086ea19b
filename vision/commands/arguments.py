"""What the command lines of the tools begin with."""

from __future__ import annotations

import shutil
import textwrap
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import NoReturn

from vision.text import printable


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def tool_parser(description: str | None) -> ArgumentParser:
    """A parser that shows a tool's docstring: commands as written, prose as wide as the screen."""
    width = max(20, shutil.get_terminal_size().columns - 2)  # as argparse has it
    prose = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    blocks = (description or "").split("\n\n")
    text = "\n\n".join(b if "\n " in f"\n{b}" else prose.fill(b) for b in blocks)
    return _Parser(description=text, formatter_class=RawDescriptionHelpFormatter)


def add_config(parser: ArgumentParser) -> None:
    """`config`, and `more` of what is laid over it: files and key=value."""
    parser.add_argument("config", help="YAML file, as in configs/")
    parser.add_argument("more", nargs="*", metavar="OVERLAY.yaml|key=value")
