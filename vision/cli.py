"""What every command-line script shares: arguments, and errors a person can act on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from vision.config import ConfigError, LoadedConfig, load_config
from vision.config.check import check_config


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Config files, and `key=value` overrides."""
    overrides = [text for text in arguments if "=" in text]
    return [text for text in arguments if "=" not in text], overrides


def load_checked(arguments: Sequence[str]) -> LoadedConfig:
    """The configuration meant by `CONFIG.yaml [OVERLAY.yaml ...] [key=value ...]`, checked.

    Raises ConfigError with the place of the key at fault. Imports no torch.
    """
    loaded = load_config(*split_arguments(arguments))
    try:
        check_config(loaded.config)
    except (ValueError, FileNotFoundError) as error:
        raise loaded.locate(error) from None
    return loaded


def run_tool(main: Callable[[], None]) -> NoReturn:
    """Run a script's `main`: exit code 2 and one line for bad input, 3 for a training that
    diverged, 1 for a disk that cannot be written, 130 for Ctrl-C. Anything else is our fault and
    shows its traceback."""
    try:
        main()
    except ConfigError as error:
        _stop(str(error), 2)
    except FloatingPointError as error:
        _stop(str(error), 3)
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    except Exception as error:
        from vision.datasets.dataset import CorruptImageError, corrupt_line
        from vision.models.archive import UnwritableError

        if isinstance(error, UnwritableError):
            _stop(str(error), 1)
        if not isinstance(error, CorruptImageError):
            raise
        _stop(corrupt_line(error), 2)
    sys.exit(0)


def _stop(line: str, code: int) -> NoReturn:
    print(f"error: {line}", file=sys.stderr, flush=True)
    sys.exit(code)
