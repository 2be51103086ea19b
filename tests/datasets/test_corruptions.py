"""Corruptions on the fly: bounded, harsher with severity, and a function of seed and index."""

import pytest
import torch
from torch import Tensor

from vision.datasets.corruptions import CORRUPTIONS, corrupt, corruption_names

SIZES = [(1, 8, 8), (3, 64, 64)]


def _image(shape: tuple[int, int, int]) -> Tensor:
    draw = torch.rand(1, shape[0], 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(draw, shape[1:], mode="bicubic")[0]
    return (smooth.clamp(0, 1) * 255).round() / 255


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_gives_8_bit_images_that_worsen_with_severity(
    name: str, shape: tuple[int, int, int]
) -> None:
    image = _image(shape)
    errors = []
    for severity in range(1, 6):
        made = corrupt(image, name, severity, 0, 0)
        assert made.shape == image.shape
        assert torch.equal((made * 255).round() / 255, made)
        assert made.min() >= 0 and made.max() <= 1
        errors.append(float((made - image).square().mean().sqrt()))
    assert errors[4] > errors[0] and errors[4] > 0.005
    assert errors[0] > 0 or shape[1] == 8  # the least may spare all 64 pixels


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "motion_blur", "elastic"])
def test_random_numbers_follow_from_seed_and_index(name: str) -> None:
    image = _image((3, 64, 64))
    state = torch.get_rng_state()
    first = corrupt(image, name, 3, 7, 11)
    assert torch.equal(first, corrupt(image, name, 3, 7, 11))
    assert not torch.equal(first, corrupt(image, name, 3, 7, 12))
    assert not torch.equal(first, corrupt(image, name, 3, 8, 11))
    assert torch.equal(state, torch.get_rng_state())


def test_gaussian_noise_has_the_size_of_its_severity() -> None:
    grey = torch.full((3, 64, 64), 0.5)
    assert float(corrupt(grey, "gaussian_noise", 1, 0, 0).std()) == pytest.approx(0.08, rel=0.05)
    share = (corrupt(grey, "impulse_noise", 5, 0, 0) != round(127.5) / 255).float().mean()
    assert float(share) == pytest.approx(0.27, rel=0.1)


def test_names_are_checked() -> None:
    assert corruption_names(None) == ()
    assert corruption_names("all") == CORRUPTIONS
    assert corruption_names("jpeg,contrast") == ("jpeg", "contrast")
    with pytest.raises(ValueError, match=r"'fog': expected all, or some of gaussian_noise"):
        corruption_names("jpeg,fog")
