import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment, create_transform
from timm.data.auto_augment import NAME_TO_OP, AugmentOp

from vision.datasets.transforms import Normalized, eval_transform, posterize, train_transform
from vision.seeding import preserved, seed_globals

RECIPES = ["rand-m9-mstd0.5-inc1", "rand-m9-n3-mstd0.5", "augmix-m5-w4-d2", "v0", "original", "3a"]


def picture(channels: int) -> Image.Image:
    shape = (20, 15) if channels == 1 else (20, 15, 3)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


@pytest.mark.parametrize("recipe", [*RECIPES, None])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_augmentation_works_for_grey_and_colour(recipe, channels, make_config) -> None:
    augment = {"auto_augment": recipe, "color_jitter": 0.4, "re_prob": 0.9, "re_count": 3}
    transform = train_transform(make_config(augment, in_chans=channels, interpolation="random"))
    with preserved():
        for draw in range(300):  # enough to meet posterize to 0 bits in rand-m9-mstd0.5-inc1
            seed_globals(draw)
            image = transform(picture(channels))
            assert image.shape == (channels, 8, 8)
            assert image.dtype == torch.float32
            assert image.isfinite().all()


@pytest.mark.parametrize("name", sorted(NAME_TO_OP))
def test_every_operation_of_timm_keeps_grey_images_grey(name: str) -> None:
    hparams = {"translate_const": 4, "img_mean": (128,), "interpolation": Image.Resampling.BICUBIC}
    with preserved():
        random.seed(0)
        for magnitude in (3, 6, 8):
            image = AugmentOp(name, 1.0, magnitude, hparams)(picture(1))
            assert (image.mode, image.size) == ("L", (15, 20))


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_random_erasing_works_for_grey(mode: str, make_config) -> None:
    augment = {"re_prob": 1.0, "re_mode": mode, "scale": [1.0, 1.0], "ratio": [1.0, 1.0]}
    transform = train_transform(make_config(augment, in_chans=1))
    with preserved():
        seed_globals(0)
        image = transform(Image.new("L", (8, 8), 255))
    changed = image[image != 1.0]
    assert image.shape == (1, 8, 8)
    assert 0 < len(changed) < 64


def test_posterize_to_no_bits_is_black_and_else_that_of_timm() -> None:
    image = picture(3)
    assert posterize(image, 0).getextrema() == ((0, 0),) * 3
    expected = np.asarray(image) & 0b11100000
    assert np.array_equal(np.asarray(posterize(image, 3)), expected)
    assert posterize(image, 8) is image


def test_strongest_posterize_runs_in_every_policy(make_config) -> None:
    for recipe in ("rand-m10-inc1-n15", "augmix-m10"):
        transform = train_transform(make_config({"auto_augment": recipe}))
        with preserved():
            for draw in range(40):
                seed_globals(draw)
                transform(picture(3))


@pytest.mark.parametrize("recipe", ["rand-m9-w0", "randaugment", "bogus"])
def test_unknown_augmentations_are_named(recipe: str, make_config) -> None:
    with pytest.raises(
        ValueError, match=rf"data.augment.auto_augment = '{recipe}': .*expected e.g. rand-m9"
    ):
        train_transform(make_config({"auto_augment": recipe}))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "random"])
def test_evaluation_crops_the_centre_and_normalizes(interpolation: str, make_config) -> None:
    config = make_config(interpolation=interpolation, mean=[0.5, 0.5, 0.0], std=[0.5, 0.25, 1.0])
    image = eval_transform(config)(Image.new("RGB", (30, 20), (255, 255, 255)))
    assert image.shape == (3, 8, 8)
    assert torch.equal(image.amax((1, 2)), torch.tensor([1.0, 2.0, 1.0]))


def test_no_augmentation_at_all_is_possible(make_config) -> None:
    augment = {"scale": [1.0, 1.0], "ratio": [1.0, 1.0], "hflip": 0.0}
    config = make_config(augment, crop_pct=1.0)
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    assert torch.equal(train_transform(config)(image), eval_transform(config)(image))


@pytest.mark.parametrize("channels", [1, 3])
def test_normalizing_by_a_table_gives_the_bits_of_timm(channels: int, make_config) -> None:
    config = make_config(in_chans=channels, mean=[0.485, 0.456, 0.406][:channels])
    options = {"crop_pct": config.crop_pct, "interpolation": config.interpolation}
    statistics = {"mean": tuple(config.mean), "std": tuple(config.std)}
    timm = create_transform((channels, 8, 8), **options, **statistics)
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)  # all there are
    image = Image.fromarray(levels if channels == 1 else np.stack([levels] * 3, -1))
    assert torch.equal(eval_transform(config)(image), timm(image))
    tensor = timm.transforms[-2](image)  # [C, 16, 16] from 0 to 1
    assert torch.equal(Normalized(config)((tensor * 255).byte()), timm.transforms[-1](tensor))


def test_timm_still_asks_pillow_for_no_bits() -> None:
    # when this fails, `posterize` and the loop below it can go
    with pytest.raises(ValueError, match="bits"):
        auto_augment.posterize(picture(3), 0)
