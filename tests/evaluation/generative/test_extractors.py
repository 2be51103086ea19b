"""Extractors give the features that their models give elsewhere."""

import json
from pathlib import Path

import pytest
import timm
import torch

from vision.evaluation.generative.extractors import create_extractor
from vision.evaluation.generative.features import resize_images
from vision.evaluation.generative.sources import DataSource
from vision.registry import METRICS


def test_a_run_sees_the_images_as_its_own_evaluation_does(trained: Path) -> None:
    extractor = create_extractor(f"run:{trained}")
    source = DataSource.load("configs/data/digits.yaml", (), "test")
    features = [extractor(images) for images in source.batches(range(360), 90)]
    logits = torch.cat([f.logits for f in features])
    accuracy = 100 * (logits.argmax(1) == torch.tensor(source.reader.labels)).float().mean()
    summary = json.loads((trained / "summary.json").read_text())["metrics"]
    assert float(accuracy) == pytest.approx(summary["test/top1"], abs=0.3)
    assert features[0].pooled.shape == (90, 48)
    assert extractor.label(METRICS.get("fid").outputs[0]) == "FD[run:trained]"
    with pytest.raises(ValueError, match="has its own"):
        create_extractor(f"run:{trained}", "file.pth")


def test_a_timm_model_with_a_file_of_weights(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", num_classes=7).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    extractor = create_extractor("timm:test_vit", str(tmp_path / "weights.pth"))
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8, generator=draw)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (model.default_cfg["mean"], model.default_cfg["std"])
    )
    with torch.no_grad():
        features = model.forward_features((images / 255 - mean) / std)
        expected = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(extractor(images).pooled, expected)
    assert extractor.label(METRICS.get("kid").outputs[0]) == "KD[timm:test_vit]"
    with pytest.raises(ValueError, match="does not fit the model: .*Missing key"):
        create_extractor("timm:test_convnext", str(tmp_path / "weights.pth"))
    with pytest.raises(ValueError, match="timm has no model"):
        create_extractor("timm:nonsense")


def test_resizing_is_tensorflows_or_antialiased() -> None:
    stripes = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    stripes[..., ::2] = 200
    # the legacy sampling takes every second column, antialiasing their mean
    assert resize_images(stripes, 4, "legacy").unique().tolist() == [200]
    inner = resize_images(stripes, 4, "antialias")[..., 1:-1]
    assert inner.min() >= 90 and inner.max() <= 110
    assert torch.equal(resize_images(stripes, 8, "antialias"), stripes.float())


@pytest.mark.parametrize(("name", "resize"), [("vgg", "legacy"), ("inception", "lanczos")])
def test_unknown_names_are_refused(name: str, resize: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        create_extractor(name, None, resize)
