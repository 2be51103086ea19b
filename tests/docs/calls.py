"""Runs many calls of the tools in one process: `calls.py parse|check|run FILE`.

FILE holds a list of [tool, argument, ...] as JSON; printed is a list of [exit code, output].
`parse` stops a tool where it has parsed its arguments. `check` makes all checks that come before a
training and gives its directory instead.
"""

import argparse
import contextlib
import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

from vision.training.build import check_build
from vision.training.check import load_checked
from vision.training.run_directory import run_directory


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


def check(call: list[str]) -> tuple[object, str]:
    """0 and the run's directory of a call of tools/train.py, 2 and the error of a wrong one."""
    try:
        config = load_checked([word for word in call[1:] if not word.startswith("--")]).config
        check_build(config)
    except (ValueError, FileNotFoundError) as error:
        return 2, str(error)
    return 0, str(run_directory(config))


mode, file = sys.argv[1:]
if mode == "parse":
    stop_after("parse_args")
    stop_after("parse_intermixed_args")
work = check if mode == "check" else answer
print(json.dumps([work(call) for call in json.loads(Path(file).read_text())]))
