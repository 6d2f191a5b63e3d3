"""Mixtures of experts (schema in archspec.kinds.mixture)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from archspec.graph import Graph
from archspec.kind import Matrix
from archspec.kinds import channel
from archspec.kinds import mixture as kinds
from archspec.kinds.router import Scored
from compiler.build import LOSSES, Make, main, plain_linear, weight
from compiler.modules.channel import activation
from compiler.modules.grouped import GroupedLinear, Sorting, summed, unsorted
from compiler.modules.regularise import dropout, dropped
from compiler.modules.router import Jitter, Many
from compiler.modules.threshold import Enter
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens, pack

Outer = Mapping[str, Tokens]


@builds(kinds.Mixture)
class Mixture(nn.Module):
    def __init__(self, spec: kinds.Mixture, make: Make) -> None:
        super().__init__()
        node = make.node
        count = spec.size(node)
        self.router = make.body("router") if make.has("router") else None
        self.gates_name = node.streams.get("router")
        router = node.bodies["router"].nodes[0].kind if make.has("router") else None
        self.k = router.k if isinstance(router, Scored) else 1 if router is not None else count
        self.jitter = Jitter(spec.jitter) if spec.jitter else None
        self.gates = node.outputs["gates"] if "gates" in node.reads else None
        alike = node.bodies.get("expert")
        if alike is not None and stackable(alike):
            self.experts: nn.Module = StackedExperts(alike, count, self.k, weigh=spec.weigh)
        else:
            slots = ["expert"] * count if alike is not None else make.slots("experts")
            bodies = [node.bodies[slot] for slot in slots]
            pointwise = all(body.pointwise and not body.differs_in_training for body in bodies)
            blocks = [make.block(slot) for slot in slots]
            self.experts = UnlikeExperts(blocks, self.k, pointwise=pointwise, weigh=spec.weigh)
        self.shared = make.body("shared") if make.has("shared") else None
        self.shared_gate = plain_linear(Matrix(make.stream.width, 1)) if spec.shared_gate else None
        self.bias = weight(make.stream.width) if spec.bias else None
        self.initial = {"bias": 0.0}

    def forward(self, x: Tokens, outer: Outer) -> dict[str, Tokens] | Tensor:
        loss = None
        if self.jitter is not None:
            x = replace(x, features=self.jitter(x.features))
        if self.router is not None:
            weights, chosen, loss = self.router(x)
        else:
            assert self.gates_name is not None
            weights = outer[self.gates_name].features.flatten(0, 1)
            chosen = torch.ones_like(weights, dtype=torch.int64).cumsum(-1) - 1
        rows = x.features.flatten(0, 1)
        out = self.experts(rows, weights, chosen, x, outer).unflatten(0, x.features.shape[:2])
        if self.shared is not None:
            shared = main(self.shared, x, outer=outer).features
            out = out + (shared if self.shared_gate is None else self.shared_gate(x.features).sigmoid() * shared)
        if self.bias is not None:
            out = out + self.bias
        losses = LOSSES.get()
        if loss is not None and losses is not None:
            losses.append(loss)
        if self.gates is None:
            return out
        every = weights.new_zeros(rows.shape[0], self.gates.width).scatter(1, chosen, weights)
        gates = x.give(every.unflatten(0, x.features.shape[:2]), self.gates)
        return {"": x.give(out, x.stream), "gates": gates}


def stackable(graph: Graph) -> bool:
    """Whether an expert is one plain perceptron, so that its matrices can be stacked over experts."""
    node = graph.single
    return (
        node is not None
        and isinstance(node.kind, (channel.Glu, channel.Mlp))
        and all(plan is None for _, plan in node.matrices.values())
        and not getattr(node.kind, "depthwise", None)
        and not node.bodies
    )


class StackedExperts(nn.Module):
    """Experts of one shape, their matrices stacked: rows are sorted by expert and multiplied group by group."""

    def __init__(self, graph: Graph, count: int, k: int, *, weigh: str = "output") -> None:
        super().__init__()
        node = graph.nodes[0]
        kind = node.kind
        assert isinstance(kind, channel.Inner)
        self.k, self.active_share, self.weigh = k, k / count, weigh
        self.sorting = Sorting(count)
        roles = ("gate", "up") if isinstance(kind, channel.Glu) else ("up",)
        self.up = GroupedLinear(count, *(node.matrices[role][0] for role in roles), roles=roles)
        self.down = GroupedLinear(count, node.matrices["down"][0], roles=("down",))
        self.activation = activation(kind)
        self.dropout = dropout(kind.dropout)

    def forward(self, rows: Tensor, weights: Tensor, chosen: Tensor, x: Tokens, outer: Outer) -> Tensor:
        parts = self.sorting(rows, chosen)
        inner, order, ends = parts[0], parts[1], parts[2]
        if self.weigh == "input":
            inner = inner * weights.flatten()[order][:, None]
        inner = dropped(self.dropout, self.activation(self.up(inner, ends)))
        out = unsorted(self.down(inner, ends), order)
        if self.weigh == "input":
            weights = (weights != 0).to(out.dtype)  # what an expert says of nothing does not count
        return summed(out, weights)


class UnlikeExperts(nn.Module):
    """Experts of any bodies: where they see single tokens, each runs on its own tokens, else on the whole sequence."""

    def __init__(self, bodies: list[nn.Module], k: int, *, pointwise: bool, weigh: str = "output") -> None:
        super().__init__()
        self.k, self.active_share, self.weigh = k, k / len(bodies), weigh
        self.bodies: nn.Module = Dispatch(bodies, weigh) if pointwise else nn.ModuleList(bodies)

    def forward(self, rows: Tensor, weights: Tensor, chosen: Tensor, x: Tokens, outer: Outer) -> Tensor:
        if isinstance(self.bodies, Dispatch):
            out: Tensor = self.bodies(weights, chosen, *(tensor for _, tensor in x.tensors()))
            return out
        total = torch.zeros_like(rows)
        assert isinstance(self.bodies, nn.ModuleList)
        for number, body in enumerate(self.bodies):
            share = (weights * (chosen == number)).sum(-1, keepdim=True)
            seen = x
            if self.weigh == "input":
                seen = replace(x, features=x.features * share.unflatten(0, x.features.shape[:2]))
                share = (share != 0).to(share.dtype)
            total = total + share * main(body, seen, outer=outer).features.flatten(0, 1)
        return total


class Dispatch(Leaf):
    """Runs each expert on the tokens that chose it; ``static`` runs all on all, with the same result.

    On the meta device, where nobody chooses, experts count as equally busy.
    """

    def __init__(self, bodies: list[nn.Module], weigh: str) -> None:
        super().__init__()
        self.static, self.weigh = False, weigh
        for number, body in enumerate(bodies):
            self.add_module(str(number), body)

    def forward(self, weights: Tensor, chosen: Tensor, features: Tensor, *carried: Tensor) -> Tensor:
        shape = features.shape[:2]
        tensors = [features.flatten(0, 1), *(value.expand(shape).flatten() for value in carried)]
        total = torch.zeros_like(tensors[0])
        bodies = list(self._modules.values())
        for number, body in enumerate(bodies):
            assert body is not None
            hit = chosen == number
            share = (weights * hit).sum(-1, keepdim=True)
            if self.static:
                total = total + self.weighed(body, share, tensors)
                continue
            places = self.places(hit, number, len(bodies))
            total = total.index_add(0, places, self.weighed(body, share[places], [value[places] for value in tensors]))
        return total

    def weighed(self, body: nn.Module, share: Tensor, tensors: list[Tensor]) -> Tensor:
        """What an expert says of rows that weigh ``[rows, 1]``."""
        if self.weigh == "input":
            return (share != 0) * run(body, [tensors[0] * share, *tensors[1:]])
        return share * run(body, tensors)

    def places(self, hit: Tensor, number: int, experts: int) -> Tensor:
        """The tokens of one expert."""
        if not hit.is_meta:
            return hit.any(-1).nonzero()[:, 0]
        even, rest = divmod(hit.shape[0] * hit.shape[1], experts)
        return torch.empty(min(hit.shape[0], even + (number < rest)), dtype=torch.int64, device="meta")


def run(body: nn.Module, tensors: list[Tensor]) -> Tensor:
    """A traced expert on rows ``[tokens, width]`` and what they carry, as one sequence."""
    stream = next(iter(body.signature.graph.inputs.values()))  # type: ignore[union-attr]
    return main(body, pack(stream, [tensor[None] for tensor in tensors]), outer={}).features[0]


def static_routing(model: nn.Module, on: bool = True) -> None:
    """Makes experts and chosen tokens' bodies run on all tokens, or on their own again: slower, but free of shapes that
    depend on data.

    For `torch.export` and `torch.func.vmap` of models with experts, matrices by label, or a threshold.
    """
    for module in model.modules():
        if isinstance(module, (Dispatch, Enter, GroupedLinear, Many)):
            module.static = on
