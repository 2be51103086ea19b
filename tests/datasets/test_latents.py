"""Encoding images once with a VAE, and training draws from what it wrote."""

import json
import os
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

from vision.config import Config
from vision.config.schema import DataConfig
from vision.datasets.check import check_data
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.latents import LatentDataset, LatentReader
from vision.datasets.sampler import Draw
from vision.diffusion.encode_latents import encode_latents

SIDE = 8  # of the images; latents are half as large


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small AutoencoderKL with random weights, saved as diffusers does."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.5,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Twelve training and four validation images of two classes."""
    root = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 6), ("validation", 2)):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for index in range(count):
                shape = (SIDE, SIDE, 3)
                pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
                Image.fromarray(pixels.numpy()).save(root / split / label / f"{index}.png")
    return Config(data=DataConfig(name="folder", root=str(root), img_size=SIDE, num_workers=0))


@pytest.fixture(scope="module")
def encoded(vae: Path, images: Config, tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    output = tmp_path_factory.mktemp("latents")
    counts = encode_latents(images, str(vae), output, shard_size=5, batch_size=4)
    assert counts == {"train": 12, "validation": 4}
    config = DataConfig(
        name="latents", root=str(output), img_size=SIDE // 2, in_chans=4, num_workers=0
    )
    config.mean, config.std = [0.0] * 4, [1.0] * 4
    return config


def test_shards_hold_what_the_vae_makes_of_image_and_mirror_image(
    vae: Path, images: Config, encoded: DataConfig
) -> None:
    folder = Path(encoded.root) / "train"
    shards = [load_file(path) for path in sorted(folder.glob("shard_*.safetensors"))]
    assert [len(shard["labels"]) for shard in shards] == [5, 5, 2]
    assert torch.cat([shard["labels"] for shard in shards]).tolist() == [0] * 6 + [1] * 6
    with Image.open(Path(images.data.root) / "train" / "cat" / "2.png") as picture:
        pixels = torch.tensor(list(picture.getdata())).reshape(1, SIDE, SIDE, 3)
    x = pixels.permute(0, 3, 1, 2) / 127.5 - 1
    model = AutoencoderKL.from_pretrained(vae)
    with torch.no_grad():
        for flip, image in enumerate((x, x.flip(-1))):
            posterior = model.encode(image).latent_dist
            for name in ("mean", "std"):
                expected = 0.5 * getattr(posterior, name)[0]
                found = shards[0][name][2, flip].float()
                torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)


def test_draws_are_random_with_the_posterior_s_mean_and_spread(encoded: DataConfig) -> None:
    reader = LatentReader(encoded, "train")
    (means, stds), label = reader[7]
    assert label == 1 and reader.class_names == ["cat", "dog"]
    dataset = LatentDataset(reader, seed=0, hflip=0.0)
    draws = torch.stack([dataset[Draw(epoch, 7)].image for epoch in range(3000)])
    torch.testing.assert_close(draws.mean(0), means[0].float(), atol=0.12, rtol=0.1)
    torch.testing.assert_close(draws.std(0), stds[0].float(), atol=0.05, rtol=0.08)
    assert torch.equal(dataset[Draw(3, 7)].image, draws[3])


def test_half_of_the_draws_are_mirrored(encoded: DataConfig) -> None:
    reader = LatentReader(encoded, "train")
    (means, _), _ = reader[0]
    turned, plain = (
        [LatentDataset(reader, 0, hflip)[Draw(epoch, 0)].image for epoch in range(400)]
        for hflip in (0.5, 0.0)
    )
    changed = [not torch.equal(a, b) for a, b in zip(turned, plain, strict=True)]
    assert 150 < sum(changed) < 250
    # the same noise around the other mean
    mirrored = [LatentDataset(reader, 0, 1.0)[Draw(epoch, 0)].image for epoch in range(400)]
    mean = torch.stack(mirrored).mean(0)
    to_mirror, to_plain = ((mean - m.float()).abs().mean() for m in (means[1], means[0]))
    assert to_mirror < to_plain / 2


def test_the_data_module_serves_them(encoded: DataConfig) -> None:
    check_data(encoded)
    data = ImageDataModule(encoded, seed=0, batch_size_total=6)
    assert data.class_names == ["cat", "dog"]
    assert data.describe().startswith("latents")
    batches = list(data.train_dataloader())
    assert [batch.images.shape for batch in batches] == [(6, 4, 4, 4)] * 2
    assert sorted(torch.cat([batch.targets for batch in batches]).tolist()) == [0] * 6 + [1] * 6
    first, second = (next(iter(data.val_dataloader())).images for _ in range(2))
    assert torch.equal(first, second)


def test_a_stopped_encoding_continues_and_is_not_used_before(
    vae: Path, images: Config, encoded: DataConfig, tmp_path: Path
) -> None:
    options = {"shard_size": 5, "batch_size": 4}
    encode_latents(images, str(vae), tmp_path, **options)
    folder = tmp_path / "train"
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "complete": False}))
    (folder / "shard_00001.safetensors").unlink()
    kept = folder / "shard_00000.safetensors"
    os.utime(kept, ns=(1, 1))
    with pytest.raises(ValueError, match="is not finished"):
        LatentReader(DataConfig(**{**vars(encoded), "root": str(tmp_path)}), "train")
    encode_latents(images, str(vae), tmp_path, **options)
    assert kept.stat().st_mtime_ns == 1
    again, whole = (
        load_file(Path(root) / "train" / "shard_00001.safetensors")
        for root in (tmp_path, encoded.root)
    )
    torch.testing.assert_close(again, whole, atol=0, rtol=0)
    with pytest.raises(ValueError, match="was begun with another shards"):
        encode_latents(images, str(vae), tmp_path, shard_size=6, batch_size=4)


def test_what_does_not_fit_is_named(
    vae: Path, images: Config, encoded: DataConfig, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"data.img_size = 32: latents in .*\[4, 4, 4\]"):
        LatentReader(DataConfig(**{**vars(encoded), "img_size": 32}), "train")
    with pytest.raises(FileNotFoundError, match=r"data.val_split = 'test'.*train, validation"):
        check_data(DataConfig(**{**vars(encoded), "val_split": "test"}))
    with pytest.raises(ValueError, match="no AutoencoderKL there"):
        encode_latents(images, str(tmp_path / "none"), tmp_path / "out")
    with pytest.raises(ValueError, match="encoded already"):
        encode_latents(Config(data=encoded), str(vae), tmp_path / "out")
