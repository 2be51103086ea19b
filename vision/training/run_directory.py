"""Run directories: `output_dir/name` and what lies in it.

config.yaml        the resolved configuration
environment.json   versions, git commit, device, command line; one entry per start
metrics.csv        one row per logged step;  tensorboard/  the same for TensorBoard
last.ckpt          everything for an exact resume;  previous.ckpt  the one before it
best.ckpt          weights of the best validation
diagnostics.csv    what the norms do, where trainer.diagnostics_every_n_steps is set
test_predictions.npz  of a classifier: class and prediction of each test image
curves.png         loss and accuracy;  summary.json  final metrics, written at the very end
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vision.config import Config, load_config, save_config
from vision.config.load import leaf_keys
from vision.files import check_folder, write_json
from vision.lock import lock
from vision.notices import is_first_process, notice
from vision.training.devices import check_launch

# keys that may change on resume: none changes the results, apart from the number of devices, each
# of which draws its own dropout and mixup, and from the split of a batch into accumulated parts,
# over which norms with running statistics take them (the run says so)
_FREE_KEYS = {
    "output_dir",
    "data.root",
    "data.download",
    "data.num_workers",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.batch_size_device",
    "trainer.sharded_checkpoint",
    "trainer.checkpoint_every_n_steps",
    "trainer.checkpoint_every_n_minutes",
    "trainer.diagnostics_every_n_steps",
    "trainer.log_every_n_steps",
    "trainer.progress_bar",
    "trainer.loggers",
}
# beginnings of keys that a run may go on with although another run with them would be another one:
# nothing is trained with them any more, or ever
_FREE_ON_RESUME = (
    "model.init_from",
    "evaluation.",
    "dit.sample_",
    "dit.vae",
    "mae.pictures",
    "mae.knn_",
)


def run_directory(config: Config) -> Path:
    """Where the run of `config` lives."""
    return Path(config.output_dir) / config.name


def check_run(config: Config, resume: bool) -> dict[str, list[Any]]:
    """Settings that the run is resumed with and did not have: [before, now] by key.

    Raises ValueError if it cannot be started or resumed without damage to an existing one: if the
    directory holds a run and `resume` is false, or if the saved configuration differs in a key that
    changes results; nor can it if torchrun or srun started it for other devices. Raises OSError if
    the directory, or a folder in it, cannot be written to. Only the first process of a run looks:
    the others find the directory that it made. Imports no torch.
    """
    check_launch(config.trainer, os.environ)
    if not is_first_process():
        return {}
    folder = run_directory(config)
    saved = folder / "config.yaml"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"name = {config.name}: {folder} is a file, expected a folder")
    if saved.exists() and not resume:
        raise ValueError(
            f"name = {config.name}: {folder} holds a run already and is not overwritten; "
            "continue it with --resume, or choose another name=..."
        )
    changes = (
        _accepted_changes(load_config([saved]).config, config, folder) if saved.exists() else {}
    )
    if not (folder / "summary.json").exists():  # else there is nothing left to write
        inside = filter(Path.is_dir, folder.iterdir()) if folder.is_dir() else ()
        for place in (folder, *inside):
            check_folder(place)
    return changes


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other programs out of a run directory that exists; raises ConfigError if one is in it.

    Only the first process of a run asks: the others work in the directory with it.
    """
    if not is_first_process():
        yield
        return
    with lock(folder):
        yield


def open_run(config: Config) -> None:
    """Only the first process writes `config.yaml`, and removes what a killed one half wrote."""
    if is_first_process():
        folder = run_directory(config)
        _remove_leftovers(folder)
        save_config(config, folder / "config.yaml")


def _remove_leftovers(folder: Path) -> None:
    beside_pictures = [path for path in folder.glob("*/*.tmp") if path.parent.suffix != ".tmp"]
    leftovers = [*folder.glob("*.tmp"), *beside_pictures]
    for path in leftovers:
        before = path.with_name(path.name.removesuffix(".old.tmp"))
        if path.name.endswith(".old.tmp") and not before.exists():
            path.rename(before)  # a folder that was about to be replaced by a new one
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    if leftovers:
        notice(f"{folder}: {len(leftovers)} half-written *.tmp of a killed process removed")


def record_start(
    folder: Path, record: dict[str, Any], resumed_from: int | None, changed: dict[str, list[Any]]
) -> None:
    """Append one start to `environment.json`; `changed` is what `check_run` returned."""
    path = folder / "environment.json"
    starts = _starts(folder)
    starts.append({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **record})
    starts[-1] |= {"resumed_from_step": resumed_from, "changed": changed, "saved": False}
    write_json(path, starts)


def record_save(folder: Path) -> None:
    """Note that the last start has a checkpoint; call it when the first one is in its place."""
    starts = _starts(folder)
    if starts:  # a file that somebody took away is no reason to stop
        starts[-1]["saved"] = True
        write_json(folder / "environment.json", starts)


def was_saved(folder: Path) -> bool | None:
    """Whether the run had a checkpoint; None where nothing says so, as in older runs."""
    starts = _starts(folder)
    if any(s.get("saved") or s.get("resumed_from_step") is not None for s in starts):
        return True
    return False if starts and all("saved" in start for start in starts) else None


def _starts(folder: Path) -> list[dict[str, Any]]:
    path = folder / "environment.json"
    return json.loads(path.read_text()) if path.exists() else []


def read_summary(folder: Path) -> dict[str, Any] | None:
    """`summary.json` of a finished run, None where it has not finished."""
    path = folder / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def changed_settings(saved: Config, given: Config) -> Iterator[tuple[str, Any, Any]]:
    """Keys that change results and differ, with both values."""
    return (change for change in _changes(saved, given) if change[0] not in _FREE_KEYS)


def _changes(saved: Config, given: Config) -> Iterator[tuple[str, Any, Any]]:
    for key in leaf_keys(Config):
        old, new = (functools.reduce(getattr, key.split("."), c) for c in (saved, given))
        if not dataclasses.is_dataclass(old) and old != new:
            yield key, old, new


def _accepted_changes(saved: Config, given: Config, folder: Path) -> dict[str, list[Any]]:
    for key, old, new in changed_settings(saved, given):
        if key.startswith(_FREE_ON_RESUME):
            continue
        raise ValueError(
            f"{key} = {new!r}: the run in {folder} has {old!r}; resume it with the same "
            f"configuration ({folder / 'config.yaml'}), or choose another name=..."
        )
    return {key: [old, new] for key, old, new in _changes(saved, given)}
