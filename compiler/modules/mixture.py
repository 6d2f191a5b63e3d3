"""Mixtures of experts (schemas in archspec.kinds.mixture)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.graph import Graph
from archspec.kinds import channel
from archspec.kinds import mixture as kinds
from compiler.build import LOSSES, Make, main, weight
from compiler.modules.activations import ACTIVATIONS
from compiler.modules.grouped import GroupedLinear, Sorting
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens

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
        self.k = router.k if isinstance(router, kinds.TopK) else 1 if router is not None else count
        self.gates = node.outputs["gates"] if "gates" in node.reads else None
        alike = node.bodies.get("expert")
        if alike is not None and stackable(alike):
            self.experts: nn.Module = StackedExperts(alike, count, self.k)
        else:
            slots = ["expert"] * count if alike is not None else make.slots("experts")
            self.experts = UnlikeExperts([make.block(slot) for slot in slots], self.k)
        self.shared = make.body("shared") if make.has("shared") else None

    def forward(self, x: Tokens, outer: Outer) -> dict[str, Tokens] | Tensor:
        loss = None
        if self.router is not None:
            weights, chosen, loss = self.router(x)
        else:
            assert self.gates_name is not None
            weights = outer[self.gates_name].features.flatten(0, 1)
            chosen = torch.ones_like(weights, dtype=torch.int64).cumsum(-1) - 1
        rows = x.features.flatten(0, 1)
        out = self.experts(rows, weights, chosen, x, outer).unflatten(0, x.features.shape[:2])
        if self.shared is not None:
            out = out + main(self.shared, x, outer=outer).features
        losses = LOSSES.get()
        if loss is not None and losses is not None:
            losses.append(loss)
        if self.gates is None:
            return out
        every = weights.new_zeros(rows.shape[0], self.gates.width).scatter(1, chosen, weights)
        gates = x.give(every.unflatten(0, x.features.shape[:2]), self.gates)
        return {"": x.give(out, x.stream), "gates": gates}


@builds(kinds.TopK)
class TopK(nn.Module):
    """Scores ``[tokens, experts]`` in float32; gives weights and experts ``[tokens, k]`` and the router's losses."""

    def __init__(self, spec: kinds.TopK, make: Make) -> None:
        super().__init__()
        experts = make.node.output.width
        self.weight = weight(experts, make.stream.width)
        self.initial = {"weight": ("scheme",)}
        self.choose = Choose(spec, experts)

    def forward(self, x: Tokens) -> tuple[Tensor, Tensor, Tensor | None]:
        rows = x.features.flatten(0, 1)
        logits = F.linear(rows.float(), self.weight.float())
        weights, chosen, loss = self.choose(logits)
        return weights.to(rows.dtype), chosen, loss if self.choose.has_loss else None


class Choose(Leaf):
    """The choice of experts from router logits ``[tokens, experts]`` (source at the schema)."""

    def __init__(self, spec: kinds.TopK, experts: int) -> None:
        super().__init__()
        self.spec_, self.experts = spec, experts
        self.has_loss = spec.balance == "loss" or bool(spec.z_loss)
        if spec.balance == "bias":
            self.register_buffer("balance_bias", torch.empty(experts, device="meta"))

    def fill(self) -> None:
        self.balance_bias.zero_()

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spec = self.spec_
        scores = logits.softmax(-1) if spec.score == "softmax" else logits.sigmoid()
        ranking = scores
        if spec.balance == "bias":
            ranking = ranking + self.balance_bias
        if spec.groups > 1:
            grouped = ranking.unflatten(-1, (spec.groups, -1))
            best = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(-1)
            kept = torch.zeros_like(best).scatter(-1, best.topk(spec.top_groups, dim=-1).indices, 1.0)
            ranking = grouped.masked_fill(kept[..., None] == 0, float("-inf")).flatten(-2)
        chosen = ranking.topk(spec.k, dim=-1, sorted=spec.capacity is not None).indices  # first choices first
        weights = scores.gather(-1, chosen)
        if spec.normalize and spec.k > 1:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        if spec.scale != 1:
            weights = weights * spec.scale
        load = F.one_hot(chosen, self.experts).sum(1)
        if spec.capacity is not None:
            weights = weights * self.within(chosen, spec.capacity)
        if spec.balance == "bias" and self.training and not logits.is_meta:
            with torch.no_grad():
                total = load.sum(0).to(self.balance_bias.dtype)
                self.balance_bias += spec.balance_rate * (total.mean() - total).sign()
        return weights, chosen, self.losses(logits, scores, load)

    def within(self, chosen: Tensor, capacity: float) -> Tensor:
        """1 where a token is among the first that its expert takes, 0 where it comes too late."""
        room = max(1, int(capacity * chosen.shape[0] * chosen.shape[1] / self.experts))
        flat = F.one_hot(chosen.T.flatten(), self.experts)  # first choices of all tokens come first
        place = (flat.cumsum(0) * flat).sum(-1)
        return (place <= room).unflatten(0, (chosen.shape[1], -1)).T

    def losses(self, logits: Tensor, scores: Tensor, load: Tensor) -> Tensor:
        spec = self.spec_
        total = logits.new_zeros(())
        if spec.balance == "loss":
            share = load.float().mean(0) / spec.k
            total = total + spec.balance_weight * self.experts * (share * scores.mean(0)).sum()
        if spec.z_loss:
            total = total + spec.z_loss * logits.logsumexp(-1).square().mean()
        return total


@builds(kinds.ByLabelRouter)
class LabelRouter(nn.Module):
    def __init__(self, spec: kinds.ByLabelRouter, make: Make) -> None:
        super().__init__()
        self.label = spec.label

    def forward(self, x: Tokens) -> tuple[Tensor, Tensor, None]:
        chosen = x.labels[self.label].expand(x.features.shape[:2]).flatten()[:, None]
        return torch.ones_like(chosen, dtype=x.features.dtype), chosen, None


def stackable(graph: Graph) -> bool:
    """Whether an expert is one plain perceptron, so that its matrices can be stacked over experts."""
    node = graph.single
    return (
        node is not None
        and isinstance(node.kind, (channel.Glu, channel.Mlp))
        and all(plan is None for _, plan in node.matrices.values())
        and not node.kind.dropout
        and not getattr(node.kind, "depthwise", None)
    )


class StackedExperts(nn.Module):
    """Experts of one shape, their matrices stacked: rows are sorted by expert and multiplied group by group."""

    def __init__(self, graph: Graph, count: int, k: int) -> None:
        super().__init__()
        node = graph.nodes[0]
        kind = node.kind
        assert isinstance(kind, channel.Inner)
        self.gated = isinstance(kind, channel.Glu)
        self.k, self.active_share = k, k / count
        up, down = node.matrices["up"][0], node.matrices["down"][0]
        self.sorting = Sorting(count)
        self.up = GroupedLinear(count, up._replace(outputs=up.outputs * (2 if self.gated else 1)))
        self.down = GroupedLinear(count, down)
        self.activation = ACTIVATIONS[kind.activation]

    def forward(self, rows: Tensor, weights: Tensor, chosen: Tensor, x: Tokens, outer: Outer) -> Tensor:
        repeated = rows.repeat_interleave(self.k, dim=0) if self.k > 1 else rows
        sorted_rows, order, ends = self.sorting(repeated, chosen.flatten())
        inner = self.up(sorted_rows, ends)
        if self.gated:
            gate, up = inner.chunk(2, dim=-1)
            inner = self.activation(gate) * up
        else:
            inner = self.activation(inner)
        out = self.down(inner, ends)
        back = torch.empty_like(out).index_copy(0, order, out).unflatten(0, (-1, self.k))
        return (back * weights[..., None]).sum(1)


class UnlikeExperts(nn.Module):
    """Experts of any bodies: every expert sees its own tokens, as one sequence."""

    def __init__(self, bodies: list[nn.Module], k: int) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(bodies)
        self.k, self.active_share = k, k / len(bodies)

    def forward(self, rows: Tensor, weights: Tensor, chosen: Tensor, x: Tokens, outer: Outer) -> Tensor:
        total = torch.zeros_like(rows)
        for number, body in enumerate(self.bodies):
            share = (weights * (chosen == number)).sum(-1, keepdim=True)
            out = main(body, x, outer=outer).features.flatten(0, 1)
            total = total + share * out
        return total
