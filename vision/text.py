"""Text on its way to a person, who may not have written it.

Names of files, folders, classes and tensors may hold escape sequences, line breaks, marks that turn
the direction of writing, and the signs of a markup language. All that this package prints goes
through `show` (ruff allows no other `print`). Imports no torch.
"""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from types import TracebackType

_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def printable(text: str) -> str:
    """`text` in one line, without control characters: a line break becomes a backslash and n."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def show(*lines: str, error: bool = False) -> None:
    """Print each of `lines`, as `printable` makes it, to stdout, or to stderr as an `error`."""
    file = sys.stderr if error else sys.stdout
    file.write("".join(f"{printable(line)}\n" for line in lines))  # at once: others write there too
    file.flush()


def show_what_python_prints() -> None:
    """Let warnings, and the tracebacks of errors that nobody handles, go through `show`."""
    formatted = warnings.formatwarning
    warnings.formatwarning = lambda *about: "".join(
        f"{printable(line)}\n" for line in formatted(*about).rstrip("\n").split("\n")
    )
    sys.excepthook = _show_traceback


def _show_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    text = "".join(traceback.format_exception(kind, error, trace))
    show(*text.rstrip("\n").split("\n"), error=True)


def markdown(text: str) -> str:
    """`text` for a line or a cell of Markdown, in which it starts no tag, link, cell or code."""
    escaped = re.sub(r"[\\`*|$]", r"\\\g<0>", printable(text)).replace("](", "]\\(")
    return re.sub("[&<>]", lambda sign: _MARKUP[sign[0]], escaped)


def fenced(text: str, language: str) -> str:
    """A block of code in Markdown that `text` cannot end."""
    fence, lines = _ticks(text, 3), map(printable, text.split("\n"))
    return "\n".join([f"{fence}{language}", *lines, fence])


def code(text: str) -> str:
    """A span of code in Markdown that `text` cannot end."""
    ticks, line = _ticks(text, 1), printable(text)
    space = " " if "`" in line else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def _ticks(text: str, least: int) -> str:
    """More of them than there are anywhere in `text`."""
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])


def picture_text(text: str) -> str:
    """`text` for a picture: matplotlib takes what is between two dollar signs for a formula."""
    return printable(text).replace("$", r"\$")
