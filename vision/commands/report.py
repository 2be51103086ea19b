"""Turn the directory of a comparison into a page: report.html, and its table as .md, .tex, .csv.

  python tools/report.py runs/digits

The page needs no network and no other file. It can be written while the comparison still runs.
"""

from pathlib import Path
from typing import NoReturn

from vision.commands.arguments import tool_parser
from vision.errors import ConfigError, run_tool
from vision.files import check_writable
from vision.notices import loading
from vision.text import show


def main() -> None:
    """Parse the command line and do what it says."""
    parser = tool_parser(__doc__)
    parser.add_argument("directory", type=Path, help="what tools/compare.py wrote")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: the same directory")
    arguments = parser.parse_args()

    with loading("torch and matplotlib"):
        from vision.compare.report.collect import read_comparison
        from vision.compare.report.page import ENDINGS, write_report

    try:
        comparison = read_comparison(arguments.directory)
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from None
    output = arguments.output or arguments.directory
    for ending in ENDINGS:
        check_writable(output / f"report.{ending}")
    for path in write_report(comparison, output):
        show(str(path))


def run() -> NoReturn:
    """`vision-report`, or `python tools/report.py`."""
    run_tool(main)
