"""A model as an ensemble of the parts of it that training drew."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from compiler.modules.attend import Attend


@torch.no_grad()
def ensemble(model: nn.Module, *inputs: Tensor, samples: int = 8) -> Any:
    """The mean of what a model gives whose attentions read a part of the memory, drawn anew for each sample.

    Nothing else is random: the model is in the mode in which it was given. Hussain, Zaki and Subramanian 2023, "The
    Information Pathways Hypothesis: Transformers are Dynamic Self-Ensembles", arXiv 2306.01705.

    Args:
        inputs: as of the model's forward.

    Errors:
        ValueError: no attention of the model has ``subsample``.
    """
    parts = [part for part in model.modules() if isinstance(part, Attend) and part.subsample is not None]
    if not parts:
        raise ValueError("nothing is drawn in this model; add subsample: {ratio: 4} to its attention")
    try:
        for part in parts:
            part.drawing = True
        found = [model(*inputs) for _ in range(samples)]
    finally:
        for part in parts:
            part.drawing = False
    if isinstance(found[0], dict):
        return {name: torch.stack([out[name] for out in found]).mean(0) for name in found[0]}
    return torch.stack(found).mean(0)
