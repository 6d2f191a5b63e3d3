"""Selective state spaces (schemas in archspec.kinds.ssm)."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, expm1, log

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from archspec.kinds import ssm as kinds
from compiler.build import Make, main, project, weight
from compiler.modules.activations import ACTIVATIONS
from compiler.modules.recurrence import causal_convolution, precise, real_tokens, scan, spread
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens

Outer = Mapping[str, Tokens]


@builds(kinds.Mamba)
class Mamba(nn.Module):
    """Value and gate as one product; the convolution; what steps, ``B`` and ``C`` are made of as one; the scan."""

    def __init__(self, spec: kinds.Mamba, make: Make) -> None:
        super().__init__()
        self.inner, self.rank = spec.shape(make.stream)
        self.state = spec.state
        self.value_gate = make.fused("value", "gate") if make.plain("value", "gate") else None
        if self.value_gate is None:
            self.value, self.gate = make.linear("value"), make.linear("gate")
        size, stream = spec.convolution, make.stream.wide(self.inner)
        self.convolution = causal_convolution(stream, size, bias=spec.convolution_bias)
        self.activation = ACTIVATIONS[spec.activation]
        low = ("dt_down", "B", "C")
        self.selection = make.fused(*low) if make.plain(*low) else None
        if self.selection is None:
            self.dt_down, self.B, self.C = (make.linear(role) for role in low)
        normed = make.has("B_norm")
        self.dt_norm = make.body("dt_norm") if normed else None
        self.B_norm = make.body("B_norm") if normed else None
        self.C_norm = make.body("C_norm") if normed else None
        self.dt_up, self.out = make.linear("dt_up"), make.linear("out")
        if make.plain("dt_up"):
            self.dt_up.initial = {"weight": ("fan_in",)}  # type: ignore[assignment]
        self.A_log, self.D = weight(self.inner, self.state), weight(self.inner)
        self.dt_bias = weight(self.inner)
        self.initial = {
            "A_log": [log(number + 1) for number in range(self.state)],  # S4D-Real, section 3.6
            "D": 1.0,
            "dt_bias": steps(self.inner),
        }
        self.scan = SelectiveScan()

    def forward(self, x: Tokens, outer: Outer | None = None) -> Tensor:
        if self.value_gate is not None:
            both = self.value_gate(x.features).chunk(2, dim=-1)
            value, gate = both[0], both[1]
        else:
            value, gate = project(self.value, x.features, x), project(self.gate, x.features, x)
        value = self.activation(convolved(self.convolution, value, x))
        if self.selection is not None:
            parts = self.selection(value).split((self.rank, self.state, self.state), dim=-1)
            dt, B, C = parts[0], parts[1], parts[2]
        else:
            dt, B, C = (project(linear, value, x) for linear in (self.dt_down, self.B, self.C))
        if self.dt_norm is not None and self.B_norm is not None and self.C_norm is not None:
            dt, B, C = (
                main(norm, x.give(part, x.stream.wide(width)), outer=outer or {}).features
                for norm, part, width in (
                    (self.dt_norm, dt, self.rank), (self.B_norm, B, self.state), (self.C_norm, C, self.state)
                )
            )  # fmt: skip
        dt = project(self.dt_up, dt, x)
        y = self.scan(value, dt, self.A_log, B, C, self.dt_bias, x.valid) + value * self.D
        return project(self.out, y * F.silu(gate), x)


@builds(kinds.Mamba2)
class Mamba2(nn.Module):
    """All that is linear in the input as one product; the convolution; the state spaces; gate and norm; the way out."""

    def __init__(self, spec: kinds.Mamba2, make: Make) -> None:
        super().__init__()
        self.heads, self.head_width = spec.shape(make.stream)
        inner, shared = self.heads * self.head_width, spec.groups * spec.state
        self.groups, self.widths = spec.groups, (inner, shared, shared)
        self.read = ("gate", "value", "B", "C", "dt")
        self.inputs = make.fused(*self.read) if make.plain(*self.read) else None
        if self.inputs is None:
            for role in self.read:
                self.add_module(role, make.linear(role))
        size, stream = spec.convolution, make.stream.wide(sum(self.widths))
        self.convolution = causal_convolution(stream, size, bias=spec.convolution_bias)
        self.activation = ACTIVATIONS[spec.activation]
        self.A_log, self.D, self.dt_bias = weight(self.heads), weight(self.heads), weight(self.heads)
        self.initial = {
            "A_log": [log(rate) for rate in spread(self.heads, 1, 16)],
            "D": 1.0,
            "dt_bias": steps(self.heads),
        }
        self.scan = StateSpaceDual(spec)
        self.norm = make.body("norm") if make.has("norm") else None
        self.gated = spec.gated
        self.out = make.linear("out")

    def forward(self, x: Tokens, outer: Outer | None = None) -> Tensor:
        if self.inputs is not None:
            parts = self.inputs(x.features).split((self.widths[0], sum(self.widths), self.heads), dim=-1)
            gate, mixed, dt = parts[0], parts[1], parts[2]
        else:
            found = [project(getattr(self, role), x.features, x) for role in self.read]
            gate, mixed, dt = found[0], torch.cat(found[1:4], dim=-1), found[4]
        split = self.activation(convolved(self.convolution, mixed, x)).split(self.widths, dim=-1)
        value = split[0].unflatten(-1, (self.heads, self.head_width))
        B, C = split[1].unflatten(-1, (self.groups, -1)), split[2].unflatten(-1, (self.groups, -1))
        y = self.scan(value, dt, self.A_log, B, C, self.dt_bias, x.valid) + value * self.D[:, None]
        y, gate = y.flatten(2), F.silu(gate)
        if self.gated == "before_norm":
            y = y * gate
        if self.norm is not None:
            y = main(self.norm, x.give(y, x.stream.wide(self.widths[0])), outer=outer or {}).features
        if self.gated == "after_norm":
            y = y * gate
        return project(self.out, y, x)


def convolved(convolution: nn.Module | None, value: Tensor, x: Tokens) -> Tensor:
    """What comes out of the convolution of ``[batch, tokens, width]``, to which padding is silence."""
    if x.valid is not None:
        value = value * x.valid[..., None]
    return value if convolution is None else convolution(value)


def steps(count: int) -> list[float]:
    """What time steps between 0.001 and 0.1 are the softplus of, evenly in their logarithms."""
    return [log(expm1(exp(step))) for step in spread(count, log(0.001), log(0.1), other=True)]


class SelectiveScan(Keeper):
    """What is read of the states of ``x [batch, tokens, width]``, of its shape.

    ``dt [batch, tokens, width]`` is what time steps are the softplus of, with ``bias [width]``; ``A_log [width,
    state]``; ``B`` and ``C [batch, tokens, state]``. A token that is no real one takes no time.
    """

    def forward(
        self, x: Tensor, dt: Tensor, A_log: Tensor, B: Tensor, C: Tensor, bias: Tensor, valid: Tensor | None
    ) -> Tensor:  # fmt: skip
        step, real = F.softplus(precise(dt) + precise(bias)), real_tokens(self, x, valid)
        if real is not None:
            step = step * real[..., None]
        given = (precise(x), step, -precise(A_log).exp().T, precise(B), precise(C))
        if self.decoding is None:
            return selective_scan(*given)[0].to(x.dtype)
        kept = self.decoding.kept(self)
        y, kept["state"] = selective_scan(*given, kept.get("state"))
        return y.to(x.dtype)


BLOCK = 25
"""Tokens whose states there are at once."""


def selective_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """``h[t] = exp(dt A) h[t-1] + dt B x``, ``y[t] = C' h[t]`` for each feature, in blocks of tokens.

    Where there are gradients, the states of a block are computed again when they are needed.

    Args:
        x, dt: ``[batch, tokens, width]``, of any length.
        A: ``[state, width]``.
        B, C: ``[batch, tokens, state]``.
        state: before the first token, ``[batch, state, width]``; zero by default.

    Returns:
        y, as x, and the state after the last token.
    """
    if state is None:
        state = x.new_zeros(x.shape[0], *A.shape)
    again = torch.is_grad_enabled() and x.shape[1] > 1
    read = []
    for block in zip(*(part.split(BLOCK, dim=1) for part in (x * dt, dt, B, C)), strict=True):
        if again:
            y, state = checkpoint(_block, *block, A, state, use_reentrant=False, preserve_rng_state=False)
        else:
            y, state = _block(*block, A, state)
        read.append(y)
    return torch.cat(read, dim=1), state


def _block(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, A: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    h = scan((dt[:, :, None] * A).exp(), B[..., None] * x[:, :, None], state)  # [batch, tokens, state, width]
    return (C[:, :, None] @ h).squeeze(2), h[:, -1].clone()


class StateSpaceDual(Keeper):
    """What is read of the states of ``x [batch, tokens, heads, head width]``, of its shape.

    ``dt [batch, tokens, heads]`` is what time steps are the softplus of, with ``bias [heads]``; ``A_log [heads]``;
    ``B`` and ``C [batch, tokens, groups, state]``. A token that is no real one takes no time.
    """

    def __init__(self, spec: kinds.Mamba2) -> None:
        super().__init__()
        self.low, self.high, self.chunk = spec.dt_min, spec.dt_max, spec.chunk

    def forward(
        self, x: Tensor, dt: Tensor, A_log: Tensor, B: Tensor, C: Tensor, bias: Tensor, valid: Tensor | None
    ) -> Tensor:  # fmt: skip
        step, real = F.softplus(precise(dt) + precise(bias)), real_tokens(self, x, valid)
        if self.low or self.high is not None:
            step = step.clamp(self.low, self.high)
        if real is not None:
            step = step * real[..., None]
        v = precise(x)
        given = (v * step[..., None], step * -precise(A_log).exp(), precise(B), precise(C))
        if self.decoding is None:
            return chunked(*given, chunk=self.chunk)[0].to(x.dtype)
        kept = self.decoding.kept(self)
        state = kept.get("state")
        if x.shape[1] < SHORT:
            y, kept["state"] = one_by_one(*given, state)
        else:
            y, kept["state"] = chunked(*given, state, chunk=self.chunk)
        return y.to(x.dtype)


SHORT = 4
"""Fewer tokens than this are faster read one by one."""


def one_by_one(
    x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``H[t] = exp(log_decay) H[t-1] + B x'``, ``y[t] = H[t]' C`` for each head, token by token.

    Args:
        x: values times their time steps, ``[batch, tokens, heads, head width]``, of any length.
        log_decay: ``[batch, tokens, heads]``.
        B, C: ``[batch, tokens, groups, state]``.
        state: before the first token, ``[batch, groups, state, heads / groups, head width]``; zero by default.

    Returns:
        y, as x, and the state after the last token.
    """
    (batch, tokens, heads, width), (groups, rows) = x.shape, B.shape[2:]
    shape = (groups, heads // groups)
    decay, x = log_decay.exp().unflatten(2, shape), x.unflatten(2, shape)
    if state is None:
        state = x.new_zeros(batch, groups, rows, heads // groups, width)
    read = []
    for token in range(tokens):
        written = B[:, token, :, :, None, None] * x[:, token, :, None]
        state = torch.addcmul(written, state, decay[:, token, :, None, :, None])
        read.append(C[:, token, :, None] @ state.flatten(3))
    return torch.stack(read, dim=1).view(batch, tokens, heads, width), state


def chunked(
    x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, *, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """`one_by_one` in chunks (section 6): attention inside each, and what each reads of the state before it.

    With ``D[i, j]`` the decay from token j to i and ``e[i]`` that from the chunk's start, the tokens of a chunk read
    ``(C B' D) X + e C H`` and leave ``e[last] H + (D[last] B)' X``.
    """
    (tokens, heads, width), groups = x.shape[1:], B.shape[2]
    size, shape = min(chunk, tokens), (groups, heads // groups)
    short = -tokens % size
    if short:
        x, B, C = (F.pad(part, (0, 0, 0, 0, 0, short)) for part in (x, B, C))
        log_decay = F.pad(log_decay, (0, 0, 0, short))
    x, taken = x.unflatten(1, (-1, size)), log_decay.unflatten(1, (-1, size))
    B, C = (part.unflatten(1, (-1, size)).transpose(2, 3) for part in (B, C))  # [batch, chunks, groups, size, state]
    # Sums of what is coarse are exact, those of what is fine small: differences of both are as good as the parts.
    coarse = (taken.detach() * 16).round() / 16
    fine, coarse = (taken - coarse).cumsum(2), coarse.cumsum(2)
    future = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
    decays = (gaps(coarse).masked_fill(future, float("-inf")) + gaps(fine)).exp()  # [batch, chunks, heads, size, size]
    weights = decays.unflatten(2, shape) * (C @ B.transpose(-1, -2))[:, :, :, None]
    inside = (weights.flatten(2, 3) @ x.transpose(2, 3)).transpose(2, 3)  # [batch, chunks, size, heads, width]
    rest = ((coarse[:, :, -1:] - coarse) + (fine[:, :, -1:] - fine)).exp()
    lasting = (x * rest[..., None]).unflatten(3, shape).transpose(2, 3).flatten(4)
    written = (B.transpose(-1, -2) @ lasting).unflatten(4, (-1, width))  # [batch, chunks, groups, state, …, width]
    if state is None:
        state = torch.zeros_like(written[:, 0])
    since = (coarse + fine).exp()
    before = []
    for new, decay in zip(written.unbind(1), since[:, :, -1].unflatten(2, (groups, 1, -1, 1)).unbind(1), strict=True):
        before.append(state)
        state = torch.addcmul(new, state, decay)
    earlier = (C @ torch.stack(before, dim=1).flatten(4)).transpose(2, 3).reshape(x.shape)
    y = torch.addcmul(inside, earlier, since[..., None]).flatten(1, 2)
    return y[:, :tokens] if short else y, state


def gaps(x: Tensor) -> Tensor:
    """``[…, size, heads]`` as differences between places, ``[…, heads, size, size]``."""
    x = x.transpose(-1, -2)
    return x[..., :, None] - x[..., None, :]
