"""Published results, read in the source named; none was measured here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One result on ImageNet as its source reports it."""

    task: str
    norm: str
    metric: str
    value: str
    source: str


_DYT = "README of the DyT repository (arXiv 2503.10622)"
_DERF = "README of the Derf repository (arXiv 2512.10938)"
_DERF_FIGURE = "arXiv 2512.10938, figure 1"
_MAE = "FINETUNE.md of the MAE repository (arXiv 2111.06377)"
_DIT = "README of the DiT repository (arXiv 2212.09748)"
_TOP1, _FID = "top-1 %", "FID"

PUBLISHED = (
    Published("ViT-B/16, 300 epochs", "LayerNorm", _TOP1, "82.3", _DYT),
    Published("ViT-B/16, 300 epochs", "DyT", _TOP1, "82.5", _DYT),
    Published("ViT-B/16, 300 epochs", "Derf", _TOP1, "82.8", _DERF_FIGURE),
    Published("ViT-L/16", "LayerNorm", _TOP1, "83.1", _DYT),
    Published("ViT-L/16", "DyT", _TOP1, "83.6", _DYT),
    Published("ViT-L/16", "Derf", _TOP1, "83.8", _DERF),
    Published("MAE ViT-B, 1600 epochs, fine-tuned", "LayerNorm", _TOP1, "83.664", _MAE),
    Published("MAE ViT-L, 1600 epochs, fine-tuned", "LayerNorm", _TOP1, "85.952", _MAE),
    Published("DiT-B/4, 80 epochs", "LayerNorm", _FID, "64.93", _DERF),
    Published("DiT-B/4, 80 epochs", "DyT", _FID, "63.94", _DERF),
    Published("DiT-B/4, 80 epochs", "Derf", _FID, "63.23", _DERF),
    Published("DiT-L/4", "LayerNorm", _FID, "45.91", _DERF),
    Published("DiT-L/4", "DyT", _FID, "45.66", _DERF),
    Published("DiT-L/4", "Derf", _FID, "43.94", _DERF),
    Published("DiT-XL/2", "LayerNorm", _FID, "19.94", _DERF),
    Published("DiT-XL/2", "DyT", _FID, "20.83", _DERF),
    Published("DiT-XL/2", "Derf", _FID, "18.92", _DERF),
    Published("DiT-XL/2, 400K steps, no guidance", "LayerNorm", _FID, "18.1 (PyTorch)", _DIT),
    Published("DiT-B/4, 400K steps", "LayerNorm", _FID, "68.9 / 68.3 (PyTorch, 2 seeds)", _DIT),
)
