"""Where the splits of a data set are, and which names mean the same split. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vision.config.schema import DataConfig

# the only place that knows synonyms; "test" does not mean validation: only the user may decide to
# use the one for the other
_SYNONYMS = (
    ("train", "training"),
    ("validation", "val", "valid", "eval", "evaluation"),
    ("test", "testing"),
)


def synonyms(split: str) -> tuple[str, ...]:
    """`split` itself, then other names that mean it."""
    for names in _SYNONYMS:
        if split in names:
            return (split, *(name for name in names if name != split))
    return (split,)


def canonical(split: str) -> str:
    """ "val" -> "validation", "training" -> "train"; unknown names are returned as they are."""
    return next((names[0] for names in _SYNONYMS if split in names), split)


def split_key(config: DataConfig, split: str) -> str:
    """The configuration key that holds `split`, for error messages."""
    keys = ("train_split", "val_split", "test_split")
    return next((f"data.{key}" for key in keys if getattr(config, key) == split), "split")


def config_splits(config: DataConfig) -> tuple[str, ...]:
    """The distinct splits that `config` names: train, validation and, where given, test."""
    wanted = (config.train_split, config.val_split, config.test_split)
    return tuple(dict.fromkeys(split for split in wanted if split is not None))


def no_split(config: DataConfig, split: str, found: Iterable[str], expected: str) -> str:
    """The error message for a missing split."""
    key = split_key(config, split)
    names = list(found)
    listed = ", ".join(names[:8] + ["..."] * (len(names) > 8)) or "none"
    return (
        f"{key} = {split!r}: no such split in {config.name}"
        f"{f' at {config.root}' if config.root else ''} (found: {listed}); "
        f"expected {expected}; set {key} to one that is there"
    )


def check_classes(config: DataConfig, names: Sequence[str]) -> None:
    """Raise ValueError where there is nothing to tell apart: fewer than two classes."""
    if len(names) < 2:
        where = f"data.root = {config.root!r}" if config.root else f"data.name = {config.name!r}"
        raise ValueError(
            f"{where}: has one class ({', '.join(names)}), a classifier needs two or more; put "
            "the images of each class in a folder of its own, or use task mae, which needs no "
            "classes"
        )


def find_folder(config: DataConfig, split: str) -> Path:
    """The sub-folder of `data.root` for `split`. Raises FileNotFoundError listing what is there."""
    root = _root(config)
    for name in synonyms(split):
        if (root / name).is_dir():
            return root / name
    found = [path.name for path in root.iterdir() if path.is_dir()]
    expected = f"a folder {' or '.join(synonyms(split))} with one sub-folder per class"
    raise FileNotFoundError(no_split(config, split, sorted(found), expected))


def find_shards(config: DataConfig, split: str) -> list[Path]:
    """WebDataset shards: root/SPLIT/*.tar, else root/*SPLIT-*.tar; sorted by name."""
    root = _root(config)
    for name in synonyms(split):
        # "train" in train-0000.tar and imagenet1k-train-0000.tar, not in pretrain-0000.tar
        word = re.compile(rf"(^|[-_.]){re.escape(name)}[-_.]")
        named = [path for path in _shards(root) if word.search(path.name)]
        if shards := _shards(root / name) or named:
            return shards
    found = [path.name for path in root.iterdir() if path.is_dir() or path.suffix == ".tar"]
    expected = f"shards {split}/*.tar or {split}-*.tar"
    raise FileNotFoundError(no_split(config, split, sorted(found), expected))


def find_latents(config: DataConfig, split: str) -> Path:
    """The folder root/SPLIT of encoded latents."""
    root = _root(config)
    for name in synonyms(split):
        if (root / name / "index.json").is_file():
            return root / name
    found = [path.parent.name for path in root.glob("*/index.json")]
    expected = f"{split}/index.json, which tools/encode_latents.py writes"
    raise FileNotFoundError(no_split(config, split, sorted(found), expected))


def _shards(folder: Path) -> list[Path]:
    # macOS puts a hidden ._NAME beside each file that it copies
    return sorted(p for p in folder.glob("*.tar") if p.is_file() and not p.name.startswith("."))


def _root(config: DataConfig) -> Path:
    assert config.root is not None, "check_data comes first"
    return Path(config.root).expanduser()
