"""A metric of one's own is one class: options, results, labels and table know it from there."""

import json

import numpy as np
import pytest
import torch

from vision.config import load_config
from vision.evaluation.generative import compare_image_sets, comparison_report
from vision.evaluation.generative.features import Extractor
from vision.metrics.base import FeatureStatistics, GenerativeMetric, Options, Output, Result
from vision.registry import METRICS


@pytest.fixture
def mean_distance(monkeypatch: pytest.MonkeyPatch) -> type[GenerativeMetric]:
    monkeypatch.setattr(METRICS, "registered", dict(METRICS.registered))

    @METRICS.register("mean_distance")
    class MeanDistance(GenerativeMetric):
        """Distance between the means of the features; ± an example."""

        outputs = (Output("mean_distance", "distance", error="mean_distance_error"),)
        needs = frozenset({"features"})

        @staticmethod
        def compute(real: FeatureStatistics, fake: FeatureStatistics, options: Options) -> Result:
            difference = fake.features.mean(0) - real.features.mean(0)
            values = {"mean_distance": float(difference[0]), "mean_distance_error": 0.25}
            return Result(values, ["only an example"])

    return MeanDistance


def test_a_metric_of_ones_own_is_computed_labelled_and_shown(
    mean_distance: type[GenerativeMetric], extractor: Extractor, capsys: pytest.CaptureFixture
) -> None:
    black, white = (torch.full((4, 3, 5, 5), v, dtype=torch.uint8) for v in (0, 255))
    result = compare_image_sets(black, white, extractor, metrics=("mean_distance",), quiet=True)
    assert result["mean_distance"] == 1.0
    assert result["labels"]["mean_distance"] == "distance[light]"
    assert result["settings"]["real"]["kept"] == 4  # what the metric needs was gathered
    assert "only an example" in result["warnings"]
    comparison_report.print_result(result)
    assert "distance[light] │     1 │ 0.25" in capsys.readouterr().out


def test_the_configuration_knows_it_too(mean_distance: type[GenerativeMetric]) -> None:
    overrides = ["evaluation.metrics=[fid,mean_distance]"]
    assert load_config(["configs/dit_b4.yaml"], overrides).config.evaluation.metrics[1]


@pytest.mark.parametrize("name", METRICS.names())
def test_every_file_is_a_metric_whose_numbers_it_names(name: str, extractor: Extractor) -> None:
    assert METRICS.get(name).__module__ == f"vision.metrics.generative.{name}"
    draw = np.random.default_rng(0)
    real, fake = (
        torch.from_numpy(draw.integers(0, high, (30, 3, 5, 5), dtype=np.uint8))
        for high in (200, 256)
    )
    result = compare_image_sets(real, fake, extractor, metrics=(name,), quiet=True)
    for output in METRICS.get(name).outputs:
        assert np.isfinite(result[output.key]) and result["labels"][output.key]
        assert output.error is None or result[output.error] >= 0
    json.dumps(result)  # as tools/fid.py writes it
