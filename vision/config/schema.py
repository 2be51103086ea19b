"""The configuration schema: one dataclass per part of a run. Imports no torch.

Every field is typed, has a default, and is described by the comment behind it; the loader rejects
unknown keys and wrong types against these classes, and `--print-config` shows the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Sampler = Literal["ddpm", "ddim", "dpm++", "unipc"]
Prediction = Literal["epsilon", "v_prediction"]


@dataclass
class NormConfig:
    """The normalization layer put everywhere the model has one (`vision.norms`)."""

    name: str = "layernorm"  # a name from vision.norms.list_norms()
    options: dict[str, Any] = field(default_factory=dict)  # keyword options of that norm
    module: str | None = None  # Python file (or module) that registers norms of your own


@dataclass
class ModelConfig:
    """A timm model, built from its name; None keeps what the name says."""

    name: str = "vit_base_patch16_224"  # any name from timm.list_models()
    patch_size: int | None = None  # pixels; ViTs only
    embed_dim: int | None = None  # token width; ViTs only
    depth: int | None = None  # number of blocks; ViTs only
    num_heads: int | None = None  # attention heads, must divide the width; ViTs only
    global_pool: str | None = None  # "token", "avg", "map" (ViT); "avg" (ConvNeXt)
    drop_rate: float = 0.0  # dropout before the classifier
    drop_path_rate: float = 0.0  # stochastic depth, linear in depth
    init_from: str | None = None  # run directory, .ckpt, .safetensors or .pth to start from
    init_from_strict: bool = True  # false: norms that do not fit the file start fresh
    linear_probe: bool = False  # train only a head behind a batch norm, on a frozen encoder


@dataclass
class AugmentConfig:
    """Training transforms, by timm's names (timm.data.create_transform)."""

    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])  # area of the random crop
    ratio: list[float] = field(default_factory=lambda: [0.75, 4 / 3])  # its aspect ratio
    hflip: float = 0.5  # probability of a horizontal flip
    color_jitter: float = 0.0  # strength; ignored by timm when auto_augment is set
    auto_augment: str | None = None  # e.g. rand-m9-mstd0.5-inc1
    re_prob: float = 0.0  # random erasing: probability
    re_mode: Literal["const", "rand", "pixel"] = "pixel"
    re_count: int = 1


@dataclass
class DataConfig:
    """Where images come from and how they are read."""

    # digits, folder, tar, wds, hfds/NAME or hfids/NAME (Hugging Face, whole or streamed) or
    # torch/NAME (torchvision)
    name: str = "digits"
    root: str | None = None  # folder, tar file or cache folder; digits needs none
    train_split: str = "train"
    val_split: str = "validation"  # watched during training
    test_split: str | None = None  # final figures; None: the validation split
    download: bool = False  # let torchvision fetch the data set into root
    train_fraction: float = 1.0  # share of each class's training images to use, chosen by the seed
    img_size: int = 224  # pixels, square
    in_chans: int = 3  # 1: grey, 3: RGB
    num_classes: int | None = None  # None: as many as the data set declares
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    interpolation: Literal["nearest", "bilinear", "bicubic", "random"] = "bicubic"
    crop_pct: float = 0.875  # evaluation: share of the resized image that the centre crop keeps
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    num_workers: int = 4  # loader processes per device; no effect on results
    on_corrupt: Literal["stop", "skip"] = "stop"  # skip: another image takes its place, counted


@dataclass
class MixConfig:
    """Mixup, CutMix and label smoothing (timm.data.Mixup)."""

    mixup: float = 0.0  # alpha of mixup's beta distribution; 0: off
    cutmix: float = 0.0  # alpha of CutMix's; 0: off
    prob: float = 1.0  # probability that a batch is mixed
    switch_prob: float = 0.5  # probability of CutMix where both are on
    label_smoothing: float = 0.0


@dataclass
class OptimConfig:
    """Optimizer and learning-rate schedule (timm.optim, timm.scheduler)."""

    opt: str = "adamw"  # a name from timm.optim.list_optimizers()
    lr: float = 1e-3  # peak, for the batch size given; not scaled
    base_lr: float | None = None  # given instead of lr: lr = base_lr x batch_size_total / 256
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    momentum: float = 0.9  # optimizers that have one (SGD, LARS)
    weight_decay: float = 0.05  # weights and what a norm declares (SeeDNorm: alpha, beta)
    layer_decay: float | None = None  # learning rate x this per layer towards the input
    sched: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = 0.0  # linear from warmup_lr
    warmup_lr: float = 1e-6
    min_lr: float = 1e-6  # where the cosine ends
    clip_grad: float | None = None  # largest gradient norm


@dataclass
class EmaConfig:
    """Exponential moving average of the weights, evaluated beside them (timm ModelEmaV3)."""

    decay: float | None = None  # None: off
    warmup: bool = False  # shorter average at the start of training


@dataclass
class MaeConfig:
    """Masked autoencoder pre-training (task mae)."""

    mask_ratio: float = 0.75  # share of the patches that the encoder does not see
    decoder_embed_dim: int = 512  # token width of the decoder
    decoder_depth: int = 8  # number of its blocks
    decoder_num_heads: int = 16  # its attention heads, must divide its width
    decoder_norm: str | None = None  # its norm; None: the encoder's, with the encoder's options
    decoder_norm_options: dict[str, Any] = field(default_factory=dict)  # of decoder_norm
    norm_pix_loss: bool = True  # predict each patch normalized by its own mean and deviation
    pictures_every_n_epochs: int | None = 10  # reconstructions/*.png and TensorBoard; None: off
    pictures: int = 8  # images in such a picture, the first of the validation split
    knn_every_n_epochs: int | None = 10  # val/knn_top1 of the frozen encoder; None: off
    knn_neighbors: int = 20  # training images that vote


@dataclass
class DitConfig:
    """Class-conditional diffusion transformer (task dit)."""

    label_dropout: float = 0.1  # share of labels replaced by the null class, for guidance
    prediction: Prediction = "epsilon"  # what the model predicts
    learn_sigma: bool = True  # learn the variance too, by the variational bound
    min_snr_gamma: float | None = None  # weigh the squared error by min(SNR, this); None: off
    zero_init: bool = True  # adaLN-Zero: blocks start as the identity
    gradient_checkpointing: bool = False  # less memory, a third more computation
    vae: str | None = None  # AutoencoderKL that decodes latents: hub id or folder; None: pixels
    sample_every_n_steps: int | None = None  # a grid from fixed noise, of the averaged weights
    sample_sampler: Sampler = "dpm++"  # for that grid
    sample_steps: int = 20
    sample_guidance: float = 2.0


@dataclass
class EvaluationConfig:
    """Metrics of generated images while a generator trains (task dit)."""

    extractor: str | None = None  # inception, dinov2, timm:NAME or run:PATH; None: no metrics
    weights: str | None = None  # file of the extractor's weights; None: its cache, or fetched
    resize: Literal["legacy", "antialias"] = "legacy"  # to the extractor's size; legacy: TF's
    metrics: list[str] = field(default_factory=lambda: ["fid"])  # see tools/fid.py --help
    number: int = 10_000  # generated images; the real ones are the whole training split
    every_n_steps: int | None = None  # None: only when training ends
    batch_size: int = 64
    sampler: Sampler = "ddpm"
    num_inference_steps: int = 250
    guidance_scale: float = 1.0  # 1: none


@dataclass
class TrainerConfig:
    """The loop (Lightning's Trainer)."""

    epochs: int = 300
    batch_size_total: int = 128  # images per optimizer step, over all devices
    batch_size_device: int | None = None  # largest batch in memory; the rest is accumulated
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"  # auto, ddp (or another ddp_* of Lightning), fsdp: sharded weights
    sharded_checkpoint: bool = False  # fsdp: a folder with a file per process instead of one file
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"] = "auto"
    compile: bool = False  # torch.compile the model
    val_every_n_epochs: int = 1
    log_every_n_steps: int = 10
    diagnostics_every_n_steps: int | None = None  # diagnostics.csv of the norms; None: off
    checkpoint_every_n_steps: int | None = None  # None: last.ckpt is written after each epoch
    checkpoint_every_n_minutes: float | None = None  # the same by the clock
    progress_bar: bool = True
    # further loggers by class path, e.g. {class: pytorch_lightning.loggers.WandbLogger, project: x}
    loggers: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Config:
    """A whole run. Its directory is `output_dir/name`."""

    task: Literal["classify", "mae", "dit"] = "classify"
    name: str = "run"
    output_dir: str = "runs"
    seed: int = 0
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
