"""What is wrong with `evaluation:` is known before data is read."""

import pytest

from vision.config import load_config
from vision.training.build import check_build

DIT = "configs/dit_b4.yaml"


def _check(file: str, *overrides: str) -> None:
    check_build(load_config([file], overrides).config)


@pytest.mark.parametrize("name", ["null", "inception", "dinov2", "timm:resnet50", "run:runs/vit"])
def test_extractors_by_name_are_accepted(name: str) -> None:
    _check(DIT, f"evaluation.extractor={name}")


@pytest.mark.parametrize(
    ("file", "overrides", "expected"),
    [
        (DIT, ["evaluation.extractor=vgg"], "expected inception, dinov2"),
        (DIT, ["evaluation.extractor=inception", "evaluation.metrics=[fdi]"], "evaluation.metrics"),
        (DIT, ["evaluation.extractor=inception", "evaluation.metrics=[]"], "evaluation.metrics"),
        (DIT, ["evaluation.reference=a.npz"], "set evaluation.extractor, or this to null"),
        (
            "configs/vit_ti.yaml",
            ["evaluation.reference=a.npz"],
            "task classify has no use for it",
        ),
        (DIT, ["evaluation.number=0"], "evaluation.number = 0"),
        (
            "configs/vit_ti.yaml",
            ["evaluation.extractor=inception"],
            "task classify has no use for it",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    file: str, overrides: list[str], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        _check(file, *overrides)
