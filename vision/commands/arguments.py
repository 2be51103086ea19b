"""What the command lines of the tools begin with."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import NoReturn

from vision.text import printable


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def tool_parser(description: str | None) -> ArgumentParser:
    """A parser that shows a tool's docstring as it is written."""
    return _Parser(description=description, formatter_class=RawDescriptionHelpFormatter)


def add_config(parser: ArgumentParser) -> None:
    """`config`, and `more` of what is laid over it: files and key=value."""
    parser.add_argument("config", help="YAML file, as in configs/")
    parser.add_argument("more", nargs="*", metavar="OVERLAY.yaml|key=value")
