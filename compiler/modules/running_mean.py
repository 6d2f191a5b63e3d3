"""Running means (schema in archspec.kinds.running_mean)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archspec.kinds import running_mean as kinds
from compiler.build import Make
from compiler.modules.recurrence import precise, real_tokens
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens


@builds(kinds.RunningMean)
class RunningMean(nn.Module):
    def __init__(self, spec: kinds.RunningMean, make: Make) -> None:
        super().__init__()
        self.mean = Mean()

    def forward(self, x: Tokens) -> Tensor:
        out: Tensor = self.mean(x.features, x.valid)
        return out


class Mean(Keeper):
    """The mean of ``[batch, tokens, width]`` up to each token; padding has no part in it."""

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        real = real_tokens(self, x, valid)
        total = (precise(x) if real is None else precise(x) * real[..., None]).cumsum(1)
        if self.decoding is not None:
            kept = self.decoding.kept(self)
            total = total + kept["total"] if "total" in kept else total
            kept["total"] = total[:, -1:].clone()
            count = self.decoding.places(x.shape[1], x.device) + 1
        elif valid is None:
            count = torch.arange(1, x.shape[1] + 1, device=x.device)[None]
        else:
            count = valid.cumsum(1).clamp(min=1)
        return (total / count[..., None]).to(x.dtype)
