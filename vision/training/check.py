"""What can be known to be impossible before torch is imported. Raises ValueError with the key."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from vision.config import LoadedConfig, load_config
from vision.config.load import split_arguments
from vision.config.schema import Config
from vision.datasets.check import check_data
from vision.errors import nearest
from vision.evaluation.check import check_evaluation
from vision.models.dit_sizes import DIT_NAMES, dit_size
from vision.training.devices import check_devices

# width and heads of timm's ViT names, for checks that must not wait for timm's import
_VIT_SIZES = {
    "tiny": (192, 3),
    "small": (384, 6),
    "base": (768, 12),
    "large": (1024, 16),
    "huge": (1280, 16),
}


def load_checked(arguments: Sequence[str]) -> LoadedConfig:
    """The configuration meant by `CONFIG.yaml [OVERLAY.yaml ...] [key=value ...]`, checked.

    Raises ConfigError with the place of the key at fault. Imports no torch.
    """
    loaded = load_config(*split_arguments(arguments))
    try:
        check_config(loaded.config)
    except (ValueError, FileNotFoundError) as error:
        raise loaded.locate(error) from None
    return loaded


def check_config(config: Config) -> None:
    """Raise ValueError (or FileNotFoundError) naming key, value, expectation and fix."""
    check_settings(config)
    check_data(config.data)


def check_settings(config: Config) -> None:
    """As `check_config`, but for the data, which a plan does without."""
    _check_numbers(config)
    _check_norm(config)
    _check_diagnostics(config)
    check_devices(config)
    check_evaluation(config)
    if config.task == "dit":
        _check_dit(config)
    else:
        _check_model(config)
    if config.task == "mae":
        _check_mae(config)


def timm_model_names() -> list[str]:
    """Names that timm registers, read from its source: importing timm takes seconds."""
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return []
    files = Path(spec.submodule_search_locations[0]).glob("models/*.py")
    pattern = re.compile(r"^@register_model\s+def (\w+)", re.MULTILINE)
    return sorted(name for file in files for name in pattern.findall(file.read_text("utf-8")))


def patch_size(config: Config) -> int | None:
    """Pixels per patch side, from the config or the model's name; None where there are none."""
    if config.model.name in DIT_NAMES:
        return config.model.patch_size or dit_size(config.model.name)["patch_size"]
    in_name = re.match(r"vit_\w*?patch(\d+)", config.model.name)
    return config.model.patch_size or (int(in_name[1]) if in_name else None)


def width_and_heads(config: Config) -> tuple[int | None, int | None]:
    """Token width and attention heads as far as config and name tell."""
    size = re.match(r"vit_([a-z]+)_patch", config.model.name)
    if config.model.name in DIT_NAMES:
        named = dit_size(config.model.name)
        return (
            config.model.embed_dim or named["embed_dim"],
            config.model.num_heads or named["num_heads"],
        )
    width, heads = _VIT_SIZES.get(size[1], (None, None)) if size else (None, None)
    return config.model.embed_dim or width, config.model.num_heads or heads


def _check_numbers(config: Config) -> None:
    if config.optim.warmup_epochs >= config.trainer.epochs:
        raise ValueError(
            f"optim.warmup_epochs = {config.optim.warmup_epochs}: no shorter than the training "
            f"(trainer.epochs = {config.trainer.epochs})"
        )


def _check_diagnostics(config: Config) -> None:
    if config.trainer.compile and config.trainer.diagnostics_every_n_steps is not None:
        raise ValueError(
            f"trainer.diagnostics_every_n_steps = {config.trainer.diagnostics_every_n_steps}: a "
            "compiled model does not call hooks; set trainer.compile=false, or this to null"
        )


def _check_norm(config: Config) -> None:
    norm = config.norm
    if norm.module and norm.module.endswith(".py") and not Path(norm.module).is_file():
        raise FileNotFoundError(
            f"norm.module = {norm.module}: no such file; the path is relative to the config "
            "that names it, or to the working directory on the command line"
        )
    width, _ = width_and_heads(config)
    heads = norm.options.get("num_heads", 1)
    if isinstance(heads, int) and width and (heads < 1 or width % heads):
        raise ValueError(
            f"norm.options = {norm.options}: num_heads = {heads} does not divide the width "
            f"{width}; nearest: {_nearest_divisor(width, heads)}"
        )


def _check_model(config: Config) -> None:
    model, name = config.model, config.model.name.split(".")[0]
    known = timm_model_names()
    if ":" not in name and known and name not in known:
        raise ValueError(f"model.name = {model.name!r}: timm has none; {nearest(name, known)}")
    if not name.startswith("vit_"):
        for key in ("patch_size", "embed_dim", "depth", "num_heads"):
            if getattr(model, key) is not None:
                raise ValueError(
                    f"model.{key} = {getattr(model, key)}: only vit_* models take it, and "
                    f"model.name is {name}; set it to null"
                )
    _check_grid(config)
    if (config.mix.mixup or config.mix.cutmix) and config.trainer.batch_size_total % 2:
        raise ValueError(
            f"trainer.batch_size_total = {config.trainer.batch_size_total}: mixup and CutMix pair "
            "the images of a batch and need an even number"
        )


def _check_dit(config: Config) -> None:
    name, dit, data = config.model.name, config.dit, config.data
    if name not in DIT_NAMES:
        raise ValueError(f"model.name = {name!r}: task dit has none; {nearest(name, DIT_NAMES)}")
    _check_grid(config)
    width, _ = width_and_heads(config)
    if width and width % 4:
        raise ValueError(
            f"model.embed_dim = {width}: position embeddings of a DiT need a multiple of 4; "
            f"nearest: {width // 4 * 4 or 4} or {width // 4 * 4 + 4}"
        )
    for key in ("mixup", "cutmix", "label_smoothing"):
        if getattr(config.mix, key):
            raise ValueError(
                f"mix.{key} = {getattr(config.mix, key)}: task dit has no use for it; set it to 0"
            )
    for key in ("mean", "std"):
        values = getattr(data, key)
        if data.name != "latents" and any(value != 0.5 for value in values):
            raise ValueError(
                f"data.{key} = {values}: a DiT is trained on pixels from -1 to 1; set it to "
                f"{[0.5] * data.in_chans}"
            )
    if dit.vae is not None and data.name != "latents":
        raise ValueError(
            f"dit.vae = {dit.vae!r}: decodes latents, and data.name is {data.name}; write latents "
            "with tools/encode_latents.py and set data.name=latents, or set dit.vae to null"
        )


def _check_mae(config: Config) -> None:
    mae, size, patch = config.mae, config.data.img_size, patch_size(config)
    for key, value, idle in (
        ("model.linear_probe", config.model.linear_probe, False),
        ("model.global_pool", config.model.global_pool, None),
        ("mix.mixup", config.mix.mixup, 0.0),
        ("mix.cutmix", config.mix.cutmix, 0.0),
        ("mix.label_smoothing", config.mix.label_smoothing, 0.0),
        ("optim.layer_decay", config.optim.layer_decay, None),
    ):
        if value != idle:
            raise ValueError(
                f"{key} = {value}: task mae has no use for it; set it to "
                f"{'null' if idle is None else str(idle).lower()}"
            )
    if not config.model.name.startswith("vit_"):
        raise ValueError(f"model.name = {config.model.name!r}: an MAE's encoder is a vit_* model")
    patches = (size // patch) ** 2 if patch else None
    if patches and not 1 <= int(patches * (1 - mae.mask_ratio)) < patches:
        raise ValueError(
            f"mae.mask_ratio = {mae.mask_ratio}: of {patches} patches (data.img_size {size}, "
            f"model.patch_size {patch}) some must stay and some go; use from {1 / patches:.3g} to "
            f"{1 - 1 / patches:.3g}, or smaller patches"
        )
    if mae.decoder_embed_dim % 4 or mae.decoder_embed_dim % mae.decoder_num_heads:
        raise ValueError(
            f"mae.decoder_embed_dim = {mae.decoder_embed_dim}: expected a multiple of 4 and of "
            f"mae.decoder_num_heads = {mae.decoder_num_heads}"
        )
    if mae.decoder_norm is None and mae.decoder_norm_options:
        raise ValueError(
            f"mae.decoder_norm_options = {mae.decoder_norm_options}: of no norm; give "
            "mae.decoder_norm, or leave them out for the encoder's norm.options"
        )


def _check_grid(config: Config) -> None:
    """Patches fill the image, heads the width."""
    size, patch = config.data.img_size, patch_size(config)
    if patch and size % patch:
        low = max(size // patch, 1) * patch
        raise ValueError(
            f"data.img_size = {size}: not a multiple of the patch size {patch} "
            f"(model.patch_size); nearest: {low} or {low + patch}"
        )
    width, heads = width_and_heads(config)
    if width and heads and width % heads:
        raise ValueError(
            f"model.num_heads = {heads}: does not divide the width {width} (model.embed_dim); "
            f"nearest: {_nearest_divisor(width, heads)}"
        )


def _nearest_divisor(width: int, wanted: int) -> int:
    divisors = [d for d in range(1, width + 1) if width % d == 0]
    return min(divisors, key=lambda d: abs(d - wanted))
