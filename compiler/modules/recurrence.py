"""Linear recurrences of each feature (schemas in archspec.kinds.recurrence)."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt, log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import recurrence as kinds
from archspec.streams import Stream
from compiler.build import Make, project, weight
from compiler.modules.activations import ACTIVATIONS
from compiler.modules.convolution import GridConvolution
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens


@builds(kinds.RgLru)
class RgLru(nn.Module):
    """Gate and value as one product; the convolution, the gates of the recurrence, the recurrence; the way out.

    ``input_gate`` and ``decay_gate`` are ``[heads, inputs, outputs]``, their biases ``[heads, outputs]``, ``decay``
    ``[width]``.
    """

    def __init__(self, spec: kinds.RgLru, make: Make) -> None:
        super().__init__()
        self.heads, self.width = spec.heads, spec.inner(make.stream)
        self.inputs = make.fused("gate", "value") if make.plain("gate", "value") else None
        if self.inputs is None:
            self.gate, self.value = make.linear("gate"), make.linear("value")
        self.convolution = causal_convolution(make.stream.wide(self.width), spec.convolution, bias=spec.bias)
        block = self.width // self.heads
        self.input_gate, self.input_gate_bias = weight(self.heads, block, block), weight(self.heads, block)
        self.decay_gate, self.decay_gate_bias = weight(self.heads, block, block), weight(self.heads, block)
        self.decay = weight(self.width)
        rates = [log(1 / a - 1) for a in spread(self.width, 0.9, 0.999)]  # exp(-softplus(decay)) in this range
        gates = {"input_gate": ("scheme",), "decay_gate": ("scheme",)}
        self.initial = gates | {"input_gate_bias": 0.0, "decay_gate_bias": 0.0, "decay": rates}
        self.activation = ACTIVATIONS[spec.activation]
        self.recurrence = GatedRecurrence(spec.sharpness)
        self.out = make.linear("out")

    def forward(self, x: Tokens) -> Tensor:
        if self.inputs is not None:
            parts = self.inputs(x.features).chunk(2, dim=-1)
            gate, value = parts[0], parts[1]
        else:
            gate, value = project(self.gate, x.features, x), project(self.value, x.features, x)
        if x.valid is not None:  # padding is silence to its neighbours
            value = value * x.valid[..., None]
        if self.convolution is not None:
            value = self.convolution(value)
        rows = value.flatten(0, 1).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        kept, forgotten = (
            torch.baddbmm(bias[:, None], rows, matrix).transpose(0, 1).flatten(1).unflatten(0, value.shape[:2])
            for matrix, bias in ((self.input_gate, self.input_gate_bias), (self.decay_gate, self.decay_gate_bias))
        )
        h = self.recurrence(value, kept, forgotten, self.decay, x.valid)
        return project(self.out, self.activation(gate) * h, x)


class GatedRecurrence(Keeper):
    """The state of the real-gated linear recurrent unit after each token, ``[batch, tokens, width]``.

    Takes the values, what goes into the sigmoids of the two gates, all of that shape, and the decays ``[width]``.
    """

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness

    def forward(self, x: Tensor, kept: Tensor, forgotten: Tensor, decay: Tensor, valid: Tensor | None) -> Tensor:
        v, real = precise(x), real_tokens(self, x, valid)
        exponent = torch.sigmoid(precise(forgotten)) * (F.softplus(precise(decay)) * -self.sharpness)
        size = torch.expm1(2 * exponent).neg().clamp_min(torch.finfo(v.dtype).tiny).sqrt()
        a, written = exponent.exp(), torch.sigmoid(precise(kept)) * v
        if self.decoding is not None:
            first = self.decoding.places(x.shape[1], x.device) == 0
        else:
            first = torch.arange(x.shape[1], device=x.device)[None] == 0 if valid is None else valid.cumsum(1) == 1
        b = torch.where(first[..., None], 1.0, size) * written
        if real is not None:
            a, b = torch.where(real[..., None], a, 1.0), b * real[..., None]
        if self.decoding is None:
            return scan(a, b).to(x.dtype)
        state = self.decoding.kept(self)
        h = scan(a, b, state.get("state"))
        state["state"] = h[:, -1].clone()
        return h.to(x.dtype)


@builds(kinds.QuasiRecurrent)
class QuasiRecurrent(nn.Module):
    """One convolution for candidates, forget gates and output gates, then the pooling."""

    def __init__(self, spec: kinds.QuasiRecurrent, make: Make) -> None:
        super().__init__()
        gates = causal_convolution(make.stream, spec.size, bias=spec.bias, width=3 * (spec.width or make.stream.width))
        assert gates is not None
        self.gates, self.pooling = gates, Pooling()

    def forward(self, x: Tokens) -> Tensor:
        features = x.features if x.valid is None else x.features * x.valid[..., None]  # padding is silence
        z, f, o = self.gates(features).chunk(3, dim=-1)
        return torch.sigmoid(o) * self.pooling(torch.tanh(z), torch.sigmoid(f), x.valid)


class Pooling(Keeper):
    """``c[t] = f[t] c[t-1] + (1 - f[t]) z[t]``, all ``[batch, tokens, width]``; padding leaves the state as it is."""

    def forward(self, z: Tensor, f: Tensor, valid: Tensor | None) -> Tensor:
        a, written = precise(f), precise(z)
        b = (1 - a) * written
        if (real := real_tokens(self, z, valid)) is not None:
            a, b = torch.where(real[..., None], a, 1.0), b * real[..., None]
        if self.decoding is None:
            return scan(a, b).to(z.dtype)
        state = self.decoding.kept(self)
        c = scan(a, b, state.get("state"))
        state["state"] = c[:, -1].clone()
        return c.to(z.dtype)


def precise(x: Tensor) -> Tensor:
    """At least in single precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def real_tokens(leaf: Keeper, x: Tensor, valid: Tensor | None) -> Tensor | None:
    """``[batch or 1, tokens]``: which tokens of ``[batch, tokens, …]`` are no padding; None where all are."""
    if leaf.decoding is None:
        return valid
    return leaf.decoding.real(x.shape[1])


def causal_convolution(stream: Stream, size: int, *, bias: bool, width: int | None = None) -> GridConvolution | None:
    """A convolution that reads the past of a recurrence, whether or not its stream is causal; None for no taps.

    Args:
        width: of the output, to which all features contribute; by default each is filtered on its own.
    """
    if not size:
        return None
    spans = [replace(span, axes=tuple(replace(axis, causal=True) for axis in span.axes)) for span in stream.spans]
    return GridConvolution(stream.on(*spans), size=size, bias=bias, width=width or 0, groups=1 if width else 0)


def spread(count: int, low: float, high: float, *, other: bool = False) -> list[float]:
    """Numbers that fill a range evenly in no order: a draw of that size without its luck.

    Args:
        other: another order; what is drawn for the same features in the two orders fills the square evenly (Roberts
            2018, "The unreasonable effectiveness of quasirandom sequences").
    """
    step = 0.5698402909980532 if other else 0.7548776662466927
    return [low + (high - low) * ((0.5 + step * number) % 1) for number in range(count)]


def scan(a: Tensor, b: Tensor, state: Tensor | None = None) -> Tensor:
    """``h[t] = a[t] h[t-1] + b[t]`` along the second axis.

    Args:
        a: of the shape of ``b``, or with ones in it.
        b: ``[batch, tokens, …]``.
        state: the ``h`` before the first token, ``[batch, …]``; zero by default.
    """
    if state is not None:
        b = torch.cat((b[:, :1] + a[:, :1] * state[:, None], b[:, 1:]), dim=1)
    h: Tensor = _Scan.apply(a, b, False)
    return h


class _Scan(torch.autograd.Function):
    """The scan; its gradient is a scan in the other direction, and so it has gradients of any order."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, back: bool) -> Tensor:
        h = chunked(a, b, back)
        ctx.save_for_backward(a, h)
        ctx.back = back
        return h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        a, h = ctx.saved_tensors
        back: bool = ctx.back
        into_b: Tensor = _Scan.apply(shifted(a, not back), grads[0], not back)
        return (into_b * shifted(h, back)).sum_to_size(a.shape), into_b, None


def shifted(x: Tensor, back: bool) -> Tensor:
    """Each token's predecessor, or its successor; zeros where there is none."""
    edge = (0, 0) * (x.ndim - 2)
    return F.pad(x[:, 1:], (*edge, 0, 1)) if back else F.pad(x[:, :-1], (*edge, 1, 0))


def chunked(a: Tensor, b: Tensor, back: bool = False) -> Tensor:
    """`scan` without a state: inside all chunks at once, then from chunk to chunk."""
    count = b.shape[1]
    size = max(1, isqrt(count))
    edge = (0, 0) * (b.ndim - 2)
    fill = (*edge, -count % size, 0) if back else (*edge, 0, -count % size)
    h = (F.pad(b, fill) if count % size else b.clone(memory_format=torch.contiguous_format)).unflatten(1, (-1, size))
    decay = (F.pad(a, fill) if count % size else a.clone(memory_format=torch.contiguous_format)).unflatten(
        1, (-1, size)
    )
    places, products = list(h.unbind(2)), list(decay.unbind(2))
    chunks, decays = list(h.unbind(1)), list(decay.unbind(1))
    if back:
        places, products, chunks, decays = places[::-1], products[::-1], chunks[::-1], decays[::-1]
    for place in range(1, size):
        places[place].addcmul_(products[place], places[place - 1])
        products[place].mul_(products[place - 1])
    last = slice(0, 1) if back else slice(-1, None)
    for number in range(1, len(chunks)):
        chunks[number].addcmul_(decays[number], chunks[number - 1][:, last])
    whole = h.flatten(1, 2)
    return whole if not count % size else whole[:, -count:] if back else whole[:, :count]
