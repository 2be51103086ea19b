"""The table of metrics survives resumes."""

from pathlib import Path

from vision.training.callbacks.metrics_csv import MetricsCSV, read_metrics


def test_rows_of_one_step_are_merged_and_read_back(tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path / "metrics.csv")
    log.log_metrics({"train/loss": 2.0}, step=0)
    log.log_metrics({"val/top1": 50.0}, step=0)
    log.log_metrics({"train/loss": 0.1}, step=9)
    log.save()
    rows = read_metrics(tmp_path / "metrics.csv")
    assert rows == {0: {"train/loss": 2.0, "val/top1": 50.0}, 9: {"train/loss": 0.1}}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_resuming_keeps_the_past_and_drops_what_will_be_logged_again(tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path / "metrics.csv")
    for step in range(10):
        log.log_metrics({"loss": float(step)}, step=step)
    log.save()
    resumed = MetricsCSV(tmp_path / "metrics.csv", resume_step=5)
    assert (tmp_path / "metrics.csv").exists()
    assert sorted(resumed.rows) == [0, 1, 2, 3, 4, 5]
    fresh = MetricsCSV(tmp_path / "metrics.csv")
    assert fresh.rows == {}
