"""tools/encode_latents.py through its command line."""

import re
from pathlib import Path

import pytest


@pytest.mark.slow
def test_latents_are_of_whole_images_and_one_vae(forked, vae, tmp_path: Path) -> None:
    def encode(*arguments: object, code: int = 0) -> str:
        shared = ["data.train_fraction=0.02", "--output", tmp_path / "latents"]
        data = ["configs/data/digits.yaml", *shared, *arguments]
        return forked("tools/encode_latents.py", *data, code=code).stderr

    for blocks, size, nearest in ((2, 9, "8 or 10"), (3, 10, "8 or 12"), (3, 3, "4 or 8")):
        vae(blocks).save_pretrained(tmp_path / f"vae{blocks}")
        said = encode("--vae", tmp_path / f"vae{blocks}", f"data.img_size={size}", code=2)
        assert f"data.img_size = {size}: the VAE makes one latent pixel of" in said
        assert said.endswith(f"nearest: {nearest}\n")
    assert not (tmp_path / "latents").exists()
    encode("--vae", tmp_path / "vae2")
    for name, scaling, weight in (("overflows", 1e6, 1), ("diverged", 0.5, 1e38)):
        bad = vae()
        bad.register_to_config(scaling_factor=scaling)
        bad.encoder.conv_out.weight.data *= weight
        bad.save_pretrained(tmp_path / name)
        elsewhere = ["--output", tmp_path / f"latents_{name}"]
        said = encode("--vae", tmp_path / name, *elsewhere, code=3)
        assert re.search(r"error: latents of \d+ of \d+ images are not finite in float16", said)
        assert not list((tmp_path / f"latents_{name}").rglob("*.safetensors*"))
    changed = vae()
    changed.encoder.conv_in.weight.data += 0.1
    changed.save_pretrained(tmp_path / "vae2")
    said = encode("--vae", tmp_path / "vae2", code=2)
    assert "latents/train: was begun with another vae_weights" in said
