"""Linear maps along a sequence (schema in archspec.kinds.project_tokens)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import project_tokens as kinds
from compiler.build import Make
from compiler.registry import builds
from compiler.tokens import Tokens


@builds(kinds.ProjectTokens)
class ProjectTokens(nn.Module):
    def __init__(self, spec: kinds.ProjectTokens, make: Make) -> None:
        super().__init__()
        self.tokens = make.linear("tokens")
        self.longest, self.fixed = make.stream.most or 1, make.stream.most == make.stream.count

    def forward(self, x: Tokens) -> Tensor:
        features = x.features if x.valid is None else x.features * x.valid[..., None]
        features = features.transpose(1, 2)
        if not self.fixed:
            features = F.pad(features, (0, self.longest - features.shape[2]))
        made: Tensor = self.tokens(features)
        return made.transpose(1, 2)
