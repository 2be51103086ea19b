"""Runs many calls of the tools in one process: `calls.py parse|run FILE`.

FILE holds a list of [tool, argument, ...] as JSON; printed is a list of [exit code, output].
`parse` stops a tool where it has parsed its arguments.
"""

import argparse
import contextlib
import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any


def stop_after(name: str) -> None:
    """Make a method of ArgumentParser end the call with 0 where it returns."""
    parse = getattr(argparse.ArgumentParser, name)

    def parse_and_stop(*arguments: Any, **options: Any) -> None:
        parse(*arguments, **options)
        sys.exit(0)

    setattr(argparse.ArgumentParser, name, parse_and_stop)


def answer(call: list[str]) -> tuple[object, str]:
    """The exit code of one call and all that it printed."""
    sys.argv = call
    output, code = io.StringIO(), None
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            runpy.run_path(call[0], run_name="__main__")
        except SystemExit as end:
            code = end.code
    return code or 0, output.getvalue()


mode, file = sys.argv[1:]
if mode == "parse":
    stop_after("parse_args")
    stop_after("parse_intermixed_args")
print(json.dumps([answer(call) for call in json.loads(Path(file).read_text())]))
