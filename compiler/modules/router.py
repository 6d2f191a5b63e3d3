"""Routers of mixtures (schemas in archspec.kinds.router)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import router as kinds
from compiler.build import Make, weight
from compiler.moving import Number, moved, now, number
from compiler.registry import Keeper, Leaf, builds
from compiler.tokens import Tokens


class Jitter(Leaf):
    """In training, features are multiplied by uniform noise in 1 - rate to 1 + rate."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.moving = rate, moved(rate)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        if self.moving is not None:
            return x * (1 + self.moving() * (2 * torch.rand_like(x) - 1))
        return x * torch.empty_like(x).uniform_(1 - self.rate, 1 + self.rate)


class Scored(nn.Module):
    """Scores ``[batch, tokens, experts]`` in float32; gives weights and experts ``[rows, k]`` and the losses."""

    def __init__(self, spec: kinds.Scored, make: Make, choose: Leaf) -> None:
        super().__init__()
        experts = make.node.output.width
        self.weight = weight(experts, make.stream.width)
        self.bias = weight(experts) if spec.bias else None
        self.initial = {"weight": ("scheme",), "bias": 0.0}
        self.jitter = Jitter(spec.jitter) if spec.jitter else None
        self.choose, self.loses = choose, spec.loses

    def forward(self, x: Tokens) -> tuple[Tensor, Tensor, Tensor | None]:
        features = x.features if self.jitter is None else self.jitter(x.features)
        bias = None if self.bias is None else self.bias.float()
        logits = F.linear(features.float(), self.weight.float(), bias)
        parts = self.choose(logits, x.valid)
        weights, chosen, loss = parts[0], parts[1], parts[2]
        return weights.to(x.features.dtype), chosen, loss if self.loses else None


@builds(kinds.TopK)
class TopK(Scored):
    def __init__(self, spec: kinds.TopK, make: Make) -> None:
        super().__init__(spec, make, Choose(spec, make.node.output.width, causal=make.stream.causal))


@builds(kinds.SparseMixer)
class SparseMixer(Scored):
    def __init__(self, spec: kinds.SparseMixer, make: Make) -> None:
        super().__init__(spec, make, Draw(spec, make.node.output.width))


class Many(nn.Module):
    """How many experts a token meets.

    A k that moves is read on the host, so that no more is computed than for a k that stays. In a static form, as under
    `torch.compile`, the most that it can be are chosen, and ``taken`` tells which of them count.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k, self.static = number(k), False

    @property
    def fixed(self) -> bool:
        return isinstance(self.k, Number) and (self.static or torch.compiler.is_compiling())

    @property
    def most(self) -> int:
        if not isinstance(self.k, Number):
            return self.k  # type: ignore[return-value]
        return int(self.k.course.ends[1] if self.fixed else self.k.number)

    def taken(self, chosen: Tensor) -> Tensor | None:
        """Of experts ``[rows, k]`` from the best on, which count; None where all do."""
        return torch.arange(chosen.shape[1], device=chosen.device) < now(self.k) if self.fixed else None


class Losing(nn.Module):
    """The losses of a router (source at the schema of `TopK`)."""

    def __init__(self, spec: kinds.TopK | kinds.SparseMixer, many: Many) -> None:
        super().__init__()
        self.balances, self.many = spec.balance == "loss", many
        self.balance_weight, self.z_loss = number(spec.balance_weight), number(spec.z_loss)

    def forward(
        self, logits: Tensor, scores: Tensor, load: Tensor, valid: Tensor | None, over_all: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Their sum; ``load`` is how often a token ``[rows]`` chose each expert ``[experts]``."""
        counted = logits.new_ones(logits.shape[0]) if valid is None else valid.to(logits.dtype)
        share = (counted / over_all(counted.sum()))[:, None]
        total = logits.new_zeros(())
        if self.balances:
            tokens = over_all((load * share).sum(0)) / (now(self.many.k) if self.many.fixed else self.many.most)
            weight = now(self.balance_weight)
            total = total + weight * scores.shape[1] * (tokens * over_all((scores * share).sum(0))).sum()
        if self.z_loss:
            total = total + now(self.z_loss) * over_all((logits.logsumexp(-1).square() * share[:, 0]).sum())
        return total


class Choose(Keeper):
    """The choice of experts from router logits ``[batch, tokens, experts]`` (source at the schema)."""

    def __init__(self, spec: kinds.TopK, experts: int, *, causal: bool = False) -> None:
        super().__init__()
        self.spec_, self.experts, self.causal = spec, experts, causal
        self.many = Many(spec.k)
        self.losing = Losing(spec, self.many)
        self.scale, self.temperature, self.threshold = map(number, (spec.scale, spec.temperature, spec.threshold))
        self.noise, self.moving = spec.noise, moved(spec.noise)
        if spec.balance == "bias":
            self.register_buffer("balance_bias", torch.empty(experts, device="meta"))

    def fill(self) -> None:
        self.balance_bias.zero_()

    def forward(self, logits: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        spec, tokens = self.spec_, logits.shape[1]
        if self.decoding is not None and self.causal and valid is None:
            valid = self.decoding.real(tokens)
        logits, valid = rows(logits, valid)
        warm = logits
        if self.training and self.noise:
            warm = logits + gumbel(logits) * (self.noise if self.moving is None else self.moving())
        if spec.temperature != 1:
            warm = warm / now(self.temperature)
        scores = warm.softmax(-1) if spec.score == "softmax" else warm.sigmoid()
        ranking = scores
        if spec.balance == "bias":
            ranking = ranking + self.balance_bias
        if spec.groups > 1:
            grouped = ranking.unflatten(-1, (spec.groups, -1))
            counted = 1 if spec.group_score == "best" else min(2, grouped.shape[-1])
            best = grouped.topk(counted, dim=-1).values.sum(-1)
            kept = torch.zeros_like(best).scatter(-1, best.topk(spec.top_groups, dim=-1).indices, 1.0)
            ranking = grouped.masked_fill(kept[..., None] == 0, float("-inf")).flatten(-2)
        ordered = spec.capacity is not None or self.many.fixed
        chosen = ranking.topk(self.many.most, dim=-1, sorted=ordered).indices  # first choices first
        weights = scores.gather(-1, chosen)
        taken = self.many.taken(chosen)
        if spec.threshold:
            above = weights > now(self.threshold)
            taken = above if taken is None else above & taken
        if taken is not None:
            weights = weights * taken
        if spec.normalizes:
            norm = weights.sum(-1, keepdim=True) if spec.order == 1 else weights.norm(spec.order, -1, keepdim=True)
            weights = weights / (norm + 1e-20)
        if spec.scale != 1:
            weights = weights * now(self.scale)
        picked, weights = assigned(chosen, weights, valid, self.experts)
        if taken is not None:
            picked = picked * taken.expand_as(chosen)[..., None]
        load = picked.sum(1)
        if spec.capacity is not None:
            weights = weights * self.within(picked, spec.capacity)
        if spec.room is not None:
            weights = weights * (self.taken(load.unflatten(0, (-1, tokens))).gather(-1, chosen) <= spec.room)
        if spec.balance == "bias" and self.training and not logits.is_meta:
            with torch.no_grad():
                total = self.over_all(load.sum(0)).to(self.balance_bias.dtype)
                self.balance_bias += spec.balance_rate * (total.mean() - total).sign()
        return weights, chosen, self.losing(logits, scores, load, valid, self.over_all)

    def within(self, picked: Tensor, capacity: float) -> Tensor:
        """``[tokens, k]`` from choices ``[tokens, k, experts]``: 1 where a token is among the first of its expert."""
        even = capacity * picked.shape[0] / self.experts
        room: Tensor | int = max(1, int(even * self.many.most))
        if self.many.fixed:
            room = (even * now(self.many.k)).floor().clamp(min=1)  # type: ignore[union-attr]
        flat = picked.transpose(0, 1).flatten(0, 1)  # first choices of all tokens come first
        place = (flat.cumsum(0) * flat).sum(-1)
        return (place <= room).unflatten(0, (picked.shape[1], -1)).T

    def taken(self, load: Tensor) -> Tensor:
        """``[rows, experts]`` from ``[batch, tokens, experts]``: what each expert was given of a sequence so far."""
        total = load.cumsum(1)
        if self.decoding is not None and self.causal:
            kept = self.decoding.kept(self)
            if "load" in kept:
                total = total + kept["load"]
            kept["load"] = total[:, -1:].clone()
        return total.flatten(0, 1)


class Draw(Leaf):
    """k experts one after the other, drawn from those that come close to the best (source at the schema)."""

    def __init__(self, spec: kinds.SparseMixer, experts: int) -> None:
        super().__init__()
        self.spec_, self.experts, self.noise, self.moving = spec, experts, spec.noise, moved(spec.noise)
        self.many = Many(spec.k)
        self.losing = Losing(spec, self.many)

    def forward(self, logits: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        spec = self.spec_
        logits, valid = rows(logits, valid)
        left, chosen, weights = logits, [], []
        for _ in range(self.many.most):
            best, pick = left.max(-1, keepdim=True)
            with torch.no_grad():
                far = (best - logits) / torch.maximum(logits.abs(), best) > 2 * spec.tolerance
            close = left.masked_fill(far, float("-inf"))
            share = close.softmax(-1)
            if self.training and self.noise:
                first = pick
                noise = self.noise if self.moving is None else self.moving()
                pick = (close + noise * gumbel(close)).argmax(-1, keepdim=True)
                whole = (pick == first) | (torch.rand_like(best) > 0.75)
                weight = share.gather(-1, pick)
                weight = weight - (weight * ~whole * (2 / 3)).detach()  # its value alone: the gradient is the whole's
            else:
                weight = share.gather(-1, pick)
            chosen.append(pick)
            weights.append(weight)
            left = left.scatter(-1, pick, float("-inf"))
        places = torch.cat(chosen, dim=-1)
        picked, weighed = assigned(places, torch.cat(weights, dim=-1), valid, self.experts)
        if (taken := self.many.taken(places)) is not None:
            picked, weighed = picked * taken[:, None], weighed * taken
        return weighed, places, self.losing(logits, logits.softmax(-1), picked.sum(1), valid, self.over_all)


def gumbel(like: Tensor) -> Tensor:
    """Noise with which the highest of noisy scores is one drawn by their softmax."""
    return -torch.empty_like(like).exponential_().log()


def rows(logits: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Tokens of all samples as rows."""
    return logits.flatten(0, 1), None if valid is None else valid.expand(logits.shape[:2]).flatten()


def assigned(chosen: Tensor, weights: Tensor, valid: Tensor | None, experts: int) -> tuple[Tensor, Tensor]:
    """Choices ``[rows, k]`` as ones in ``[rows, k, experts]``, and weights; padding has neither."""
    picked = (chosen[..., None] == torch.arange(experts, device=chosen.device)).to(torch.int64)
    if valid is None:
        return picked, weights
    return picked * valid[:, None, None], weights * valid[:, None]


@builds(kinds.ByLabelRouter)
class LabelRouter(nn.Module):
    def __init__(self, spec: kinds.ByLabelRouter, make: Make) -> None:
        super().__init__()
        self.label = spec.label

    def forward(self, x: Tokens) -> tuple[Tensor, Tensor, None]:
        chosen = x.labels[self.label].expand(x.features.shape[:2]).flatten()[:, None]
        return torch.ones_like(chosen, dtype=x.features.dtype), chosen, None
