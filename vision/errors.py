"""Errors that a person can act on, and what a command-line script makes of them.

Imports no torch.
"""

from __future__ import annotations

import difflib
import errno
import re
import sys
from collections.abc import Callable, Collection
from typing import NoReturn

from vision.text import printable, show, show_what_python_prints

DIVERGED = 3  # exit code of a training that diverged
_MOST_LETTERS = 1000  # of an error
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK = (*_FULL, errno.EROFS, errno.EIO)  # of a disk, even where no file is named


class ConfigError(ValueError):
    """A configuration that cannot be run; the message is one line for the person who wrote it.

    Whatever the configuration holds: it is cut where it is long, and has no control characters.
    """

    def __init__(self, message: str) -> None:
        line = printable(message)
        if len(line) > _MOST_LETTERS:
            half = _MOST_LETTERS // 2
            line = f"{line[:half]} ... {line[-half:]}"
        super().__init__(line)


class UnwritableError(OSError):
    """A checkpoint that could not be written; the one before it is intact."""


class PlaceError(OSError):
    """A place to write to that is refused before anything is computed; errno and filename say why.

    It is bad input, where the same refusal in the middle of the work is the disk's.
    """


class CorruptImageError(RuntimeError):
    """An image that cannot be decoded; the message is one line with its path.

    Its only argument is that line, because a data loader rebuilds the exceptions of its workers
    from a text.
    """

    @classmethod
    def of(cls, path: str, reason: object) -> CorruptImageError:
        """The error for one image."""
        cause = " ".join(str(reason).split()) or type(reason).__name__
        return cls(f"cannot read image {path}: {cause}; remove it or set data.on_corrupt=skip")


def corrupt_line(error: CorruptImageError) -> str:
    """The one line of the error, out of the traceback that a worker's error carries in its text."""
    lines = re.findall(r"^(?:[\w.]*CorruptImageError: )?(cannot read .*)$", str(error), re.M)
    return lines[-1] if lines else str(error)


def nearest(value: object, choices: Collection[str]) -> str:
    """'did you mean X?' and the choices where they are few; for the end of an error message."""
    names = {name.lower(): name for name in choices}
    close = difflib.get_close_matches(str(value).lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean '{names[close[0]]}'?" if close else ""
    listed = f"valid: {', '.join(choices)}" if len(names) <= 24 or not close else ""
    return " ".join(filter(None, [hint, f"({listed})" if hint and listed else listed]))


def first_line(error: object) -> str:
    """The first line of an error's message, or its kind where the message is empty."""
    return str(error).partition("\n")[0] or type(error).__name__


def disk_problem(error: OSError) -> str | None:
    """'FILE: what is wrong', where the system refused to open, make or write a file; else None."""
    if error.errno in _DISK or (error.errno is not None and error.filename is not None):
        return f"{error.filename or 'a file could not be written'}: {error.strerror}"
    return None


def nondeterministic(error: RuntimeError) -> str | None:
    """The operation that torch refuses to compute in deterministic mode; None for other errors."""
    found = re.match(r"(\S+) does not have a deterministic implementation", str(error))
    return found and found[1]


def run_tool(main: Callable[[], None]) -> NoReturn:
    """Run a script's `main` and exit with its code.

    0: done; 2 and one line: bad input, or a file or a place that the system refuses from the start;
    1: a disk that is full, or that gave way in the middle of the work (it became read-only, or
    failed), and whatever kept training from writing on; 3: training diverged, or images are not
    finite; 130: Ctrl-C. Any other exception is a fault of ours and shows its traceback.
    """
    show_what_python_prints()
    try:
        main()
    except ConfigError as error:
        _stop(str(error), 2)
    except CorruptImageError as error:
        _stop(corrupt_line(error), 2)
    except FloatingPointError as error:
        _stop(str(error), DIVERGED)
    except UnwritableError as error:
        _stop(str(error), 1)
    except OSError as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        _stop(f"{problem}; expected a place that can be read and written", _code_of(error))
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    sys.exit(0)


def _code_of(error: OSError) -> int:
    """1 for a disk that is full, or that gave way after the work had begun; else 2."""
    found = _FULL if isinstance(error, PlaceError) else _DISK
    return 1 if error.errno in found else 2


def _stop(line: str, code: int) -> NoReturn:
    show(f"error: {line}", error=True)
    sys.exit(code)
