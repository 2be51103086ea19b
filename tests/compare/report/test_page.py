"""The report of a comparison whose results are written by the test, so that the truth is known."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from vision.compare.grid import compare_directory, load_compare, make_cells, save_compare
from vision.compare.report.collect import Comparison, read_comparison
from vision.compare.report.page import write_report
from vision.compare.report.results import task_results
from vision.compare.report.searches import search_table
from vision.compare.report.tables import make_rows, to_terminal

GRID = """
seeds: [0, 1, 2, 3, 4]
norms: {layernorm: {}, rmsnorm: {}, dyt: {}, derf: {}, groupnorm: {}}
variants: {seednorm_16: {norm: seednorm, options: {num_heads: 16}}}
tasks:
  classify:
    {margin: 2.5, columns: [val/loss, steps to val/loss <= 0.5], evaluate: [calibration_error]}
  dit: {metric: val/fd, higher_is_better: false}
tune: {space: {optim.lr: [1.0e-3, 2.0e-3, 4.0e-3]}, seeds: [9]}
"""
TRUTH = {"layernorm": 95, "rmsnorm": 95, "dyt": 85, "derf": 94, "groupnorm": 94, "seednorm_16": 99}
IMAGES = 2000


def write_run(folder: Path, metrics: dict[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    summary = {"metrics": metrics, "parameters": 1000}
    (folder / "summary.json").write_text(json.dumps(summary))


def write_pictures(folder: Path, dynamic: bool) -> None:
    """Diagnostics of three layers at three steps, those of the dynamic scale zero; samples."""
    layers = ("blocks.0.norm1", "blocks.10.norm1", "norm")
    names = [f"{layer}/input_rms" for layer in layers]
    names += [f"{layer}/dynamic_mean" for layer in layers] if dynamic else []
    lines = [["step", *names]]
    for step in (0, 10, 20):
        lines.append([str(step), *(str((0.1 + step) * ("rms" in name)) for name in names)])
    (folder / "diagnostics.csv").write_text("\n".join(map(",".join, lines)) + "\n")
    (folder / "samples").mkdir()
    Image.new("RGB", (40, 20)).save(folder / "samples/step_0000020.png")
    if dynamic:
        torch.save({"vision": {"class_names": ["ant", "bee"]}}, folder / "last.ckpt")


def predict(folder: Path, accuracy: float, seed: int, split: int) -> float:
    """Results image by image: hard images are hard for all; returns the accuracy."""
    target = np.random.default_rng(split).integers(0, 10, IMAGES, dtype=np.int32)
    hard = np.random.default_rng(7).random(IMAGES) * 100 >= accuracy - 0.5
    flips = np.random.default_rng(seed).random(IMAGES) < 0.005
    predicted = np.where(hard | flips, (target + 1) % 10, target)
    np.savez(folder / "test_predictions.npz", target=target, predicted=predicted)
    return 100 * float((target == predicted).mean())


def make_comparison(home: Path, split_by_seed: bool = False) -> Comparison:
    """Runs of which one of derf's, in the first task, diverged; trials are best at the highest
    rate, but dyt's, of which the highest diverges."""
    file = home / "known.yaml"
    file.write_text(GRID)
    config = load_compare(file, [f"output_dir={home}"])
    status = []
    for cells in make_cells(config).values():
        for number, cell in enumerate(cells):
            state, metric = "finished", config.tasks[cell.task].metric
            truth = TRUTH[cell.variant] if metric == "test/top1" else 100 - TRUTH[cell.variant]
            if cell.trial is not None:
                rate = dict(cell.trial.values)["optim.lr"]
                state = "diverged" if (cell.variant, rate) == ("dyt", 4e-3) else state
                value = truth + (100 if metric == "test/top1" else -100) * rate
                metrics = {metric.replace("test/", "val/"): value}
            elif (cell.task, cell.variant, cell.seed) == ("classify", "derf", 2):
                state, metrics = "diverged", {}
            else:
                noise = float(np.random.default_rng([number, cell.seed]).normal())
                metrics = {metric: truth + 0.2 * noise, "val/loss": 1 + noise}
            if state == "finished":
                write_run(cell.folder, metrics)
            if cell.task == "classify" and cell.trial is None and state == "finished":
                evaluated = {
                    "calibration_error": 100 - truth + 0.2 * noise,
                    "corruptions": {
                        "contrast": [truth - 9] * 5,
                        "gaussian_noise": [truth - 20] * 5,
                    },
                }
                (cell.folder / "evaluated").mkdir()
                file = cell.folder / "evaluated/evaluate_test.json"
                file.write_text(json.dumps(evaluated))
                lowest = 0.6 if (cell.variant, cell.seed) == ("rmsnorm", 4) else 0.5
                rows = f"step,val/loss\n9,2\n{20 + cell.seed},{lowest}\n39,0.9\n"
                (cell.folder / "metrics.csv").write_text(rows)
            if state == "finished" and "test/top1" in metrics:
                split = cell.seed if split_by_seed else 0
                summary = cell.folder / "summary.json"
                metrics["test/top1"] = predict(cell.folder, truth, cell.seed, split)
                summary.write_text(
                    json.dumps({**json.loads(summary.read_text()), "metrics": metrics})
                )
            status.append({"cell": str(cell), "state": state, "message": "loss", "seconds": 1})
            if cell.task == "dit" and cell.trial is None and cell.seed == 0:
                write_pictures(cell.folder, dynamic=cell.variant == "seednorm_16")
    folder = compare_directory(config)
    save_compare(config, folder / "compare.yaml")
    (folder / "status.json").write_text(json.dumps(status))
    return read_comparison(folder)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return make_comparison(tmp_path_factory.mktemp("known"))


@pytest.fixture(scope="module")
def page(comparison: Comparison) -> str:
    write_report(comparison, comparison.folder)
    return (comparison.folder / "report.html").read_text()


def test_verdicts_are_the_truth_and_a_divergence_is_never_no_difference(
    comparison: Comparison, page: str
) -> None:
    every = list(csv.DictReader((comparison.folder / "report.csv").open()))
    rows = [row for row in every if not row["metric"].startswith("evaluate/")]
    calibrated = [row for row in every if row not in rows]
    assert [row["norm"] for row in calibrated] == list(TRUTH)
    assert [row["verdict"] for row in calibrated] == [
        "", "undecided", "worse", "diverges (1 of 5)", "worse", "better",
    ]  # fmt: skip
    assert calibrated[3]["runs"] == "4 of 5, 1 diverged"
    assert "classify (evaluate/calibration_error, 5 seeds): seednorm_16 is better" in page
    assert "Lower evaluate/calibration_error is better." in page
    verdicts = {(row["task"], row["norm"]): row["verdict"] for row in rows}
    assert [verdicts["classify", norm] for norm in TRUTH] == [
        "", "equivalent", "worse", "diverges (1 of 5)", "equivalent", "better",
    ]  # fmt: skip
    # no margin: what is not shown to differ stays undecided
    assert [verdicts["dit", norm] for norm in TRUTH] == [
        "", "undecided", "worse", "worse", "worse", "better",
    ]  # fmt: skip
    assert "derf diverges (1 of 5)" in page and "no difference to" not in page
    table = (comparison.folder / "report.md").read_text()
    diverging = next(line for line in table.splitlines() if "diverges" in line)
    assert diverging.count("†") == 2  # at its difference and its mean
    assert "**seednorm_16**" in table and "[" not in diverging
    for row in rows:
        judged = row["norm"] != "layernorm" and not row["verdict"].startswith("diverges")
        assert bool(row["can_show"]) == judged
        assert bool(row["seeds_for_margin"]) == (judged and row["task"] == "classify")
        assert bool(row["val/loss"]) == (row["task"] == "classify")
    reached = {row["norm"]: row["steps to val/loss <= 0.5"] for row in rows if row["val/loss"]}
    assert (reached["layernorm"], reached["rmsnorm"]) == ("23.0", "22.5")  # 21..25, 21..24
    assert re.search(r"\| 22.5 ± 1.3 \(1 never\) \|", table)


def test_the_first_screen_has_the_answer_and_the_forest_of_each_task(read_tags, page: str) -> None:
    first = page[page.index("<body>") : page.index("<h2>")]
    assert "classify (test/top1, 5 seeds): seednorm_16 is better than layernorm" in first
    assert "rmsnorm and groupnorm are equivalent to layernorm within ±2.5" in first
    assert re.search(r"undecided: rmsnorm \(5 seeds show differences from [\d.]+\)", first)
    answers = re.findall(r"<strong>(.*?)</strong>", first)
    assert [answer.split(",")[0] for answer in answers] == ["classify (test/top1", "dit (val/fd"]
    assert "<li>classify (evaluate/calibration_error, 5 seeds)" in first
    assert re.findall(r"<caption>(\w+: each norm .*?)</caption>", page) == [
        "classify: each norm against layernorm by test/top1",
        "classify: each norm against layernorm by evaluate/calibration_error",
        "dit: each norm against layernorm by val/fd",
    ]
    alts = [image["alt"] for image in read_tags(first).of("img")]
    assert len(alts) == 2
    assert all(re.search(r"dyt [+-][\d.]+ \[.*\] worse", alt or "") for alt in alts)


def test_tables_begin_with_norm_difference_and_verdict_and_can_be_read_aloud(
    read_tags, page: str
) -> None:
    tags = read_tags(page)
    heads = re.findall(r'<th scope="col">(.*?)</th>', page)
    assert heads[:3] == ["norm", "difference [95 %]", "verdict"]
    assert all(head.get("scope") in ("col", "row") for head in tags.of("th"))
    assert len(tags.of("caption")) == len(tags.of("table"))
    scrolled = [d for d in tags.of("div") if d.get("class") == "wide"]
    assert scrolled and all(d.get("tabindex") == "0" and d.get("aria-label") for d in scrolled)
    assert all(image.get("alt") for image in tags.of("img"))


def test_a_terminal_of_80_columns_has_room_for_the_difference_and_its_verdict(
    comparison: Comparison,
) -> None:
    rows, console = make_rows(comparison), Console(file=io.StringIO(), width=80)
    console.print(to_terminal(rows))
    lines = console.file.getvalue().splitlines()
    start = lines.index(next(text for text in lines if text.startswith("classify, test/top1")))
    (line,) = [text for text in lines[start : start + 10] if "dyt" in text]
    mean = f"{rows[2].mean:.2f} ± {rows[2].std:.2g}"
    assert re.fullmatch(rf" +dyt +-10\.0 \[-\S+, -\S+\] +worse +{mean} *", line)
    assert any("diverges (1 of 5)" in text for text in lines)
    assert sum("seednorm_16" in text for text in lines) == 3


def test_trials_show_the_best_and_whether_it_lies_at_an_end(
    comparison: Comparison, page: str
) -> None:
    table = search_table(comparison, "classify")
    assert table is not None
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["rmsnorm"] == (
        "optim.lr = 0.004", "95.4", "optim.lr = 0.004, the highest tried", "3 of 3",
    )  # fmt: skip
    assert rows["dyt"] == (
        "optim.lr = 0.002", "85.2", "no", "2 of 3, 1 diverged",
    )  # fmt: skip
    assert "a wider range may hold a better one" in table.note and "dyt" not in table.note
    assert "optim.lr = 0.004, the highest tried" in page


def test_the_error_of_the_test_set_is_in_the_intervals_or_the_page_says_not(
    comparison: Comparison, page: str, tmp_path: Path
) -> None:
    result = task_results(comparison, "classify")[0]
    assert result.unit == 0.05 and "One image of the split is 0.05 points" in page
    assert "All seeds share 2000 test images" in result.test_set
    effect = result.effects["seednorm_16"]
    assert effect.low is not None and effect.high is not None
    # it differs on about 4 % of the images, the same for every seed
    reach = (effect.high - effect.low) / 2
    assert reach > 1.96 * 100 * (0.04 * 0.96 / IMAGES) ** 0.5
    assert "not part of the intervals" in task_results(comparison, "dit")[0].test_set
    own = make_comparison(tmp_path, split_by_seed=True)
    assert "Seeds have test sets of their own" in task_results(own, "classify")[0].test_set
    next(iter((tmp_path / "known/classify").glob("*/test_predictions.npz"))).unlink()
    assert "1 runs have no test_predictions" in task_results(own, "classify")[0].test_set


def test_heat_maps_of_all_norms_share_a_picture_and_what_is_zero_has_none(
    read_tags, page: str
) -> None:
    part = page[page.index("<h2>dit</h2>") :]
    (drawn,) = [i for i in read_tags(part).of("img") if "over depth and steps" in (i["alt"] or "")]
    assert drawn["alt"] == (
        "dit: input_rms over depth and steps, a panel for each norm that has it"
    )
    assert "A panel is the run with the first seed: a row is a norm layer" in part
    assert "dynamic_mean (SeeDNorm: mean of tanh(x·β) over tokens and heads): zero in every" in part
    assert "dynamic_std" not in part


def test_images_have_their_classes_above_them_and_in_words(read_tags, page: str) -> None:
    sheets = [
        alt for image in read_tags(page).of("img") if ": samples" in (alt := image["alt"] or "")
    ]
    assert len(sheets) == len(TRUTH)
    # the checkpoint of the others is gone
    assert sheets[:1] == ["dit: layernorm, seed 0: samples"]
    assert sheets[-1] == "dit: seednorm_16, seed 0: samples; columns: ant, bee"
    assert '<span title="ant">ant</span><span title="bee">bee</span>' in page


def test_searches_and_corruptions_are_drawn_where_cells_have_them(read_tags, page: str) -> None:
    alts = [image["alt"] for image in read_tags(page).of("img")]
    searched = "best trial at each value, on the validation split"
    assert f"classify: {searched}" in alts and f"dit: {searched}" in alts
    corrupted = "under corruptions, type by type: mean over seeds"
    assert f"classify: {corrupted}" in alts and f"dit: {corrupted}" not in alts


def test_no_column_is_clipped_and_tables_scroll_in_their_own_area(page: str) -> None:
    assert re.search(r"\.wide \{ overflow-x: auto; \}", page)
    tables = re.findall(r'<div class="wide"[^>]*><table>(.*?)</table></div>', page, re.S)
    assert len(tables) == page.count("<table>")
    for table in tables:
        rows = re.findall(r"<tr>(.*?)</tr>", table, re.S)
        assert len({len(re.findall(r"<t[hd][ >]", row)) for row in rows}) == 1


def test_text_can_be_read_in_light_and_in_dark(page: str) -> None:
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    schemes = [dict(re.findall(r"--(\w+): (#\w{6});", line)) for line in page.split(":root")[1:3]]
    assert [len(colors) for colors in schemes] == [5, 5]
    for colors in schemes:
        paper = luminance(colors.pop("paper"))
        for name, color in colors.items():
            bright, dark = sorted((luminance(color), paper), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, name  # WCAG AA
    assert "opacity" not in page[: page.index("<body>")]
