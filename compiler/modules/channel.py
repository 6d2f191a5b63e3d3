"""Channel mixers (schemas in archspec.kinds.channel)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from archspec.kinds import channel as kinds
from compiler.build import Make, main, project
from compiler.modules.activations import ACTIVATIONS
from compiler.modules.convolution import GridConvolution
from compiler.modules.regularise import dropout, dropped
from compiler.registry import builds
from compiler.tokens import Tokens

Outer = Mapping[str, Tokens]


class Inner(nn.Module):
    """Between the matrices: a function by its name, or a body."""

    def __init__(self, spec: kinds.Inner, make: Make) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[spec.activation]
        self.activate = make.body("activate") if make.has("activate") else None
        self.inner = make.stream.wide(spec.inner(make.stream))
        self.dropout = dropout(spec.dropout)

    def function(self, x: Tokens, outer: Outer | None) -> Callable[[Tensor], Tensor]:
        """What it does to inner features of these tokens."""
        body = self.activate
        if body is None:
            return self.activation
        return lambda inner: main(body, x.give(inner, self.inner), outer=outer or {}).features


@builds(kinds.Mlp)
class Mlp(Inner):
    def __init__(self, spec: kinds.Mlp, make: Make) -> None:
        super().__init__(spec, make)
        self.up, self.down = make.linear("up"), make.linear("down")
        self.depthwise = None
        if spec.depthwise:
            grid = make.stream.wide(make.node.matrices["up"][0].outputs)
            self.depthwise = GridConvolution(grid, size=spec.depthwise, bias=True)

    def forward(self, x: Tokens, outer: Outer | None = None) -> Tensor:
        inner = project(self.up, x.features, x)
        if self.depthwise is not None:
            inner = self.depthwise(inner)
        return project(self.down, dropped(self.dropout, self.function(x, outer)(inner)), x)


def gating(spec: kinds.Glu) -> Callable[..., Tensor]:
    """``f(gate) * (up + up_offset)``, as the schema says; of another function than its own where one is given."""
    own, alpha, limit = ACTIVATIONS[spec.activation], spec.alpha, spec.limit

    def gated(gate: Tensor, up: Tensor, function: Callable[[Tensor], Tensor] = own) -> Tensor:
        if limit is not None:
            gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        if alpha == 1:
            gate = function(gate)
        elif function is own and spec.activation == "silu":
            gate = gate * torch.sigmoid(alpha * gate)
        else:
            gate = function(alpha * gate) / alpha
        return gate * (up + spec.up_offset if spec.up_offset else up)

    return gated


def activation(spec: kinds.Inner) -> Callable[[Tensor], Tensor]:
    """What a channel mixer does between its matrices, to what those before give side by side."""
    if not isinstance(spec, kinds.Glu):
        return ACTIVATIONS[spec.activation]
    gated = gating(spec)

    def halves(x: Tensor) -> Tensor:
        parts = x.chunk(2, dim=-1)
        return gated(parts[0], parts[1])

    return halves


@builds(kinds.Glu)
class Glu(Inner):
    def __init__(self, spec: kinds.Glu, make: Make) -> None:
        super().__init__(spec, make)
        self.gate_up = make.fused("gate", "up") if make.plain("gate", "up") else None  # one product, split after
        if self.gate_up is None:
            self.gate, self.up = make.linear("gate"), make.linear("up")
        self.down = make.linear("down")
        self.gated = gating(spec)

    def forward(self, x: Tokens, outer: Outer | None = None) -> Tensor:
        if self.gate_up is not None:
            parts = self.gate_up(x.features).chunk(2, dim=-1)
            gate, up = parts[0], parts[1]
        else:
            gate, up = project(self.gate, x.features, x), project(self.up, x.features, x)
        return project(self.down, dropped(self.dropout, self.gated(gate, up, self.function(x, outer))), x)


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


@builds(kinds.GatedActivation)
class GatedActivation(nn.Module):
    def __init__(self, spec: kinds.GatedActivation, make: Make) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[spec.function]

    def forward(self, x: Tokens) -> Tensor:
        halves = x.features.chunk(2, dim=-1)
        return self.activation(halves[0]) * halves[1]
