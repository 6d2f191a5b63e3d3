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
        self.k = router.k if isinstance(router, kinds.TopK) else 1 if router is not None else count
        self.gates = node.outputs["gates"] if "gates" in node.reads else None
        alike = node.bodies.get("expert")
        if alike is not None and stackable(alike):
            self.experts: nn.Module = StackedExperts(alike, count, self.k)
        else:
            slots = ["expert"] * count if alike is not None else make.slots("experts")
            bodies = [node.bodies[slot] for slot in slots]
            pointwise = all(body.pointwise and not body.differs_in_training for body in bodies)
            self.experts = UnlikeExperts([make.block(slot) for slot in slots], self.k, pointwise=pointwise)
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
        valid = None if x.valid is None else x.valid.expand(x.features.shape[:2]).flatten()
        parts = self.choose(logits, valid)
        weights, chosen, loss = parts[0], parts[1], parts[2]
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

    def forward(self, logits: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
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
        picked = F.one_hot(chosen, self.experts)
        if valid is not None:  # padding goes nowhere, takes no room and counts in no loss
            picked = picked * valid[:, None, None]
            weights = weights * valid[:, None]
        load = picked.sum(1)
        if spec.capacity is not None:
            weights = weights * self.within(picked, spec.capacity)
        if spec.balance == "bias" and self.training and not logits.is_meta:
            with torch.no_grad():
                total = load.sum(0).to(self.balance_bias.dtype)
                self.balance_bias += spec.balance_rate * (total.mean() - total).sign()
        counted = logits.new_ones(logits.shape[0]) if valid is None else valid.to(logits.dtype)
        return weights, chosen, self.losses(logits, scores, load, counted / counted.sum())

    def within(self, picked: Tensor, capacity: float) -> Tensor:
        """``[tokens, k]`` from choices ``[tokens, k, experts]``: 1 where a token is among the first of its expert."""
        room = max(1, int(capacity * picked.shape[0] * picked.shape[1] / self.experts))
        flat = picked.transpose(0, 1).flatten(0, 1)  # first choices of all tokens come first
        place = (flat.cumsum(0) * flat).sum(-1)
        return (place <= room).unflatten(0, (picked.shape[1], -1)).T

    def losses(self, logits: Tensor, scores: Tensor, load: Tensor, share_of: Tensor) -> Tensor:
        """The sum of the router's losses; ``share_of`` ``[tokens]`` is what each token counts, together one."""
        spec = self.spec_
        total = logits.new_zeros(())
        if spec.balance == "loss":
            tokens = (load * share_of[:, None]).sum(0) / spec.k
            total = total + spec.balance_weight * self.experts * (tokens * (scores * share_of[:, None]).sum(0)).sum()
        if spec.z_loss:
            total = total + spec.z_loss * (logits.logsumexp(-1).square() * share_of).sum()
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
    """Experts of any bodies: where they see single tokens, each runs on its own tokens, else on the whole sequence."""

    def __init__(self, bodies: list[nn.Module], k: int, *, pointwise: bool) -> None:
        super().__init__()
        self.k, self.active_share = k, k / len(bodies)
        self.bodies: nn.Module = Dispatch(bodies) if pointwise else nn.ModuleList(bodies)

    def forward(self, rows: Tensor, weights: Tensor, chosen: Tensor, x: Tokens, outer: Outer) -> Tensor:
        if isinstance(self.bodies, Dispatch):
            out: Tensor = self.bodies(weights, chosen, *(tensor for _, tensor in x.tensors()))
            return out
        total = torch.zeros_like(rows)
        assert isinstance(self.bodies, nn.ModuleList)
        for number, body in enumerate(self.bodies):
            share = (weights * (chosen == number)).sum(-1, keepdim=True)
            total = total + share * main(body, x, outer=outer).features.flatten(0, 1)
        return total


class Dispatch(Leaf):
    """Runs each expert on the tokens that chose it; ``static`` runs all on all, with the same result.

    On the meta device, where nobody chooses, experts count as equally busy.
    """

    def __init__(self, bodies: list[nn.Module]) -> None:
        super().__init__()
        self.static = False
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
                total = total + share * run(body, tensors)
                continue
            places = self.places(hit, number, len(bodies))
            out = run(body, [tensor[places] for tensor in tensors])
            total = total.index_add(0, places, share[places] * out)
        return total

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
    """Makes experts run on all tokens, or on their own again: slower, but free of shapes that depend on data.

    For `torch.export` and `torch.func.vmap` of mixtures whose experts are not one stacked perceptron.
    """
    for module in model.modules():
        if isinstance(module, Dispatch):
            module.static = on
