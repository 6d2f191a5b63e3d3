"""Channel mixers (schemas in archspec.kinds.channel)."""

from __future__ import annotations

from torch import Tensor, nn

from archspec.kinds import channel as kinds
from compiler.build import Make, project
from compiler.modules.activations import ACTIVATIONS
from compiler.modules.convolution import GridConvolution
from compiler.modules.regularise import dropout, dropped
from compiler.registry import builds
from compiler.tokens import Tokens


@builds(kinds.Mlp)
class Mlp(nn.Module):
    def __init__(self, spec: kinds.Mlp, make: Make) -> None:
        super().__init__()
        self.up, self.down = make.linear("up"), make.linear("down")
        self.depthwise = None
        if spec.depthwise:
            grid = make.stream.wide(make.node.matrices["up"][0].outputs)
            self.depthwise = GridConvolution(grid, size=spec.depthwise, bias=True)
        self.activation = ACTIVATIONS[spec.activation]
        self.dropout = dropout(spec.dropout)

    def forward(self, x: Tokens) -> Tensor:
        inner = project(self.up, x.features, x)
        if self.depthwise is not None:
            inner = self.depthwise(inner)
        return project(self.down, dropped(self.dropout, self.activation(inner)), x)


@builds(kinds.Glu)
class Glu(nn.Module):
    def __init__(self, spec: kinds.Glu, make: Make) -> None:
        super().__init__()
        self.gate_up = make.fused("gate", "up") if make.plain("gate", "up") else None  # one product, split after
        if self.gate_up is None:
            self.gate, self.up = make.linear("gate"), make.linear("up")
        self.down = make.linear("down")
        self.activation = ACTIVATIONS[spec.activation]
        self.dropout = dropout(spec.dropout)

    def forward(self, x: Tokens) -> Tensor:
        if self.gate_up is not None:
            parts = self.gate_up(x.features).chunk(2, dim=-1)
            gate, up = parts[0], parts[1]
        else:
            gate, up = project(self.gate, x.features, x), project(self.up, x.features, x)
        return project(self.down, dropped(self.dropout, self.activation(gate) * up), x)


@builds(kinds.Project)
class Project(nn.Module):
    def __init__(self, spec: kinds.Project, make: Make) -> None:
        super().__init__()
        self.linear = make.linear("weight")
        self.activation = ACTIVATIONS[spec.activation]

    def forward(self, x: Tokens) -> Tensor:
        return self.activation(project(self.linear, x.features, x))


@builds(kinds.Activate)
class Activate(nn.Module):
    def __init__(self, spec: kinds.Activate, make: Make) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[spec.function]

    def forward(self, x: Tokens) -> Tensor:
        return self.activation(x.features)
