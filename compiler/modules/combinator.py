"""Combinators (schemas in archspec.kinds.combinator)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from archspec.kinds import combinator as kinds
from compiler.build import Make, call, main, project
from compiler.modules.regularise import SampleDrop, dropout
from compiler.moving import now, number
from compiler.registry import builds
from compiler.tokens import Tokens

Outer = Mapping[str, Tokens]


@builds(kinds.Sequence)
class Sequence(nn.Module):
    def __init__(self, spec: kinds.Sequence, make: Make) -> None:
        super().__init__()
        self.body = make.body("body")

    def forward(self, *inputs: Tokens, outer: Outer) -> dict[str, Tokens]:
        return named(call(self.body, *inputs, outer=outer))


@builds(kinds.Residual)
class Residual(nn.Module):
    def __init__(self, spec: kinds.Residual, make: Make) -> None:
        super().__init__()
        self.spec_ = spec
        self.norm = make.body("norm") if make.has("norm") else None
        self.norm_after = make.body("norm_after") if make.has("norm_after") else None
        self.body = make.body("body")
        self.scale = make.body("scale") if make.has("scale") else None
        self.factor, self.skip = number(spec.factor), number(spec.skip)
        self.dropout = dropout(spec.dropout)
        self.drop_path = SampleDrop(spec.drop_path) if spec.drop_path else None

    def forward(self, *inputs: Tokens, outer: Outer) -> dict[str, Tokens]:
        spec, x = self.spec_, inputs[0]
        read = inputs
        if self.norm is not None:
            read = tuple(main(self.norm, stream, outer=outer) for stream in inputs)
        outputs = named(call(self.body, *read, outer=outer))
        y = outputs[""]
        if self.norm_after is not None and spec.place != "post":
            y = main(self.norm_after, y, outer=outer)
        if self.scale is not None:
            y = main(self.scale, y, outer=outer)
        branch = y.features if spec.factor == 1 else y.features * now(self.factor)
        if self.dropout is not None:
            branch = self.dropout(branch)
        if self.drop_path is not None:
            branch = self.drop_path(branch)
        kept = x.features if spec.skip == 1 else x.features * now(self.skip)
        if spec.on is not None:
            spans = [x.span(span.name, x.stream.on(span)).features for span in x.stream.spans]
            changed = [span.name for span in x.stream.spans].index(spec.on)
            spans[changed] = spans[changed] + branch
            out = x.give(torch.cat(spans, dim=1), x.stream)
        else:
            out = x.give(kept + branch, x.stream)
        if self.norm_after is not None and spec.place == "post":
            out = main(self.norm_after, out, outer=outer)
        return {**outputs, "": out}


@builds(kinds.Parallel)
class Parallel(nn.Module):
    def __init__(self, spec: kinds.Parallel, make: Make) -> None:
        super().__init__()
        self.merge = spec.merge
        self.branches = nn.ModuleList(make.body(slot) for slot in make.slots("branches"))
        self.gate = make.linear("gate") if "gate" in make.node.matrices else None
        self.dropout = dropout(spec.dropout)

    def forward(self, *inputs: Tokens, outer: Outer | None = None) -> Tokens:
        outs = [main(branch, *inputs, outer=outer or {}) for branch in self.branches]
        if not outs:
            return inputs[0]
        features = [out.features if self.dropout is None else self.dropout(out.features) for out in outs]
        if self.merge == "concat":
            together = torch.cat(features, dim=-1)
            return outs[0].give(together, outs[0].stream.wide(sum(out.stream.width for out in outs)))
        if self.gate is not None:
            weights = project(self.gate, inputs[0].features, inputs[0]).softmax(dim=-1)
            features = [f * weights[..., number : number + 1] for number, f in enumerate(features)]
        total = features[0]
        for other in features[1:]:
            total = total + other
        return outs[0].give(total / len(outs) if self.merge == "mean" else total, outs[0].stream)


def named(outputs: dict[str, Tokens]) -> dict[str, Tokens]:
    """A body's outputs as ports: the first is the main one; several keep their names."""
    first = next(iter(outputs.values()))
    return {"": first} if len(outputs) == 1 else {"": first, **outputs}
