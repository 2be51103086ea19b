"""Names that hold escape codes, markup, line breaks and formulas: in terminals, pages, pictures."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ESCAPES = "\x1b[31mred\x1b]0;title\x07\r\u202eback\u2028"
MARKUP = "<img src=x onerror=alert(1)>|[link](http:)`code`[/bold]"
LATEX = r"\input{a} #%& ~^"
CLASSES = (f"ant {ESCAPES}\nerror: forged", f"bee {MARKUP} $x^$ \"'")
TINY = [
    "configs/vit_ti.yaml", "configs/data/imagefolder.yaml", "configs/norm/seednorm.yaml",
    "norm.options.num_heads=4", "model.patch_size=4", "data.img_size=8", "data.num_workers=0",
    "trainer.batch_size_total=4", "trainer.epochs=1", "optim.warmup_epochs=0",
]  # fmt: skip


def printed(result: subprocess.CompletedProcess) -> str:
    """What a tool printed, in lines of nothing but what can be printed."""
    text = result.stdout + result.stderr
    wrong = {c for c in text if not c.isprintable() and c != "\n"}
    assert not wrong
    assert not any(line.startswith("error: forged") for line in text.split("\n"))
    return text


def setting(key: str, path: Path) -> str:
    return f"{key}={json.dumps(str(path))}"


class Run:
    """A run on folders of such names, in a folder of such a name."""

    def __init__(self, forked, small: list[str], home: Path) -> None:
        self.images = home / f"images {ESCAPES}\nerror: forged"
        random = np.random.default_rng(0)
        for place in ("train", "val"):
            for name in CLASSES:
                folder = self.images / place / name
                folder.mkdir(parents=True)
                for index in range(4):
                    pixels = random.integers(0, 256, (9, 9, 3), np.uint8)
                    Image.fromarray(pixels).save(folder / f"{index} {ESCAPES}.png")
        output = home / f"runs {ESCAPES} {MARKUP}".replace("/", "")
        kept = [text for text in small if not text.startswith(("trainer.batch", "trainer.epochs"))]
        self.arguments = [*kept, *TINY, setting("data.root", self.images)]
        self.arguments += [setting("output_dir", output), "name=run"]
        self.trained = forked("tools/train.py", *self.arguments)
        self.folder = output / "run"


@pytest.fixture(scope="module")
def run(forked, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(forked, small, tmp_path_factory.mktemp("hostile"))


@pytest.mark.slow
def test_a_terminal_gets_no_escape_codes_and_a_name_no_second_line(
    run: Run, forked, small: list[str], tmp_path: Path
) -> None:
    said = printed(run.trained)
    assert "\\x1b[31mred\\x1b]0;title\\x07\\r\\u202eback\\u2028\\nerror: forged" in said
    picture = tmp_path / f"{ESCAPES}.png"
    said = printed(forked("tools/preview.py", *run.arguments, "--output", picture))
    assert "written  " in said and picture.is_file()  # with the names of the classes
    said = printed(forked("tools/train.py", *run.arguments, "--print-config"))
    assert "they are shown as escapes" in said
    broken = run.images / "train" / CLASSES[0] / f"0 {ESCAPES}.png"
    content = broken.read_bytes()
    broken.write_bytes(b"no image")
    said = printed(forked("tools/preview.py", *run.arguments, "--output", picture, code=2))
    assert "cannot read image " in said
    broken.write_bytes(content)
    said = printed(forked("tools/train.py", *run.arguments, ESCAPES, code=2))
    assert "\\x1b[31m" in said
    said = printed(forked("tools/fid.py", "--real", "a", "--fake", "b", "--no\x1b", code=2))
    assert "\\x1b" in said


@pytest.mark.slow
def test_what_python_prints_of_warnings_and_unforeseen_errors_is_escaped_too(
    forked, small: list[str], tmp_path: Path
) -> None:
    module = tmp_path / "loud.py"
    module.write_text(
        "import warnings\n"
        "from vision.norms import Norm, register_norm\n\n\n"
        '@register_norm("loud")\n'
        "class Loud(Norm):\n"
        "    def __init__(self, dim, **options):\n"
        "        super().__init__(dim, **options)\n"
        f"        warnings.warn({ESCAPES!r})\n"
        f"        raise KeyError({ESCAPES!r} + 'unforeseen')\n"
    )
    arguments = ["configs/vit_ti.yaml", *small, "norm.name=loud", f"norm.module={module}"]
    said = printed(
        forked("tools/train.py", *arguments, f"output_dir={tmp_path}", "name=a", code=None)
    )
    assert "UserWarning: \\x1b[31mred" in said and "unforeseen" in said


@pytest.mark.slow
def test_neither_card_nor_pictures_take_names_for_markup(run: Run, forked, tmp_path: Path) -> None:
    other = run.folder / "<b>x|y.ckpt"
    shutil.copy(run.folder / "last.ckpt", other)
    for checkpoint in (run.folder, other):
        printed(forked("tools/evaluate.py", checkpoint, "--split", "validation"))
    assert (run.folder / "confusion_validation.png").is_file()
    export = tmp_path / f'exported "{MARKUP.replace("/", "")}```{ESCAPES}'
    printed(forked("tools/evaluate.py", run.folder, "--export", export))
    card = (export / "README.md").read_text()
    assert all(c.isprintable() or c == "\n" for c in card)
    outside, inside = [], None  # of blocks of code
    for line in card.split("\n"):
        fence = re.match("`{3,}", line)
        if fence and inside is None:
            inside = fence[0]
        elif line == inside:
            inside = None
        elif inside is None:
            outside.append(line)
    assert inside is None and outside[-2].startswith("`CITATION.cff`")
    assert not [line for line in outside if re.search(r"<|[^\\]\|[a-z]|\]\(", line)]
    assert any("&lt;b&gt;x\\|y" in line for line in outside)
    loader = card.partition("python\n")[2].partition("\n`")[0]
    names: dict = {}
    exec(loader, names)
    assert isinstance(names["model"], torch.nn.Module)


@pytest.mark.slow
def test_fid_names_sets_of_images_as_they_are(fid, run: Run, tmp_path: Path) -> None:
    for kind in (ESCAPES, "[red]a[bold]"):
        folder = tmp_path / kind
        folder.mkdir()
        for index in range(20):
            pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
        _, said = fid("--real", folder, "--fake", folder)
        assert all(c.isprintable() or c == "\n" for c in said)
        shown = "[red]a[bold]" if "red]" in kind else "\\x1b[31mred"
        assert shown in re.sub(r"\n *", "", said)


def write_comparison(folder: Path, name: str, norm: str = "dyt", metric: str = "test/top1") -> None:
    """What another person's comparison might hold; classes are those of its last.ckpt."""
    grid = {
        "name": name,
        "output_dir": f"{ESCAPES}{MARKUP}",
        "norms": {"layernorm": {}, norm: {}},
        "seeds": [0],
        "tasks": {"dit": {"metric": metric, "columns": [MARKUP + LATEX]}},
    }
    folder.mkdir()
    (folder / "compare.yaml").write_text(json.dumps(grid))
    run = folder / "dit" / "layernorm_seed0"
    (run / "samples").mkdir(parents=True)
    Image.new("RGB", (40, 20)).save(run / "samples/step_0000020.png")
    torch.save({"vision": {"class_names": list(CLASSES)}}, run / "last.ckpt")
    (run / "summary.json").write_text(json.dumps({"metrics": {metric: 1.0}, "parameters": 1}))
    (run / "environment.json").write_text(json.dumps([{"device": MARKUP + ESCAPES}]))
    state = {"cell": f"dit/{norm}_seed0", "state": "failed", "message": MARKUP + ESCAPES}
    (folder / "status.json").write_text(json.dumps([{**state, "seconds": 1}]))


@pytest.mark.slow
@pytest.mark.parametrize("metric", [f"test/{MARKUP}", f"test/{ESCAPES}"])
def test_a_strangers_comparison_puts_nothing_into_the_page(
    metric: str, forked, read_tags, tmp_path: Path
) -> None:
    write_comparison(tmp_path / "compared", "compared", metric=metric)
    printed(forked("tools/report.py", tmp_path / "compared"))
    reports = {p.suffix: p.read_text() for p in (tmp_path / "compared").glob("report.*")}
    for text in (reports[".html"], reports[".md"], reports[".tex"]):
        assert not {c for c in text if not c.isprintable() and c != "\n"}
    tags = read_tags(reports[".html"]).found
    assert {tag for tag, _ in tags} & {"script", "iframe"} == set()
    assert not [a for _, a in tags if "onerror" in a]
    sources = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert sources and all(s is not None and s.startswith("data:image/png") for s in sources)
    assert "ant \\x1b[31mred" in reports[".html"] and "&lt;img src=x" in reports[".html"]
    lines = reports[".md"].strip().split("\n")
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert len(cells) == 1 and "<img" not in reports[".md"] and "](" not in reports[".md"]
    assert (
        r"\textbackslash{}input\{a\} \#\%\& \textasciitilde{}\textasciicircum{}" in reports[".tex"]
    )


@pytest.mark.parametrize(
    ("name", "norm"), [(MARKUP, "dyt"), ("a\nb", "dyt"), ("a", MARKUP), ("a", f"dyt{ESCAPES}")]
)
def test_names_of_comparisons_and_norms_are_those_of_folders(
    name: str, norm: str, forked, tmp_path: Path
) -> None:
    write_comparison(tmp_path / "compared", name, norm)
    said = printed(forked("tools/report.py", tmp_path / "compared", code=2))
    (line,) = said.strip().split("\n")
    assert line.startswith("error: ") and ("name = " in line or "norms." in line)
    assert "letters, digits and ._+-" in line
