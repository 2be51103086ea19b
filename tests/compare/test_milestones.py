"""Steps to a value, from rows of metrics.csv."""

import pytest

from vision.compare.milestones import Milestone, check_milestone, is_milestone, read_milestone

ROWS = {
    9: {"train/loss_step": 2.0},
    18: {"val/loss": 1.0, "val/top1": 50.0},
    29: {"train/loss_step": 0.4},
    37: {"val/loss": 0.5, "val/top1": 90.0},
    56: {"val/loss": 0.7, "val/top1": 95.0},
}


@pytest.mark.parametrize(
    ("column", "steps"),
    [
        ("steps to val/loss <= 0.5", 38),
        ("steps to val/loss <= 0.4999", None),
        ("steps to val/top1 >= 90", 38),
        ("steps to val/top1 >= 9e1", 38),
        ("steps to val/top1 >= 90.5", 57),
        ("steps to train/loss_step <= 2.0", 10),
        ("steps to val/nothing <= 1", None),
    ],
)
def test_the_first_row_that_passes_counts(column: str, steps: int | None) -> None:
    assert is_milestone(column)
    assert read_milestone(column).steps(ROWS) == steps


def test_a_loss_that_is_not_a_number_passes_nothing() -> None:
    rows = {0: {"val/loss": float("nan")}, 1: {"val/loss": 0.1}}
    assert Milestone("val/loss", True, 0.5).steps(rows) == 2


@pytest.mark.parametrize(
    "column",
    ["steps to val/loss", "steps to val/loss < 1", "steps to val/loss <= low", "steps to x <= nan"],
)
def test_other_forms_are_refused_with_the_right_one(column: str) -> None:
    with pytest.raises(ValueError, match=r"expected steps to METRIC <= VALUE"):
        read_milestone(column)


def test_only_what_runs_follow_can_be_passed() -> None:
    final = ["val/loss", "test/loss", "train/loss"]
    check_milestone("steps to train/loss_step <= 1", final)
    check_milestone("steps to val/loss <= 1", final)
    for metric in ("test/loss", "val/los"):
        with pytest.raises(ValueError, match=f"do not follow {metric}; did you mean '(train|val)/"):
            check_milestone(f"steps to {metric} <= 1", final)
