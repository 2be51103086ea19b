"""Which metrics a run will have in its summary.json, known before it starts."""

from __future__ import annotations

from vision.config import Config
from vision.metrics.base import Options
from vision.registry import METRICS, TASKS
from vision.tasks.base import VisionTask


def final_metrics(config: Config) -> list[str]:
    """Names of the metrics at the end of a run.

    `val/fid` or `val/fd`: which of the two depends on the weights of the extractor; both are named.
    """
    task: type[VisionTask] = TASKS.get(config.task)
    stages = ["val"] if config.data.test_split is None else ["val", "test"]
    splits = [f"{stage}/{name}" for stage in stages for name in task.metric_names(config)]
    skipped = ["data/skipped"] if config.data.on_corrupt == "skip" else []
    return [*splits, *_of_callbacks(config), *skipped, "train/loss"]


def _of_callbacks(config: Config) -> list[str]:
    if config.task == "mae" and config.mae.knn_every_n_epochs is not None:
        return ["val/knn_top1"]
    if config.task != "dit" or config.evaluation.extractor is None:
        return []
    outputs = [output for name in config.evaluation.metrics for output in METRICS.get(name).outputs]
    of_inception = [False, True] if config.evaluation.extractor == "inception" else [False]
    names = [name for either in of_inception for o in outputs for name in o.logged(either).values()]
    if config.evaluation.number < 2 * Options.confidence_groups:  # too few for two in each group
        names = [name for name in names if name not in ("fid_error", "fd_error")]
    return [f"val/{name}" for name in dict.fromkeys(names)]
