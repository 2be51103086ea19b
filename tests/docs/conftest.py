"""The pages, their code blocks, and a folder in which their commands find what they name."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer

from vision.checkpoints.mae_formats import to_official
from vision.models.mae import MAE

ROOT = Path(__file__).parents[2]
FILES = ["README.md", "data/README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]

Blocks = Callable[[str, str], list[tuple[str, str]]]


@pytest.fixture(scope="session")
def texts() -> dict[str, str]:
    """The text of every page by its path from the root."""
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in sorted(FILES)}


@pytest.fixture(scope="session")
def pages(texts: dict[str, str]) -> dict[str, str]:
    """All pages but docs/extending.md, which tests/test_extending.py follows step by step."""
    return {name: text for name, text in texts.items() if name != "docs/extending.md"}


@pytest.fixture(scope="session")
def blocks() -> Blocks:
    """Code blocks of some languages in order, each with the ```text block right below it, or ""."""

    def find(text: str, languages: str) -> list[tuple[str, str]]:
        text = re.sub(r"(?ms)^  ```(.*?)^  ```", lambda m: re.sub(r"(?m)^  ", "", m[0]), text)
        pattern = rf"(?ms)^```(?:{languages})\n(.*?)^```\n(?:\n*^```text\n(.*?)^```\n)?"
        return [(code, output or "") for code, output in re.findall(pattern, text)]

    return find


@pytest.fixture(scope="session")
def home(pages: dict[str, str], blocks: Blocks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages' commands read, all of them small, but no runs."""
    home = tmp_path_factory.mktemp("home")
    for name in ("configs", "tools"):
        (home / name).symlink_to(ROOT / name)
    for folder in ("datasets/imagenet", "my_images", "ROOT"):
        for split in ("train", "val"):
            for label in ("a", "b"):
                (home / folder / split / label).mkdir(parents=True)
                Image.new("RGB", (32, 32)).save(home / folder / split / label / "0.png")
    for split in ("train", "validation"):
        (home / "datasets" / "imagenet_latents" / split).mkdir(parents=True)
        (home / "datasets" / "imagenet_latents" / split / "index.json").write_text("{}")
    encoder = VisionTransformer(embed_dim=24, depth=1, num_heads=12, num_classes=0)
    mae = MAE(encoder, decoder_embed_dim=32, decoder_depth=1)
    torch.save({"model": to_official(mae)}, home / "mae_visualize_vit_base.pth")
    for text in pages.values():
        for code, _ in blocks(text, "python"):
            if named := re.match(r"# (\w+\.py)\n", code):  # a file that other snippets use
                (home / named[1]).write_text(code, encoding="utf-8")
    return home


@pytest.fixture(scope="session")
def home_with_runs(home: Path, trained: Path, trained_dit: Path) -> Path:
    """The same folder with the two runs that the library page uses."""
    for run, source in (("vit_ti_seednorm", trained), ("dit_b4_seednorm", trained_dit)):
        shutil.copytree(source, home / "runs" / run)
    return home
