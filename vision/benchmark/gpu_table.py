"""The record of `tools/benchmark.py gpu` as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def markdown(record: dict[str, Any]) -> str:
    """Tests, norms and steps, each with its ratio to LayerNorm's."""
    environment, tests = record["environment"], record["tests"]
    lines = [
        f"# {environment['device']}, torch {environment['packages']['torch']}",
        "",
        f"Commit {environment['git_commit']}{', changed' if environment['git_dirty'] else ''}; "
        f"{record['wall_seconds']:.0f} s.",
        "",
        f"Tests marked gpu: {tests['summary']}.",
        *(f"- {line}" for line in tests["failures"]),
        "",
        *_table(
            "norm|by|rows x width|forward GB/s|of a copy|f+b GB/s|of a copy|f+b / LayerNorm",
            [_norm(result) for result in record["norms"]],
        ),
        "",
        *_table(
            "model|batch|norm|torch.compile|step ms|/ LayerNorm|peak GiB",
            [_step(result, record["steps"]) for result in record["steps"]],
        ),
    ]
    return "\n".join(lines) + "\n"


def _norm(result: dict[str, Any]) -> list[str]:
    size = result["rows"] * result["dim"] * 2  # bytes of bfloat16
    return [
        result["norm"],
        result["implementation"],
        f"{result['rows']} x {result['dim']}",
        f"{2 * size / result['forward'] / 1e9:.0f}",  # one read and one write
        f"{result['forward_copy_fraction']:.0%}",
        f"{5 * size / result['forward_backward'] / 1e9:.0f}",  # three reads and two writes
        f"{result['forward_backward_copy_fraction']:.0%}",
        f"{result['forward_backward_ratio']:.2f}",
    ]


def _step(result: dict[str, Any], all_results: list[dict[str, Any]]) -> list[str]:
    kind = [result["model"], str(result["batch"]), result["norm"]]
    kind.append("yes" if result["compiled"] else "no")
    if result["seconds"] is None:
        return [*kind, result["failure"], "", ""]
    same = ("model", "batch", "compiled")
    (base,) = (
        other["seconds"]
        for other in all_results
        if other["norm"] == "layernorm" and all(other[key] == result[key] for key in same)
    )
    peak = result["peak_bytes"]
    return [
        *kind,
        f"{result['seconds'] * 1e3:.1f}",
        f"{result['seconds'] / base:.3f}" if base else "",
        f"{peak / 2**30:.1f}" if peak else "",
    ]


def _table(titles: str, rows: Sequence[Sequence[str]]) -> list[str]:
    names = titles.split("|")
    return [
        f"| {' | '.join(names)} |",
        f"|{'---|' * len(names)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
