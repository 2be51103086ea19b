"""Loading configurations: merging, provenance, and errors a person can act on."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from vision.config import load_config, save_config
from vision.config.load import to_yaml
from vision.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def error_of(files: list, overrides: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(files, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_later_files_and_overrides_win(tmp_path: Path) -> None:
    write(tmp_path / "base" / "a.yaml", "optim: {lr: 1, min_lr: 2}\nseed: 3\n")
    first = write(tmp_path / "first.yaml", "base: base/a.yaml\noptim: {lr: 4}\n")
    second = write(tmp_path / "second.yaml", "seed: 5\n")
    config = load_config([first, second], ["optim.warmup_epochs=6"]).config
    assert (config.optim.lr, config.optim.min_lr, config.seed) == (4.0, 2.0, 5)
    assert config.optim.warmup_epochs == 6.0
    assert config.name == "first"


def test_base_files_that_lead_back_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "one.yaml", "base: two.yaml\n")
    write(tmp_path / "two.yaml", "base: one.yaml\n")
    assert "lead back to itself" in error_of([one], [])


def test_saved_config_loads_back_unchanged(tmp_path: Path) -> None:
    config = load_config([CONFIGS / "vit_b_seednorm.yaml"], ["optim.lr=3e-5"]).config
    save_config(config, tmp_path / "config.yaml")
    assert load_config([tmp_path / "config.yaml"]).config == config


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "optim: {lr: 1e-4, min_lr: 1E+1}\n")
    assert load_config([file]).config.optim.lr == 1e-4


def test_a_value_may_refer_to_another_key() -> None:
    config = load_config([], ["optim.lr=0.5", "optim.min_lr=${optim.lr}"]).config
    assert config.optim.min_lr == 0.5


def test_another_norm_starts_without_the_options_of_the_first() -> None:
    file = CONFIGS / "vit_b_seednorm.yaml"
    assert load_config([file]).config.norm.options == {"num_heads": 16}
    assert load_config([file], ["norm.name=dyt"]).config.norm.options == {}


def test_splits_follow_the_seed_with_an_overlay() -> None:
    files = [CONFIGS / "vit_mnist5k.yaml", CONFIGS / "data/split_by_seed.yaml"]
    assert load_config(files, ["seed=5"]).config.data.split_seed == 5
    assert load_config(files[:1], ["seed=5"]).config.data.split_seed is None


def test_a_list_and_keys_within_options_are_not_merged() -> None:
    message = error_of([], ["norm.options={a: [1]}", "norm.options.a.b=1"])
    assert "'a': {'b': 1}" in message and "has a list" in message


def test_user_norm_module_is_found_beside_the_config_that_names_it(tmp_path: Path) -> None:
    module = write(tmp_path / "my_norms.py", "")
    file = write(tmp_path / "a.yaml", "norm: {module: my_norms.py}\n")
    assert load_config([file]).config.norm.module == str(module)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim: {lrr: 1}", ["a.yaml:1", "optim.lrr", "value 1", "did you mean 'lr'"]),
        ("seed: 1\noptim:\n  lr: fast", ["a.yaml:3", "optim.lr = 'fast'", "a number"]),
        ("trainer: {epochs: 2.5}", ["trainer.epochs = 2.5", "whole number"]),
        ("trainer: {compile: maybe}", ["trainer.compile = 'maybe'", "true or false"]),
        ("data: {on_corrupt: skp}", ["data.on_corrupt = 'skp'", "did you mean 'skip'"]),
        ("model: {norm_placement: pst}", ["model.norm_placement = 'pst'", "mean 'post'"]),
        ("optim: {betas: [a, b]}", ["optim.betas", "list of numbers"]),
        ("seed: 1\noptim:\n  lr: 0", ["a.yaml:3: optim.lr = 0.0: expected more than 0"]),
        ("optim: {lr: .nan}", ["a.yaml:1: optim.lr = nan: expected more than 0"]),
        ("data:\n  std: [0.5, 0, 0.5]", ["a.yaml:2: data.std = [0.5, 0.0, 0.5]", "more than 0"]),
        ("mix: {prob: 1.5}", ["a.yaml:1: mix.prob = 1.5: expected a number from 0 to 1"]),
        ("data: {augment: {scale: [1]}}", ["data.augment.scale = [1.0]: expected 2 numbers"]),
        ("norm: {name: seednrm}", ["norm.name = 'seednrm': no such norm", "mean 'seednorm'"]),
        ("task: clasify", ["a.yaml:1: task = 'clasify': no such task", "mean 'classify'"]),
        ("evaluation: {metrics: [fid, fdi]}", ["evaluation.metrics = ['fid', 'fdi']", "'fid'"]),
        ("trainer: {strategy: fsdpp}", ["trainer.strategy = 'fsdpp': expected auto, ddp"]),
        ("model: 3", ["model = 3", "expected a section"]),
        ("norm: {options: 3}", ["norm.options = 3", "keys and values"]),
        ("norm: {options: [3]}", ["a.yaml:1: norm.options = [3]", "keys and values"]),
        ("optim: {betas: {a: 1}}", ["a.yaml:1: optim.betas = {'a': 1}", "list of numbers"]),
        ("seed: 1\nseed: 2", ["a.yaml", "stands twice"]),
        ("seed: [1", ["a.yaml", "not valid YAML"]),
        ("- 1", ["a.yaml", "expected keys and values"]),
    ],
)
def test_errors_name_file_key_value_and_choice(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    message = error_of([write(tmp_path / "a.yaml", text)], [])
    for part in expected:
        assert part in message


def test_a_range_is_that_of_the_merged_value(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", "optim: {lr: 0}\n")
    file = write(tmp_path / "a.yaml", f"base: {base}\noptim: {{lr: 1}}\n")
    assert load_config([file]).config.optim.lr == 1
    assert error_of([file], ["optim.lr=-1"]).startswith("command line: optim.lr = -1.0")


def test_names_of_a_module_of_ones_own_are_not_known_yet(tmp_path: Path) -> None:
    write(tmp_path / "my_norms.py", "")
    file = write(tmp_path / "a.yaml", "norm: {module: my_norms.py, name: mine}\n")
    assert load_config([file]).config.norm.name == "mine"


def test_missing_file_names_the_nearest() -> None:
    message = error_of([CONFIGS / "vit_b_sednorm.yaml"], [])
    assert "did you mean" in message
    assert "vit_b_seednorm.yaml" in message


def test_override_without_equals_is_explained() -> None:
    assert "expected key=value" in error_of([], ["=3"])


@pytest.mark.parametrize(
    ("files", "overrides", "name"),
    [
        (["vit_ti.yaml"], [], "vit_ti"),
        (["vit_ti.yaml", "norm/seednorm.yaml"], [], "vit_ti_seednorm"),
        (["vit_ti.yaml"], ["norm.name=derf"], "vit_ti_derf"),
        (["vit_b_seednorm.yaml"], ["norm.options.num_heads=8"], "vit_b_seednorm"),
        (["vit_b_seednorm.yaml", "norm/seednorm.yaml"], [], "vit_b_seednorm"),
        (["vit_ti.yaml", "norm/seednorm.yaml"], ["name=mine"], "mine"),
    ],
)
def test_a_run_is_named_after_its_config_and_a_norm_laid_over_it(
    files: list[str], overrides: list[str], name: str
) -> None:
    assert load_config([CONFIGS / file for file in files], overrides).config.name == name


@pytest.mark.parametrize(("strict", "norms"), [("true", "refuse"), ("false", "fresh")])
def test_records_of_older_runs_say_it_with_another_key(
    tmp_path: Path, strict: str, norms: str
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"name: old\nmodel: {{init_from: w.pth, init_from_strict: {strict}}}\n")
    model = load_config([file]).config.model
    assert (model.init_from, model.init_from_norms) == ("w.pth", norms)
    file.write_text("model: {init_from_strict: 3}\n")
    with pytest.raises(ConfigError, match="unknown key 'model.init_from_strict'"):
        load_config([file])


def test_the_length_that_is_given_last_replaces_the_other(tmp_path: Path) -> None:
    steps = tmp_path / "steps.yaml"
    steps.write_text("base: epochs.yaml\ntrainer: {max_steps: 9}\n")
    (tmp_path / "epochs.yaml").write_text("trainer: {epochs: 2}\n")

    def length(*overrides: str) -> tuple[int | None, int | None]:
        trainer = load_config([steps], overrides).config.trainer
        return trainer.epochs, trainer.max_steps

    assert length() == (None, 9)
    assert length("trainer.epochs=4") == (4, None)
    assert length("trainer.max_steps=7") == (None, 7)
    saved = tmp_path / "saved.yaml"
    save_config(load_config([steps]).config, saved)  # with the one that is null
    assert load_config([saved]).config.trainer.max_steps == 9
    with pytest.raises(ConfigError, match=r"trainer.max_steps = 3: given beside trainer.epochs"):
        length("trainer.max_steps=3", "trainer.epochs=2")
    steps.write_text("trainer: {epochs: 2, max_steps: 9}\n")
    with pytest.raises(ConfigError, match=r"steps.yaml:1: trainer.max_steps = 9"):
        length()


def test_of_two_keys_for_the_learning_rate_the_later_counts(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", "optim: {base_lr: 0.01}\n")
    file = write(tmp_path / "a.yaml", f"base: {base}\noptim: {{lr: 0.5}}\n")
    for overrides, expected in (
        ([], (0.5, None)),
        (["optim.base_lr=1e-3", "optim.lr=0.9"], (0.9, None)),
        (["optim.lr=0.9", "optim.base_lr=1e-3"], (None, 1e-3)),
        (["optim.base_lr=1e-3", "optim.base_lr=null"], (1e-3, None)),  # the default again
    ):
        optim = load_config([file], overrides).config.optim
        assert (optim.lr, optim.base_lr) == expected
    both = write(tmp_path / "both.yaml", "optim:\n  lr: 0.5\n  base_lr: 0.1\n")
    message = error_of([both], [])
    assert message.startswith(f"{both}:2: optim.lr = 0.5: base_lr = 0.1") and "remove" in message


@pytest.mark.parametrize(
    ("opt", "kept"),
    [
        ("adamw", {"betas": [0.9, 0.999], "eps": 1e-8, "momentum": None}),
        ("lion", {"betas": [0.9, 0.999], "eps": None, "momentum": None}),
        ("adan", {"betas": None, "eps": None, "momentum": 0.9}),
    ],
)
def test_records_of_older_runs_keep_what_reached_their_optimizer(
    tmp_path: Path, opt: str, kept: dict
) -> None:
    record = dataclasses.asdict(load_config([], [f"optim.opt={opt}"]).config)
    record["optim"] |= {"lr": 1e-3, "base_lr": 0.02}
    record["optim"] |= {"betas": [0.9, 0.999], "eps": 1e-8, "momentum": 0.9}
    file = write(tmp_path / "config.yaml", yaml.safe_dump(record))
    optim = load_config([file]).config.optim
    assert (optim.lr, optim.base_lr) == (None, 0.02)
    assert {key: getattr(optim, key) for key in kept} == kept
    again = write(tmp_path / "again.yaml", to_yaml(load_config([file]).config))
    assert load_config([again]).config == load_config([file]).config
