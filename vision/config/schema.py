"""The configuration schema: one dataclass per part of a run. Imports no torch.

Every field is typed, has a default and often a range, and is described by the comment behind it.
The loader rejects unknown keys, wrong types and values out of range; `--print-config` shows the
result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from vision.config.setting import setting
from vision.registry import METRICS, NORMS, TASKS

Sampler = Literal["ddpm", "ddim", "dpm++", "unipc"]
Prediction = Literal["epsilon", "v_prediction"]


@dataclass
class NormConfig:
    """The normalization layer put everywhere the model has one (`vision.norms`)."""

    name: str = setting("layernorm", among=NORMS)  # or one that `module` registers
    options: dict[str, Any] = field(default_factory=dict)  # keyword options of that norm
    module: str | None = None  # Python file (or module) that registers norms of your own


@dataclass
class ModelConfig:
    """A timm model, built from its name; null keeps what the name says."""

    name: str = "vit_base_patch16_224"  # any name from timm.list_models(); task dit: dit_b_4, ...
    patch_size: int | None = setting(None, more_than=0)  # pixels; ViTs only
    embed_dim: int | None = setting(None, more_than=0)  # token width; ViTs only
    depth: int | None = setting(None, more_than=0)  # number of blocks; ViTs only
    num_heads: int | None = setting(None, more_than=0)  # attention heads, divide the width; ViTs
    # where the norms of a block stand; ViTs only (vision/models/blocks.py)
    norm_placement: Literal["pre", "res_post", "post", "peri"] | None = None
    residual: Literal["standard", "fixup", "rescale"] = "standard"  # last two: blocks without norms
    qk_norm: bool | None = None  # a norm of each head's queries and keys; ViTs only
    mlp_norm: bool | None = None  # a norm behind the activation of each MLP; ViTs only
    global_pool: str | None = None  # "token", "avg", "map" (ViT); "avg" (ConvNeXt)
    drop_rate: float = setting(0.0, at_least=0, less_than=1)  # dropout before the classifier
    drop_path_rate: float = setting(0.0, at_least=0, less_than=1)  # stochastic depth, by depth
    pretrained: bool = False  # start from timm's weights of that name, norms as below
    init_from: str | None = None  # run directory, .ckpt, .safetensors or .pth to start from
    # if the file has another norm: refuse it, start all norms fresh, take over scale and shift, or
    # fit the norms, too, to the file's on some training images
    init_from_norms: Literal["refuse", "fresh", "carry_over", "calibrate"] = "refuse"
    linear_probe: bool = False  # train only a head behind a batch norm, on a frozen encoder


@dataclass
class AugmentConfig:
    """Training transforms, by timm's names (timm.data.create_transform)."""

    scale: list[float] = setting([0.08, 1.0], length=2)  # area of the random crop
    ratio: list[float] = setting([0.75, 4 / 3], length=2)  # its aspect ratio
    hflip: float = setting(0.5, at_least=0, at_most=1)  # probability of a horizontal flip
    color_jitter: float = 0.0  # strength; 0 beside auto_augment, which replaces it
    auto_augment: str | None = None  # e.g. rand-m9-mstd0.5-inc1
    re_prob: float = setting(0.0, at_least=0, at_most=1)  # random erasing: probability
    re_mode: Literal["const", "rand", "pixel"] = "pixel"
    re_count: int = setting(1, more_than=0)


@dataclass
class DataConfig:
    """Where images come from and how they are read."""

    # digits, mnist5k, folder, wds, hfds/NAME or hfids/NAME (Hugging Face, whole or streamed) or
    # torch/NAME (torchvision)
    name: str = "digits"
    root: str | None = None  # folder of the data, or cache folder; not for data sets in packages
    train_split: str = "train"
    val_split: str = "validation"  # evaluated during training
    test_split: str | None = None  # evaluated at the end; null: the validation split
    # of the choice of splits of digits and mnist5k; null: the same as 0
    split_seed: int | None = setting(None, at_least=0, at_most=2**32 - 1)
    download: bool = False  # let torchvision fetch the data set into root
    train_fraction: float = setting(1.0, more_than=0, at_most=1)  # of each class, by the seed
    img_size: int = setting(224, more_than=0)  # pixels, square
    in_chans: int = setting(3, more_than=0)  # 1: grey, 3: RGB
    num_classes: int | None = setting(None, more_than=0)  # null: as the data set declares
    mean: list[float] = setting([0.485, 0.456, 0.406])
    std: list[float] = setting([0.229, 0.224, 0.225], more_than=0)
    interpolation: Literal["nearest", "bilinear", "bicubic", "random"] = "bicubic"
    # evaluation: the fraction of the resized image that the centre crop keeps
    crop_pct: float = setting(0.875, more_than=0, at_most=1)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    num_workers: int = setting(4, at_least=0)  # loader processes per device; same results
    on_corrupt: Literal["stop", "skip"] = "stop"  # skip: another image takes its place, counted


@dataclass
class MixConfig:
    """Mixup, CutMix and label smoothing (timm.data.Mixup)."""

    mixup: float = setting(0.0, at_least=0)  # alpha of mixup's beta distribution; 0: off
    cutmix: float = setting(0.0, at_least=0)  # alpha of CutMix's; 0: off
    prob: float = setting(1.0, at_least=0, at_most=1)  # probability that a batch is mixed
    switch_prob: float = setting(0.5, at_least=0, at_most=1)  # of CutMix where both are on
    label_smoothing: float = setting(0.0, at_least=0, less_than=1)


@dataclass
class OptimConfig:
    """Optimizer and learning-rate schedule (timm.optim, timm.scheduler)."""

    opt: str = "adamw"  # a name from timm.optim.list_optimizers()
    # peak, for the batch size given; not scaled. Of lr and base_lr the one given later counts
    lr: float | None = setting(1e-3, more_than=0)
    # given instead of lr: lr = base_lr x batch_size_total / 256
    base_lr: float | None = setting(None, more_than=0)
    # of the optimizer, which must have them; null: timm's default for it
    betas: list[float] | None = setting(None, at_least=0, less_than=1)
    eps: float | None = setting(None, more_than=0)
    momentum: float | None = setting(None, at_least=0, less_than=1)
    # of weights, and of what a norm declares (SeeDNorm: alpha, beta)
    weight_decay: float = setting(0.05, at_least=0)
    # learning rate x this per layer towards the input
    layer_decay: float | None = setting(None, at_least=0, at_most=1)
    sched: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = setting(0.0, at_least=0)  # linear from warmup_lr
    warmup_lr: float = setting(1e-6, at_least=0)
    min_lr: float = setting(1e-6, at_least=0)  # where the cosine ends
    clip_grad: float | None = setting(None, more_than=0)  # largest gradient norm


@dataclass
class EmaConfig:
    """Exponential moving average of the weights, evaluated beside them (timm ModelEmaV3)."""

    decay: float | None = setting(None, at_least=0, less_than=1)  # null: off
    warmup: bool = False  # shorter average at the start of training


@dataclass
class MaeConfig:
    """Masked autoencoder pre-training (task mae)."""

    # the fraction of the patches that the encoder does not see
    mask_ratio: float = setting(0.75, at_least=0, less_than=1)
    decoder_embed_dim: int = setting(512, more_than=0)  # token width of the decoder
    decoder_depth: int = setting(8, more_than=0)  # number of its blocks
    decoder_num_heads: int = setting(16, more_than=0)  # its attention heads, divide its width
    # its norm; null: the encoder's, with the encoder's options
    decoder_norm: str | None = setting(None, among=NORMS)
    decoder_norm_options: dict[str, Any] = field(default_factory=dict)  # of decoder_norm
    norm_pix_loss: bool = True  # predict each patch normalized by its own mean and deviation
    # reconstructions/*.png and TensorBoard; null: off
    pictures_every_n_epochs: int | None = setting(10, more_than=0)
    pictures: int = setting(8, more_than=0)  # images in one, spread over the validation split
    # val/knn_top1 of the frozen encoder; null: off
    knn_every_n_epochs: int | None = setting(10, more_than=0)
    knn_neighbors: int = setting(20, more_than=0)  # training images that vote


@dataclass
class DitConfig:
    """Class-conditional diffusion transformer (task dit)."""

    # the fraction of labels replaced by the null class, for guidance
    label_dropout: float = setting(0.1, at_least=0, less_than=1)
    prediction: Prediction = "epsilon"  # what the model predicts
    learn_sigma: bool = True  # learn the variance too, by the variational bound
    # weigh the squared error by min(SNR, this); null: off
    min_snr_gamma: float | None = setting(None, more_than=0)
    # adaLN-Zero: blocks start as the identity, the output as zero; blocks: not the output
    zero_init: Literal[True, False, "blocks"] = True
    gradient_checkpointing: bool = False  # less memory, a third more computation
    vae: str | None = None  # AutoencoderKL that decodes latents: hub id or folder; null: pixels
    # a grid from fixed noise, of the averaged weights
    sample_every_n_steps: int | None = setting(None, more_than=0)
    sample_sampler: Sampler = "dpm++"  # for that grid
    sample_steps: int = setting(20, at_least=1, at_most=1000)
    sample_guidance: float = setting(2.0, at_least=0)


@dataclass
class EvaluationConfig:
    """Metrics of generated images while a generator trains (task dit)."""

    extractor: str | None = setting(
        None,
        matches=r"inception|dinov2|(timm|run):.+",
        expected="inception, dinov2, timm:NAME, run:PATH, or null for no metrics",
    )
    weights: str | None = None  # file of the extractor's weights; null: its cache, or fetched
    resize: Literal["legacy", "antialias"] = "legacy"  # to the extractor's size; legacy: TF's
    metrics: list[str] = setting(["fid"], among=METRICS)
    # real images: an .npz (statistics, or images), a folder or a data config; null: the training
    # split, of latents the images that they were made from
    reference: str | None = None
    number: int = setting(10_000, more_than=0)  # generated images
    every_n_steps: int | None = setting(None, more_than=0)  # null: only when training ends
    batch_size: int = setting(64, more_than=0)
    sampler: Sampler = "ddpm"
    num_inference_steps: int = setting(250, more_than=0)
    guidance_scale: float = 1.0  # 1: none


@dataclass
class TrainerConfig:
    """The loop (Lightning's Trainer)."""

    # the length of the training; of these two, the one that is given last replaces the other
    epochs: int | None = setting(300, more_than=0)
    max_steps: int | None = setting(None, more_than=0)  # optimizer steps
    batch_size_total: int = setting(128, more_than=0)  # images per optimizer step, all devices
    # largest batch in memory; the rest is accumulated
    batch_size_device: int | None = setting(None, more_than=0)
    accelerator: str = "auto"
    devices: int = setting(1, more_than=0)
    num_nodes: int = setting(1, more_than=0)
    strategy: str = setting(  # fsdp: sharded weights
        "auto",
        matches=r"auto|fsdp|ddp.*",
        expected="auto, ddp (or another ddp_* of Lightning) or fsdp",
    )
    sharded_checkpoint: bool = False  # fsdp: a folder with a file per rank instead of one file
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"] = "auto"
    compile: bool = False  # torch.compile the model
    # two runs give the same bits on one kind of device; an operation that cannot ends the run
    deterministic: bool = False
    val_every_n_epochs: int = setting(1, more_than=0)  # and after the last epoch
    log_every_n_steps: int = setting(10, more_than=0)
    # diagnostics.csv of the norms; null: off
    diagnostics_every_n_steps: int | None = setting(None, more_than=0)
    # null: last.ckpt is written after each epoch
    checkpoint_every_n_steps: int | None = setting(None, more_than=0)
    checkpoint_every_n_minutes: float | None = setting(None, more_than=0)  # the same by the clock
    progress_bar: bool = True
    # further loggers by class path, e.g. {class: pytorch_lightning.loggers.WandbLogger, project: x}
    loggers: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Config:
    """A whole run. Its directory is `output_dir/name`."""

    task: str = setting("classify", among=TASKS)
    name: str = setting(
        "run",
        matches=r"(?!.*\.\.)[\w.+-][\w.+\-/]{0,254}",
        expected="the name of a folder in output_dir, of letters, digits and ._+-",
    )
    output_dir: str = "runs"
    seed: int = setting(0, at_least=0, at_most=2**32 - 1)
    norm: NormConfig = field(default_factory=NormConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    mix: MixConfig = field(default_factory=MixConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    mae: MaeConfig = field(default_factory=MaeConfig)
    dit: DitConfig = field(default_factory=DitConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
