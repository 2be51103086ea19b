"""What to type to make a comparison again."""

from __future__ import annotations

from pathlib import Path

from vision.compare.grid import to_yaml
from vision.compare.report.collect import Comparison

_ROOT = Path(__file__).resolve().parents[3]


def how_to_run_again(comparison: Comparison) -> str:
    """Lines for a shell in a checkout of this repository; its own configs are named from there."""
    kept = {str(run.environment.get("git_commit") or "") for run in comparison.runs} - {""}
    where = f"commit {kept.pop()}" if len(kept) == 1 else "one of the commits below"
    return (
        f"# in a checkout of {where}\n"
        f"cat > compare.yaml <<'END'\n{to_yaml(comparison.config, _ROOT)}END\n"
        "python tools/compare.py compare.yaml"
    )
