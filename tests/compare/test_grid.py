"""A grid of runs from a file, and what is refused in one."""

import math
from pathlib import Path

import pytest

from vision.compare.grid import CompareConfig, load_compare, make_cells, save_compare
from vision.config import load_config
from vision.config.load import split_arguments
from vision.errors import ConfigError

ROOT = Path(__file__).parents[2]
GRID = """
seeds: [3, 5]
norms: {layernorm: {}, seednorm: {num_heads: 16, alpha_init: 0.5}}
tasks:
  tuned: {configs: [../tune.yaml], init_from: base}
  base: {configs: [../a.yaml, ../b.yaml], overrides: [trainer.epochs=1]}
"""


def load(tmp_path: Path, text: str, *overrides: str) -> CompareConfig:
    folder = tmp_path / "compare"
    folder.mkdir(exist_ok=True)
    file = folder / "grid.yaml"
    file.write_text(text)
    return load_compare(file, overrides)


def test_every_norm_meets_every_seed_and_what_is_started_from_comes_first(tmp_path: Path) -> None:
    config = load(tmp_path, GRID, "output_dir=out")
    cells = make_cells(config)
    assert list(cells) == ["base", "tuned"]
    assert [str(c) for c in cells["base"]] == [
        "base/layernorm_seed3", "base/layernorm_seed5",
        "base/seednorm_seed3", "base/seednorm_seed5",
    ]  # fmt: skip
    last = cells["tuned"][-1]
    assert last.folder == Path("out/grid/tuned/seednorm_seed5")
    assert last.arguments == (
        f"{tmp_path}/tune.yaml", "norm.name=seednorm",
        "norm.options={num_heads: 16, alpha_init: 0.5}", "seed=5", "output_dir=out/grid/tuned",
        "name=seednorm_seed5", "model.init_from=out/grid/base/seednorm_seed5",
    )  # fmt: skip


def test_one_run_gives_the_features_for_all_cells_and_comes_first(
    tmp_path: Path,
) -> None:
    text = GRID.replace("init_from: base", "features_from: base") + "baseline: seednorm\n"
    cells = make_cells(load(tmp_path, text, "output_dir=out"))
    assert list(cells) == ["base", "tuned"]
    extractor = "evaluation.extractor=run:out/grid/base/seednorm_seed3"
    assert all(cell.arguments[-1] == extractor for cell in cells["tuned"])
    assert not any("evaluation" in text for cell in cells["base"] for text in cell.arguments)


def test_the_sweep_of_alpha_changes_nothing_else() -> None:
    config = load_compare(ROOT / "configs/compare/digits_alpha.yaml")
    options = []
    for cells in make_cells(config).values():
        assert [cell.seed for cell in cells] == [0, 1, 2]
        run = load_config(*split_arguments(cells[0].arguments)).config
        options.append(run.norm.options)
        assert (run.norm.name, run.trainer.epochs) == ("seednorm", 8)
    assert options == [{"alpha_init": a, "num_heads": 16} for a in (0.1, 0.5, 1.0, 2.0)]


def test_options_of_norms_reach_the_runs_unchanged(tmp_path: Path) -> None:
    options = "{eps: 1.0e-06, alpha_init: .inf, num_heads: 1, affine: false, backend: null}"
    config = load(tmp_path, GRID.replace("{num_heads: 16, alpha_init: 0.5}", options))
    cell = make_cells(config)["base"][-1]
    loaded = load_config([], [text for text in cell.arguments if text.startswith("norm.")]).config
    assert loaded.norm.options == {
        "eps": 1e-6, "alpha_init": math.inf, "num_heads": 1, "affine": False, "backend": None,
    }  # fmt: skip


def test_a_saved_grid_is_read_back_unchanged(tmp_path: Path) -> None:
    config = load(tmp_path, GRID)
    save_compare(config, tmp_path / "compare.yaml")
    assert load_compare(tmp_path / "compare.yaml") == config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GRID + "baseline: layernrm\n", "did you mean 'layernorm'"),
        (GRID.replace("16,", "{a: " * 150 + "1" + "}" * 150 + ","), "nested too deeply"),
        (GRID.replace("init_from: base", "init_from: bas"), "did you mean 'base'"),
        (GRID.replace("[3, 5]", "[]"), "seeds is empty"),
        (GRID.replace("[3, 5]", "[a]"), "seeds"),
        ("norms: {layernorm: {}}\ntasks: [classify]\n", "expected mappings at norms, tasks"),
        (GRID.replace("configs: [../tune.yaml]", "configs: tune.yaml"), "tasks.tuned.configs"),
        (GRID.replace("tuned:", "tu/ned:"), "names a folder"),
        (GRID.replace("configs: [../tune.yaml]", "config: [x]"), "config"),
        (GRID.replace("base: {", "base: {init_from: tuned, "), "lead back"),
        (
            GRID.replace("base: {", "base: {features_from: tuned, "),
            "base.features_from = 'tuned': expected another",
        ),
        (GRID.replace("base: {", "base: {features_from: bas, "), "base.features_from = 'bas'"),
    ],
)
def test_an_impossible_grid_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(tmp_path, text)
