"""Dynamic convolution (schema in archspec.kinds.dynamic_convolution)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import dynamic_convolution as kinds
from compiler.build import Make, project
from compiler.modules.convolution import Past
from compiler.registry import builds
from compiler.tokens import Tokens


@builds(kinds.DynamicConvolution)
class DynamicConvolution(nn.Module):
    """Taps ``[batch, tokens, heads, size]`` over the features of a head, ``[batch, tokens, heads, width]``."""

    def __init__(self, spec: kinds.DynamicConvolution, make: Make) -> None:
        super().__init__()
        self.heads, self.size = spec.heads, spec.size
        self.past = Past(spec.size - 1) if make.stream.causal else None
        self.taps = make.linear("taps")

    def forward(self, x: Tokens, *source: Tokens) -> Tensor:
        chooser = source[0] if source else x
        taps = project(self.taps, chooser.features, chooser).unflatten(-1, (self.heads, self.size)).softmax(dim=-1)
        features = x.features
        if x.valid is not None:  # padding is silence to its neighbours
            features = features * x.valid[..., None]
        line = features.transpose(1, 2)
        line = F.pad(line, (self.size // 2, self.size // 2)) if self.past is None else self.past(line)
        seen = line.unfold(2, self.size, 1).unflatten(1, (self.heads, -1)).permute(0, 3, 1, 2, 4)
        return (seen @ taps[..., None]).squeeze(-1).flatten(2)
