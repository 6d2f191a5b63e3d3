"""Neural memory (schema in archspec.kinds.neural_memory)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kinds import neural_memory as kinds
from compiler.build import Make, weight
from compiler.modules.gated_linear_attention import GatedLinearAttention
from compiler.modules.recurrence import causal_convolution, precise, real_tokens
from compiler.registry import Keeper, builds


@builds(kinds.NeuralMemory)
class NeuralMemory(GatedLinearAttention):
    """Around the memory as gated linear attention. Its first weights are ``memory_0, … [heads, inputs, outputs]``."""

    apart = "gates"

    def __init__(self, spec: kinds.NeuralMemory, make: Make) -> None:
        super().__init__(spec, make)
        self.memory, self.residual = Memory(spec), spec.hidden is not None
        self.convolution = causal_convolution(make.stream.wide(sum(self.widths[:3])), spec.convolution, bias=False)
        self.features = make.body("features") if make.has("features") else None
        if self.features is not None:
            self.features.fits(self.heads)  # type: ignore[operator]
        self.initial: dict[str, object] = {}
        for number, (inputs, outputs) in enumerate(spec.layers(make.node)):
            self.register_parameter(f"memory_{number}", weight(self.heads, inputs, outputs))
            self.initial[f"memory_{number}"] = ("normal", inputs**-0.5) if self.residual else 0.0

    def read(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor, valid: Tensor | None) -> Tensor:
        if self.convolution is not None:
            mixed = torch.cat((q.flatten(2), k.flatten(2), v.flatten(2)), dim=-1)
            mixed = self.convolution(mixed if valid is None else mixed * valid[..., None])  # padding is silence
            split = mixed.split(self.widths[:3], dim=-1)
            q, k, v = (split[number].unflatten(-1, (self.heads, -1)) for number in range(3))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        mapped = (q, k) if self.features is None else self.features(q, k)
        weights = [getattr(self, name) for name in self.initial]
        y: Tensor = self.memory(mapped[0], mapped[1], v - k if self.residual else v, gates, valid, *weights)
        return y + q if self.residual else y


class Memory(Keeper):
    """What memories give for ``asked`` while they learn ``values`` for ``keys``, all ``[batch, tokens, heads, …]``.

    ``gates``, alike, are what goes into the sigmoids: of the learning rate, of what is kept, of the momentum if
    there is one, and of the window's tokens, the token itself first. ``weights [heads, inputs, outputs]``.
    """

    def __init__(self, spec: kinds.NeuralMemory) -> None:
        super().__init__()
        self.window, self.chunk, self.momentum = spec.window, spec.chunk, spec.momentum
        self.iterations, self.slowness = spec.newton_schulz, spec.slowness
        self.rate = spec.learning_rate or 1 / (spec.window * spec.chunk)

    def forward(
        self, asked: Tensor, keys: Tensor, values: Tensor, gates: Tensor, valid: Tensor | None, *weights: Tensor
    ) -> Tensor:
        opened, keys = precise(gates), precise(keys)
        rate, keep = opened[..., 0].sigmoid() * self.rate, F.logsigmoid(opened[..., 1]) / self.slowness
        hold = [F.logsigmoid(opened[..., 2])] if self.momentum else []
        if (real := real_tokens(self, values, valid)) is not None:  # padding is not written and takes no time
            keys = keys * real[..., None, None]
            rate, keep, *hold = (x * real[..., None] for x in (rate, keep, *hold))
        given = [precise(asked), keys, precise(values), opened[..., -self.window :].sigmoid(), rate, keep, *hold]
        if self.decoding is not None:
            return self.run(given, weights, self.decoding.kept(self)).to(values.dtype)
        if valid is None:
            return self.run(given, weights, {}).to(values.dtype)
        order = (~valid).byte().argsort(dim=1, stable=True)  # chunks are of real tokens
        rows = torch.arange(len(order), device=order.device)[:, None]
        return self.run([x[rows, order] for x in given], weights, {})[rows, order.argsort(dim=1)].to(values.dtype)

    def run(self, given: list[Tensor], weights: tuple[Tensor, ...], state: dict[str, Tensor]) -> Tensor:
        """What is read; the state, empty at first, becomes that after the last token."""
        given = [x.transpose(1, 2) for x in given]
        start = self.decoding.start if self.decoding is not None else None
        first = self.decoding.position if self.decoding is not None else 0
        phases = {0} if start is None else set((start % self.chunk).tolist())
        if not state:
            for name, like in (("keys", given[1]), ("values", given[2])):
                state[name] = like.new_zeros(*like.shape[:2], self.window - 1, like.shape[3])
            for number, matrix in enumerate(weights):
                matrix = precise(matrix).expand(len(given[0]), -1, -1, -1)
                state[f"anchor_{number}"] = state[f"now_{number}"] = matrix
                if self.momentum:
                    state[f"speed_{number}"] = torch.zeros_like(matrix)
        tokens, read = given[0].shape[2], []
        begins = [at for at in range(1, tokens) if any((first + at - phase) % self.chunk == 0 for phase in phases)]
        sizes = [end - begin for begin, end in pairwise([0, *begins, tokens])]
        for begin, *piece in zip([0, *begins], *(x.split(sizes, dim=2) for x in given), strict=True):
            for number in range(len(weights)):
                now, anchor = state[f"now_{number}"], state[f"anchor_{number}"]
                if start is not None:  # each sequence has its own chunks
                    new = (first + begin - start) % self.chunk == 0
                    state[f"anchor_{number}"] = torch.where(new[:, None, None, None], now, anchor)
                elif (first + begin) % self.chunk == 0:
                    state[f"anchor_{number}"] = now
            read.append(advance(state, *piece, iterations=self.iterations))
        return torch.cat(read, dim=2).transpose(1, 2)


def advance(
    state: dict[str, Tensor], asked: Tensor, keys: Tensor, values: Tensor, window: Tensor, rate: Tensor, keep: Tensor,
    hold: Tensor | None = None, *, iterations: int = 0,
) -> Tensor:  # fmt: skip
    """What is read by some tokens of one chunk, all at once; the state becomes that after them.

    A token's gradient is the outer product of a matrix's input and its output's error. So what steps change in what is
    read is an attention to these, unless each step has to be made orthogonal.

    Args:
        state: of each matrix ``anchor``, it when the chunk began, ``now`` and, with momentum, ``speed``; ``keys``
            and ``values`` of the window before.
        asked, keys, values: ``[batch, heads, tokens, width]``.
        window: ``[batch, heads, tokens, window]``.
        rate, keep, hold: ``[batch, heads, tokens]``, the latter two as logarithms.
    """
    tokens, reach = window.shape[2:]
    keys, values = torch.cat((state["keys"], keys), dim=2), torch.cat((state["values"], values), dim=2)
    state["keys"], state["values"] = keys[:, :, tokens:].clone(), values[:, :, tokens:].clone()
    band = F.pad(window.flip(-1), (0, tokens)).flatten(-2)[..., : tokens * (tokens + reach - 1)]
    share = band.unflatten(-1, (tokens, -1))  # of each token's gradient in a step
    pace, left = decays(keep) * rate[..., None, :], keep.cumsum(-1).exp()[..., None]
    if hold is not None:
        share, held = decays(hold) @ share, hold.cumsum(-1).exp()[..., None]
    found = gradients([state[name] for name in state if name.startswith("anchor")], keys, values)
    for number, (x, error) in enumerate(found):
        asked = F.gelu(asked) if number else asked
        now, speed = state[f"now_{number}"], state.get(f"speed_{number}")
        if iterations:
            steps = share @ (x[..., :, None] * error[..., None, :]).flatten(-2)
            steps = steps if speed is None else steps + held * speed.flatten(-2)[..., None, :]
            moved = pace @ orthogonal(steps.unflatten(-1, now.shape[-2:]), iterations).flatten(-2)
            memories = (left * now.flatten(-2)[..., None, :] - moved).unflatten(-1, now.shape[-2:])
            asked, now = (asked[..., None, :] @ memories)[..., 0, :], memories[:, :, -1]
            speed = None if speed is None else steps[:, :, -1].unflatten(-1, now.shape[-2:])
        else:
            moved, before = pace @ share, asked
            asked = left * (before @ now) - (moved * (before @ x.mT)) @ error
            now = left[..., -1:, :] * now - (x * moved[..., -1, :, None]).mT @ error
            if speed is not None:
                old = pace @ held
                asked, now = asked - old * (before @ speed), now - old[..., -1:, :] * speed
                speed = held[..., -1:, :] * speed + (x * share[..., -1, :, None]).mT @ error
        state[f"now_{number}"] = now
        if speed is not None:
            state[f"speed_{number}"] = speed
    return asked


def gradients(weights: list[Tensor], keys: Tensor, values: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of half the squared error, for each matrix: its inputs and the errors of its outputs."""
    seen = keys @ weights[0]
    if len(weights) == 1:
        return [(keys, seen - values)]
    hidden = F.gelu(seen)
    error = hidden @ weights[1] - values
    return [(keys, torch.ops.aten.gelu_backward(error @ weights[1].mT, seen)), (hidden, error)]


def decays(logarithms: Tensor) -> Tensor:
    """``[…, tokens, tokens]``: what of each token is left at each later one, zero before it."""
    since = logarithms.cumsum(-1)
    later = torch.ones(since.shape[-1], since.shape[-1], dtype=torch.bool, device=since.device).triu(1)
    return (since[..., :, None] - since[..., None, :]).masked_fill(later, float("-inf")).exp()


def orthogonal(x: Tensor, iterations: int) -> Tensor:
    """The matrices with all singular values near one: Newton-Schulz iterations (Jordan et al. 2024, "Muon")."""
    if wide := x.shape[-2] > x.shape[-1]:
        x = x.mT
    x = x * torch.rsqrt(x.square().sum((-2, -1), keepdim=True) + 1e-12)
    for _ in range(iterations):
        square = x @ x.mT
        x = 3.4445 * x + (2.0315 * square @ square - 4.775 * square) @ x
    return x.mT if wide else x
