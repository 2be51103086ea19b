"""A grid of runs from a file, and what is refused in one."""

import math
from pathlib import Path

import pytest

from vision.compare.grid import load_compare, make_cells, save_compare
from vision.compare.schema import CompareConfig
from vision.compare.tuning import edges
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


def test_a_variant_is_a_row_with_files_options_and_overrides_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "dyt.yaml").write_text("norm: {name: dyt, options: {alpha_init: 0.3}}")
    variants = """
variants:
  heads_1: {norm: seednorm, options: {num_heads: 1}}
  heads_8: {norm: seednorm, options: {num_heads: 8}, overrides: [optim.lr=1e-3]}
  published: {configs: [../dyt.yaml], overrides: [norm.options.alpha_init=0.7]}
  derf: {overrides: [optim.lr=2e-3]}
"""
    config = load(tmp_path, GRID.replace("tasks:", variants + "tasks:"), "output_dir=out")
    cells = {cell.variant: cell for cell in make_cells(config)["base"] if cell.seed == 3}
    assert list(cells) == ["layernorm", "seednorm", "heads_1", "heads_8", "published", "derf"]
    assert cells["heads_8"].folder == Path("out/grid/base/heads_8_seed3")
    assert cells["heads_8"].arguments[2:] == (
        "trainer.epochs=1", "norm.name=seednorm", "norm.options={num_heads: 8}", "optim.lr=1e-3",
        "seed=3", "output_dir=out/grid/base", "name=heads_8_seed3",
    )  # fmt: skip
    own = [a for a in cells["published"].arguments if a not in config.tasks["base"].configs]
    run = load_config(*split_arguments(own)).config
    assert (run.norm.name, run.norm.options) == ("dyt", {"alpha_init": 0.7})
    assert "norm.name=derf" in cells["derf"].arguments


TUNED = (
    GRID
    + """
tune: {space: {optim.lr: [1e-3, 2e-3], model: {drop_path_rate: [0, 0.1]}}, seeds: [7, 8]}
"""
)


def test_every_variant_is_tried_with_the_same_settings_before_its_runs(tmp_path: Path) -> None:
    cells = make_cells(load(tmp_path, TUNED, "output_dir=out"))
    assert list(cells) == ["base_trials", "base", "tuned_trials", "tuned"]
    tried = {
        norm: [cell for cell in cells["tuned_trials"] if cell.variant == norm]
        for norm in ("layernorm", "seednorm")
    }
    values = [[cell.trial.values for cell in column] for column in tried.values()]
    assert values[0] == values[1] and len(set(values[0])) == 4 and len(values[0]) == 8
    trial = tried["seednorm"][1]
    assert trial.folder.name == f"seednorm_trial{trial.trial.name}_seed8"
    assert trial.arguments[3:] == (
        "optim.lr=0.001", "model.drop_path_rate=0", "seed=8", "output_dir=out/grid/tuned",
        f"name={trial.folder.name}", "data.test_split=null",
        "model.init_from=out/grid/base/seednorm_seed3",  # the first of the runs that count
    )  # fmt: skip
    counted = cells["tuned"][0]
    assert counted.tuned == Path("out/grid/tuned/tuned/layernorm.yaml")
    assert str(counted.tuned) in counted.arguments
    assert str(counted.tuned) not in counted.from_scratch()  # nothing has won yet
    wider = TUNED.replace("[1e-3, 2e-3]", "[5e-4, 1e-3, 2e-3]")
    again = {
        cell.folder for cell in make_cells(load(tmp_path, wider, "output_dir=out"))["base_trials"]
    }
    assert again > {cell.folder for cell in cells["base_trials"]}


def test_a_task_may_be_tuned_alone_and_draws_are_seeded_and_shared(tmp_path: Path) -> None:
    space = "{optim.lr: {low: 1e-4, high: 1e-2, log: true}, optim.weight_decay: [0, 0.1]}"
    text = GRID.replace("base: {", f"base: {{tune: {{space: {space}, trials: 4}}, ")
    text = text.replace(
        "norms: {", "variants: {dyt: {tune: {norm.options.alpha_init: [1, 2]}}}\nnorms: {"
    )
    cells = make_cells(load(tmp_path, text))
    assert list(cells) == ["base_trials", "base", "tuned"]
    drawn = [dict(c.trial.values) for c in cells["base_trials"]]
    assert [d["optim.lr"] for d in drawn[:4]] == [d["optim.lr"] for d in drawn[8:]]
    # one in each quarter of the range, in any order
    quarters = sorted(int(4 * math.log(d["optim.lr"] / 1e-4, 100)) for d in drawn[:4])
    assert quarters == [0, 1, 2, 3]
    assert sorted(d["optim.weight_decay"] for d in drawn[:4]) == [0, 0, 0.1, 0.1]
    assert sorted(d["norm.options.alpha_init"] for d in drawn[8:]) == [1, 1, 2, 2]
    assert make_cells(load(tmp_path, text)) == cells
    other = make_cells(load(tmp_path, text.replace("trials: 4", "trials: 4, draw_seed: 1")))
    assert other["base_trials"][0].folder != cells["base_trials"][0].folder


def test_a_winner_at_the_end_of_what_was_tried_is_named() -> None:
    tried = [{"lr": r, "on": f} for r in (1, 2, 4) for f in (True, False)]
    assert edges({"lr": 2, "on": True}, tried) == []
    assert edges({"lr": 4, "on": True}, tried) == ["lr = 4, the highest tried"]
    assert edges({"lr": 1, "on": True}, tried) == ["lr = 1, the lowest tried"]


def test_options_of_norms_reach_the_runs_unchanged(tmp_path: Path) -> None:
    options = "{eps: 1.0e-06, alpha_init: .inf, num_heads: 1, affine: false, backend: null}"
    config = load(tmp_path, GRID.replace("{num_heads: 16, alpha_init: 0.5}", options))
    cell = make_cells(config)["base"][-1]
    loaded = load_config([], [text for text in cell.arguments if text.startswith("norm.")]).config
    assert loaded.norm.options == {
        "eps": 1e-6, "alpha_init": math.inf, "num_heads": 1, "affine": False, "backend": None,
    }  # fmt: skip


def test_a_saved_grid_is_read_back_unchanged(tmp_path: Path) -> None:
    config = load(tmp_path, TUNED)
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
        (
            "norms: {layernorm: {}}\ntasks: [classify]\n",
            "expected mappings at norms, variants, tasks",
        ),
        (GRID.replace("configs: [../tune.yaml]", "configs: tune.yaml"), "tasks.tuned.configs"),
        (GRID.replace("tuned:", "tu/ned:"), "names a folder"),
        (GRID.replace("configs: [../tune.yaml]", "config: [x]"), "config"),
        (GRID.replace("base: {", "base: {init_from: tuned, "), "lead back"),
        (
            GRID.replace("base: {", "base: {features_from: tuned, "),
            "base.features_from = 'tuned': expected another",
        ),
        (GRID.replace("base: {", "base: {features_from: bas, "), "base.features_from = 'bas'"),
        (GRID.replace("epochs=1]", "epochs=1, seed=4]"), "seed=4: each run has its own"),
        (
            GRID + "overrides: ['data.split_seed=${seed}']\n",
            r"overrides.0.: .*'seed' not found; a \$.{5} that each run resolves has to be",
        ),
        (GRID.replace("base: {", "base: {margin: 0, "), "margin = 0"),
        (GRID + "variants: {layernorm: {}}", "variants.layernorm: is in norms too"),
        (GRID + "variants: {a/b: {}}", "variants.a/b: names folders"),
        (GRID + "variants: {a_seed3: {norm: dyt}}", "do not end it in _seed"),
        (GRID + "variants: [a]", "expected mappings at norms, variants"),
        (TUNED.replace("[7, 8]", "[5, 8]"), "tune.seeds = .5, 8.: 5 is among seeds too"),
        (TUNED.replace("trainer.epochs=1]", "optim.lr=1]"), "optim.lr: is set in tasks.base."),
        (TUNED.replace("[1e-3, 2e-3]", "[1e-3, 1e-3]"), "expected a list of different values"),
        (TUNED.replace("seeds: [7", "trials: 5, seeds: [7"), "layernorm has 4 combinations"),
        (TUNED.replace("[1e-3, 2e-3]", "{low: 1, high: 2}"), "how many to draw of optim.lr"),
        (
            TUNED.replace("[1e-3, 2e-3]", "{low: 0, high: 2, log: true}"),
            "expected low below high, and above 0",
        ),
        (
            TUNED + "variants: {dyt: {tune: {norm.options.alpha_init: [1, 2]}}}",
            "layernorm 4, seednorm 4, dyt 8.; set tune.trials",
        ),
    ],
)
def test_an_impossible_grid_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(tmp_path, text)


def test_the_shipped_search_has_as_many_trials_for_every_variant() -> None:
    cells = make_cells(load_compare(ROOT / "configs/compare/digits.yaml"))
    tried = [cell.variant for cell in cells["classify_trials"]]
    assert {label: tried.count(label) for label in tried} == dict.fromkeys(
        ["layernorm", "rmsnorm", "dyt", "derf", "seednorm"], 3
    )
    assert [stage for stage in cells if stage.endswith("_trials")] == ["classify_trials"]
    assert {len(column) for stage, column in cells.items() if stage != "classify_trials"} == {10}
