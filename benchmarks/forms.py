"""Every parallel form of a mixer against its sequential or naive form: CPU time of forward and backward.

    python -m benchmarks.forms

One thread, float32, sequences of 1024, inputs of the same weights and shapes; projections are left out where a mixer's
core stands alone. Both forms are told to give the same before any is timed. "Token by token" is the recurrence as it is
written, "all pairs" the definition over ``[tokens, tokens]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import interleaved, report
from compiler.modules import delta, gated_linear_attention, linear_attention, long_convolution, neural_memory, rwkv, ssm
from compiler.modules.recurrence import scan
from tests.compiler.modules.bodies import body

LENGTH, BATCH, WIDTH, HEADS = 1024, 2, 64, 4
HEAD = WIDTH // HEADS
AXIS = f"token: {LENGTH}"
ROUNDS = 5
Run = Callable[..., Tensor]


class Form(NamedTuple):
    """A mixer's core in two forms, and what both read."""

    mixer: str
    naive: str
    fast: Run
    slow: Run
    given: tuple[Tensor, ...]


def drawn(*shape: int, low: float | None = None, high: float = 1.0) -> Tensor:
    """Numbers of unit variance, or between two."""
    x = torch.randn(shape) if low is None else torch.rand(shape) * (high - low) + low
    return x.requires_grad_()


def forms() -> Iterator[Form]:
    """All of them."""
    yield from recurrences()
    yield from convolutions()
    yield from attentions()


def recurrences() -> Iterator[Form]:
    """Mixers that keep a state."""
    q, k, v = (drawn(BATCH, LENGTH, HEADS, HEAD) for _ in range(3))
    by_head = tuple(drawn(BATCH, HEADS, LENGTH, HEAD, low=0.1) for _ in range(2))
    values = drawn(BATCH, HEADS, LENGTH, HEAD)
    decays, strength = drawn(BATCH, LENGTH, HEADS, low=-0.5, high=0.0), drawn(BATCH, LENGTH, HEADS, low=0.0)
    features = drawn(BATCH, LENGTH, WIDTH)
    yield Form(
        "linear attention", "token by token", lambda *x: linear_attention.chunked(*x)[0],
        lambda *x: linear_attention.one_by_one(*x)[0], (*by_head, values),
    )  # fmt: skip
    yield Form(
        "gated delta rule", "token by token", lambda *x: delta.chunked(*x)[0], lambda *x: delta.one_by_one(*x)[0],
        (q, k, v, decays, strength),
    )  # fmt: skip
    yield Form(
        "mamba 2", "token by token", lambda *x: ssm.chunked(*x)[0], lambda *x: ssm.one_by_one(*x)[0],
        (v, decays, drawn(BATCH, LENGTH, 1, 32), drawn(BATCH, LENGTH, 1, 32)),
    )  # fmt: skip
    step, rates = drawn(BATCH, LENGTH, WIDTH, low=0.001, high=0.1), drawn(16, WIDTH, low=-8.0, high=0.0)
    yield Form(
        "mamba", "token by token", lambda *x: ssm.selective_scan(*x)[0], selective,
        (features, step, rates, drawn(BATCH, LENGTH, 16), drawn(BATCH, LENGTH, 16)),
    )  # fmt: skip
    kept = drawn(BATCH, LENGTH, WIDTH, low=0.0)
    yield Form("rg_lru, quasi-recurrent: the scan", "token by token", scan, recurrence, (kept, features))
    average = rwkv.FadingAverage()
    yield Form(
        "rwkv", "token by token", lambda *x: average(*x, None), rwkv.one_by_one,
        (drawn(BATCH, LENGTH, WIDTH), features, drawn(WIDTH), drawn(WIDTH)),
    )  # fmt: skip
    mean = body("{name: m, kind: running_mean}", AXIS, WIDTH, causal="token", limit=LENGTH)
    yield Form("running mean", "all pairs", mean, lambda x: lower(x) / lower(torch.ones_like(x)), (features,))
    yield Form(
        "gated linear attention", "token by token", lambda *x: gated_linear_attention.chunked(*x)[0],
        lambda *x: gated_linear_attention.one_by_one(*x)[0],
        (q, k, v, drawn(BATCH, LENGTH, HEADS, HEAD, low=-0.5, high=0.0)),
    )  # fmt: skip
    node = "{name: m, kind: neural_memory, heads: 4, hidden: 32, window: 4, chunk: 16, momentum: true}"
    memory = body(node, AXIS, WIDTH, causal="token", limit=LENGTH)
    yield Form("neural memory (OmegaNet)", "token by token", memory, lambda x: apart(memory, x), (features,))


def apart(memory: Any, x: Tensor) -> Tensor:
    """A neural memory whose tokens are read one after another, with the same gradients of each chunk."""
    whole = neural_memory.advance

    def advance(state: dict[str, Tensor], *given: Tensor, iterations: int = 0) -> Tensor:
        tokens = zip(*(part.split(1, dim=2) for part in given), strict=True)
        return torch.cat([whole(state, *token, iterations=iterations) for token in tokens], dim=2)

    with patch.object(neural_memory, "advance", advance):
        y: Tensor = memory(x)
    return y


def lower(x: Tensor) -> Tensor:
    """Sums up to each token, by the matrix of ones."""
    return torch.ones(x.shape[1], x.shape[1]).tril() @ x


def recurrence(a: Tensor, b: Tensor) -> Tensor:
    """``h[t] = a[t] h[t-1] + b[t]``."""
    state, read = torch.zeros_like(b[:, 0]), []
    for token in range(b.shape[1]):
        state = a[:, token] * state + b[:, token]
        read.append(state)
    return torch.stack(read, dim=1)


def selective(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """``h[t] = exp(dt A) h[t-1] + dt B x``, read by ``C``."""
    state, read = x.new_zeros(x.shape[0], *A.shape), []
    for token in range(x.shape[1]):
        written = B[:, token, :, None] * (dt[:, token] * x[:, token])[:, None]
        state = (dt[:, token, None] * A).exp() * state + written
        read.append((C[:, token, :, None] * state).sum(1))
    return torch.stack(read, dim=1)


def convolutions() -> Iterator[Form]:
    """Filters as long as the sequence, in one direction and in both."""
    x, past, future = drawn(BATCH, LENGTH, WIDTH), drawn(LENGTH, WIDTH), drawn(LENGTH, WIDTH)
    yield Form(
        "long convolution, causal", "all pairs", lambda x, past: long_convolution.filtered(x, past, None), by_lags,
        (x, past),
    )  # fmt: skip
    yield Form("long convolution, both ways", "all pairs", long_convolution.filtered, by_lags, (x, past, future))
    circle = body("{name: m, kind: circular_convolution, filter: lag_table, skip: false}", AXIS, WIDTH, limit=LENGTH)
    around = (torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)) % LENGTH
    yield Form(
        "circular convolution (Orchid)", "all pairs", circle,
        lambda x: torch.einsum("tsw,bsw->btw", circle.m.convolve.filter(LENGTH)[around], x), (x,),
    )  # fmt: skip
    node = "{name: m, kind: long_convolution, filter: {kind: diagonal_state_space, state: 16}, skip: false}"
    s4 = body(node, AXIS, WIDTH, causal="token", limit=LENGTH)
    yield Form("S4, diagonal", "token by token", s4, lambda x: state_space(s4.m.convolve.past, x), (x,))


def state_space(part: Any, x: Tensor) -> Tensor:
    """The recurrence whose answers the filter is."""
    a = torch.complex(-part.log_decay.exp(), part.turn)
    left = torch.exp(a * part.log_step.exp())
    c = torch.complex(part.c_real, part.c_imaginary) * (left - 1) / a
    state, read = torch.zeros(x.shape[0], *left.shape, dtype=torch.complex64), []
    for token in range(x.shape[1]):
        state = left * state + x[:, token, :, None]
        read.append(2 * (c * state).sum(-1).real)
    return torch.stack(read, dim=1)


def by_lags(x: Tensor, past: Tensor, future: Tensor | None = None) -> Tensor:
    """A product with the matrix of each feature."""
    lag = torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])
    matrix = past[lag.clamp(min=0)] * (lag >= 0)[..., None]
    if future is not None:
        matrix = matrix + future[(-lag).clamp(min=0)] * (lag <= 0)[..., None]
    return torch.einsum("tsw,bsw->btw", matrix, x)


def attentions() -> Iterator[Form]:
    """Attentions that read less than all pairs, or score them in another way."""
    for name, fields, slow in (
        ("window of 64", "kind: attention, window: 64", windowed),
        ("cluster attention", "kind: cluster_attention, clusters: 16, window: 64", clustered),
        ("combiner, fixed", "kind: combiner, segment: 32", combined),
        ("collinear scores", "kind: attention, score: collinear, position: rope", collinear),
    ):
        node = f"{{name: m, heads: {HEADS}, {fields}}}"
        model = body(node, AXIS, WIDTH, causal="token", limit=LENGTH)
        yield Form(name, "all pairs", model, slow(model.m), (drawn(BATCH, LENGTH, WIDTH),))
    yield etc()


def split(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def pairs(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Softmax attention of all pairs, written out."""
    return ((q @ k.mT * scale + bias).softmax(-1) @ v).transpose(1, 2).flatten(2)


def masking(seen: Tensor) -> Tensor:
    return torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))


def distances() -> Tensor:
    places = torch.arange(LENGTH)
    return places[:, None] - places


def windowed(part: Any) -> Run:
    def run(x: Tensor) -> Tensor:
        q, k, v = (split(y) for y in part.qkv(x).chunk(3, dim=-1))
        back = distances()
        out: Tensor = part.out(pairs(q, k, v, masking((back >= 0) & (back < 64)), HEAD**-0.5))
        return out

    return run


def clustered(part: Any) -> Run:
    def run(x: Tensor) -> Tensor:
        q, v = (split(y) for y in part.fused(x).chunk(2, dim=-1))
        q = F.normalize(q, dim=-1)
        cluster = (q.detach() @ part.attend.centres.mT).argmax(-1)
        same = (cluster[..., None] == cluster[..., None, :]).tril()
        since = same.flip(-1).cumsum(-1).flip(-1)  # tokens of the cluster from there to here
        bias = masking(same & (since <= 64)).masked_fill(torch.eye(LENGTH, dtype=torch.bool), -1e4)
        out: Tensor = part.out(pairs(q, q, v, bias, math.sqrt(HEAD)))
        return out

    return run


def combined(part: Any) -> Run:
    size = part.attend.segment

    def run(x: Tensor) -> Tensor:
        q, k, v = (split(y) for y in part.qkv(x).chunk(3, dim=-1))
        q = q * HEAD**-0.5
        segment = torch.arange(LENGTH) // size
        ask, key = (y.unflatten(2, (-1, size)).amax(3) for y in (q, k))
        inside = (ask.repeat_interleave(size, 2) * k).sum(-1).unflatten(2, (-1, size)).softmax(-1).flatten(2)
        near = (q @ k.mT).masked_fill(~((segment[:, None] == segment).tril()), float("-inf"))
        far = (q @ key.mT).masked_fill(segment[::size] >= segment[:, None], float("-inf"))
        weights = torch.cat((near, far), -1).softmax(-1)
        told = weights[..., :LENGTH] + weights[..., LENGTH:].repeat_interleave(size, -1) * inside[:, :, None]
        out: Tensor = part.out((told @ v).transpose(1, 2).flatten(2))
        return out

    return run


def collinear(part: Any) -> Run:
    """A key of its own for each pair of tokens: what a query says, times a factor, at the key's place."""
    rates = 10000.0 ** (-torch.arange(0, HEAD, 2) / HEAD)
    turns = torch.polar(torch.ones(LENGTH, HEAD // 2), torch.arange(LENGTH)[:, None] * rates)

    def run(x: Tensor) -> Tensor:
        q, k, v = (split(y) for y in part.qkv(x).chunk(3, dim=-1))
        q = torch.complex(*q.chunk(2, dim=-1))
        line = F.relu(sum(k.chunk(2, dim=-1)) / 2)  # type: ignore[arg-type]
        asked = q * turns
        keys = q[:, :, :, None] * line[:, :, None] * turns  # [batch, heads, queries, tokens, pairs]
        scores = (asked[:, :, :, None] * keys.conj()).real.sum(-1) * HEAD**-0.5
        weights = (scores + masking(distances() >= 0)).softmax(-1)
        out: Tensor = part.out((weights @ v).transpose(1, 2).flatten(2))
        return out

    return run


def etc() -> Form:
    """Global-local attention of 32 global tokens and the rest, without labels."""
    from archspec.spec import loads
    from compiler import compile
    from tests.models import perturbed

    few, radius, reach = 32, 64, 12
    inputs = f"{{a: {{axes: {{few: {few}}}, width: {WIDTH}}}, b: {{axes: {{token: {LENGTH}}}, width: {WIDTH}}}}}"
    node = f"{{name: m, kind: global_local_attention, heads: {HEADS}, radius: {radius}, reach: {reach}}}"
    model: Any = perturbed(compile(loads(f"""
archspec: 1
name: alone
interface: {{kind: backbone, inputs: {inputs}}}
graph: [{{from: [a, b], kind: join}}, {node}]
"""))).eval()  # fmt: skip
    places = torch.cat((torch.arange(few), torch.arange(LENGTH)))
    long = torch.arange(few + LENGTH) >= few
    back = places - places[:, None]
    index = back.clamp(-reach, reach) + reach
    inside, far = long[:, None] == long, long[:, None] & long & (back.abs() > radius)

    def slow(a: Tensor, b: Tensor) -> Tensor:
        part = model.m
        q, k, v = (split(y) for y in part.qkv(torch.cat((a, b), 1)).chunk(3, dim=-1))
        own = torch.where(long[:, None, None, None], part.inside[1], part.inside[0])  # [queries, reach, heads, width]
        near = torch.einsum("bhqd,qrhd->bhqr", q, own).gather(-1, index.expand(*q.shape[:3], -1))
        other = torch.where(long[:, None, None], part.across[1, 0], part.across[0, 0])
        beside = torch.einsum("bhqd,qhd->bhq", q, other)[..., None]
        bias = (torch.where(inside, near, beside) * HEAD**-0.5).masked_fill(far, float("-inf"))
        out: Tensor = part.out(pairs(q, k, v, bias, HEAD**-0.5))
        return out

    given = drawn(BATCH, few, WIDTH), drawn(BATCH, LENGTH, WIDTH)
    return Form("global-local attention", "all pairs", model, slow, given)


def step(run: Run, given: tuple[Tensor, ...]) -> list[Tensor]:
    """What a form gives, and its gradients."""
    y = run(*given)
    return [y, *torch.autograd.grad(y.square().mean(), given)]


def check(form: Form) -> None:
    """Both forms give the same, and pass the same gradients on."""
    found = [step(run, form.given) for run in (form.fast, form.slow)]
    for a, b in zip(*found, strict=True):
        error = ((a - b).norm() / b.norm()).item()
        assert error < 1e-3, f"{form.mixer}: forms differ by {error:.1e}"


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for form in forms():
        check(form)
        times = interleaved(
            {name: lambda run=run, form=form: step(run, form.given) for name, run in  # type: ignore[misc]
             (("parallel", form.fast), ("naive", form.slow))}, rounds=ROUNDS,
        )  # fmt: skip
        ratio = times["naive"] / times["parallel"]
        rows.append({"mixer": form.mixer, "naive form": form.naive, **times, "times as fast": ratio})
    report("forms", rows)


if __name__ == "__main__":
    main()
