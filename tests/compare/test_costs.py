"""Which row of a measurement of costs is that of a run."""

import json
from pathlib import Path

import pytest

from vision.compare.costs import Costs, check_costs
from vision.compare.schema import CompareConfig
from vision.config import load_config
from vision.errors import ConfigError

LABELS = {
    "plain": ("layernorm", {}),
    "heads": ("seednorm", {"num_heads": 16}),
    "head": ("seednorm", {}),
    "dropout": ("seednorm", {"num_heads": 16, "coefficient_dropout": 0.1}),
}
COSTS = Costs(
    [
        {"label": f"{task} {model} {label}", "task": task, "model": model, "norm": n, "options": o}
        for task, model in (("classify", "vit_b"), ("classify", "vit_s"), ("dit", "dit_b_4"))
        for label, (n, o) in LABELS.items()
    ],
    "",
)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ("norm.name=layernorm", "classify vit_b plain"),
        ("norm.name=layernorm model.name=vit_s norm.options.eps=0.1", "classify vit_s plain"),
        ("norm.name=seednorm norm.options={num_heads: 1, alpha_init: 3}", "classify vit_b head"),
        ("norm.name=seednorm norm.options={num_heads: 16}", "classify vit_b heads"),
        (
            "norm.name=seednorm norm.options={num_heads: 16, coefficient_dropout: drop_path}",
            "classify vit_b dropout",
        ),
        ("norm.name=layernorm norm.options={affine: true}", "classify vit_b plain"),
        ("norm.name=layernorm norm.options={affine: false}", None),
        ("task=dit norm.name=layernorm norm.options={affine: false}", "dit dit_b_4 plain"),
        ("norm.name=seednorm norm.options={num_heads: 8}", None),
        ("task=mae norm.name=layernorm", None),
        ("norm.name=dyt", None),
    ],
)
def test_start_values_cost_nothing_and_whatever_is_computed_counts(
    settings: str, found: str | None
) -> None:
    words = settings.replace(": ", ":").replace(", ", ",").split()
    result = COSTS.find(load_config([], [w.replace(":", ": ") for w in words]).config)
    assert (result and result["label"]) == found


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[1]", "has no time, environment and results"),
        ("{", "cannot be read"),
        (
            json.dumps({
                "time": "", "results": [{"model": "a"}],
                "environment": {"device": "", "threads": 1, "packages": {"torch": ""}},
            }),
            "result 0 has no batch, dtype, norm",
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_no_measurement_is_refused(
    tmp_path: Path, content: str, expected: str
) -> None:
    file = tmp_path / "costs.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=expected):
        check_costs(CompareConfig(costs=str(file)))
