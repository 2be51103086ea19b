"""What the pages name exists: links, files, modules, keys of the configuration, options."""

import pkgutil
import re
from pathlib import Path

from vision.config.load import leaf_keys
from vision.config.schema import Config

ROOT = Path(__file__).parents[2]
SECTIONS = "|".join({key.partition(".")[0] for key in leaf_keys(Config) if "." in key})


def slug(title: str) -> str:
    """The anchor that a heading gets on GitHub."""
    words = re.sub(r"[^\w\- ]", "", title.replace("`", "").lower())
    return words.strip().replace(" ", "-")


def expand(path: str) -> list[str]:
    """`a{b,c}` as a shell reads it."""
    match = re.search(r"\{([^{}]*)\}", path)
    if match is None:
        return [path]
    head, tail = path[: match.start()], path[match.end() :]
    return [p for part in match[1].split(",") for p in expand(head + part + tail)]


def test_every_relative_link_leads_somewhere(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            file = (ROOT / name).parent / path if path else ROOT / name
            assert file.exists(), f"{name}: {link}"
            if anchor:
                titles = re.findall(r"(?m)^#+ (.*)", file.read_text(encoding="utf-8"))
                assert anchor in map(slug, titles), f"{name}: {link}"


def test_every_file_and_module_exists(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        pattern = r"(?<![\w/.])((?:vision|configs|docs|tests|tools)/[\w./{},*-]*[\w/}*])"
        for found in re.findall(pattern, text):
            if re.search(r"[A-Z]{4}", found):  # a placeholder, as in configs/data/NAME.yaml
                continue
            for path in expand(found):
                assert any(ROOT.glob(path.rstrip("/"))), f"{name}: {path}"
        for module in re.findall(r"(?<![\w/])(vision(?:\.\w+)+)(?![\w/])", text):
            try:
                pkgutil.resolve_name(module)
            except (ImportError, AttributeError) as error:
                raise AssertionError(f"{name}: {module}: {error}") from None


def test_every_configuration_key_exists(texts: dict[str, str]) -> None:
    keys = set(leaf_keys(Config))
    for name, text in texts.items():
        for code in re.findall(r"`([^`\n]+)`", text):
            for key in re.findall(rf"(?<![\w./])((?:{SECTIONS})\.[a-z_.]+[a-z_])\b", code):
                if key.startswith("norm.options."):
                    key = "norm.options"
                assert key in keys, f"{name}: {key}"


def test_every_option_exists(texts: dict[str, str]) -> None:
    sources = [*(ROOT / "vision/commands").glob("*.py"), *(ROOT / "vision/benchmark").glob("*.py")]
    others = (
        "--node-rank",
        "--dependency",
        "--backend-store-uri",
    )  # torchrun's, sbatch's, MLflow's
    known = "".join(file.read_text(encoding="utf-8") for file in sources)
    for name, text in texts.items():
        for code in re.findall(r"`([^`\n]+)`", text):
            if code.startswith("sbatch "):
                continue
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", code):
                assert f'"{option}"' in known or option in others, f"{name}: {option}"


def test_the_readme_stays_short(pages: dict[str, str]) -> None:
    assert len(pages["README.md"].splitlines()) <= 200
