"""Published figures, only those read in the source named; never measured here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One figure as somebody else reports it, on ImageNet."""

    task: str
    norm: str
    figure: str
    value: str
    source: str


_DYT = "README of the DyT repository (arXiv 2503.10622)"
_DERF = "arXiv 2512.10938, figure 1"
_MAE = "FINETUNE.md of the MAE repository (arXiv 2111.06377)"
_DIT = "README of the DiT repository (arXiv 2212.09748)"

PUBLISHED = (
    Published("ViT-B/16, 300 epochs", "LayerNorm", "top-1 %", "82.3", _DYT),
    Published("ViT-B/16, 300 epochs", "DyT", "top-1 %", "82.5", _DYT),
    Published("ViT-B/16, 300 epochs", "Derf", "top-1 %", "82.8", _DERF),
    Published("ViT-L/16", "LayerNorm", "top-1 %", "83.1", _DYT),
    Published("ViT-L/16", "DyT", "top-1 %", "83.6", _DYT),
    Published("MAE ViT-B, 1600 epochs, fine-tuned", "LayerNorm", "top-1 %", "83.664", _MAE),
    Published("MAE ViT-L, 1600 epochs, fine-tuned", "LayerNorm", "top-1 %", "85.952", _MAE),
    Published("DiT (size not named)", "LayerNorm", "FID", "45.91", _DERF),
    Published("DiT (size not named)", "DyT", "FID", "45.66", _DERF),
    Published("DiT (size not named)", "Derf", "FID", "43.94", _DERF),
    Published("DiT-XL/2, 400K steps, no guidance", "LayerNorm", "FID", "18.1 (PyTorch)", _DIT),
    Published("DiT-B/4, 400K steps", "LayerNorm", "FID", "68.9 / 68.3 (PyTorch, 2 seeds)", _DIT),
)
