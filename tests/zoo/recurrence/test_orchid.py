"""Orchid. Karami and Ghodsi 2024, arXiv 2402.18508."""

import math
import time
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from search.cost.price import price
from tests.compiler.modules.bodies import assert_close, body, under
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("orchid")

NAME = "recurrence/orchid"
NODE = "{{name: c, kind: circular_convolution, filter: lag_table, condition: {}}}"


@pytest.mark.parametrize(
    ("ours", "twin", "millions"),
    [("recurrence/orchid_bert_base", "language/bert_base", 77.2), ("recurrence/orchid_vit_base", "vit_base", 47.7)],
)
def test_fewer_parameters_than_the_attention_twin(ours: str, twin: str, millions: float) -> None:
    """Of the BERT 77 M are published, 30 % fewer than the twin has."""
    count, others = (parameters(build(name, device="meta")) for name in (ours, twin))
    assert count == pytest.approx(millions * 1e6, rel=1e-3)
    assert 1 - count / others > 0.29


@pytest.mark.parametrize("condition", ["absent", "spectral_magnitude", "spectral_correlation"])
@pytest.mark.parametrize("count", [12, 11])
@torch.no_grad()
def test_it_is_the_direct_convolution(condition: str, count: int) -> None:
    """All lags one by one, with filters from sums over all tokens for each frequency."""
    source = "" if condition == "absent" else "from: [x, v], "
    model = body(f"[{{name: v, kind: project, width: 16}}, {{{source}{NODE.format(condition)[1:]}]", "token: n")
    x = torch.randn(2, count, 16, generator=torch.Generator().manual_seed(0))
    taps = model.c.convolve.filter.weight[:count].expand(2, -1, -1)
    value = model.v.linear(x)
    read = value if condition == "absent" else x
    if condition != "absent":
        taps = taps + made(condition, under(model, "c.convolve.condition"), value)
    lags = torch.arange(count)[:, None] - torch.arange(count)[None]
    direct = (taps[:, lags % count] * read[:, None]).sum(2) + model.c.skip * read
    assert_close(model(x), direct, 2e-4)


def made(condition: str, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The filter ``[batch, lags, width]`` that is made of tokens, as the paper's formulas have it."""
    count, width = x.shape[1:]
    turns = torch.outer(torch.arange(count), torch.arange(count)) * (-2 * math.pi / count)
    basis = torch.complex(turns.cos(), turns.sin())
    read = ("tokens",) if condition == "spectral_magnitude" else ("first", "second")
    found = []
    for name in read:
        tap = weights[f"{name}.convolution.weight"][:, 0].T
        near = sum(tap[place] * x.roll(1 - place, 1) for place in range(3))
        near = normed(near + weights[f"{name}.convolution.bias"], weights, name)
        found.append(basis @ near.to(basis.dtype))
    half = count // 2 + 1
    seen = found[0].abs() if len(found) == 1 else torch.view_as_real(found[0].conj() * found[1]).flatten(2)
    per = seen.shape[2] // width  # numbers of a feature that its local convolution reads
    padded = torch.zeros(2, half + 2, seen.shape[2])
    padded[:, 1:-1] = seen[:, :half]
    tap = weights["frequencies.convolution.weight"]
    out = torch.zeros(2, half, 2 * width)
    for channel in range(2 * width):
        for part in range(per):
            source = padded[:, :, channel // 2 * per + part]
            out[:, :, channel] += sum(tap[channel, part, place] * source[:, place : place + half] for place in range(3))
    out = normed(out + weights["frequencies.convolution.bias"], weights, "frequencies")
    spectrum = torch.complex(out[..., 0::2], out[..., 1::2])
    whole = [spectrum[:, k] if k < half else spectrum[:, count - k].conj() for k in range(count)]
    whole[0] = whole[0].real.to(spectrum.dtype)  # the filter is real
    if count % 2 == 0:
        whole[count // 2] = whole[count // 2].real.to(spectrum.dtype)
    return (basis.conj() @ torch.stack(whole, dim=1)).real / count


def normed(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    x = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return x * weights[f"{name}.scale"] + weights[f"{name}.shift"]


@pytest.mark.parametrize("condition", ["spectral_magnitude", "spectral_correlation"])
@torch.no_grad()
def test_what_goes_around_takes_the_output_along(condition: str) -> None:
    change = {"blocks__sequence_mixer__graph.far.condition": condition}
    model: Any = random(build(NAME, **change))
    tokens = torch.randint(64, (2, 50), generator=torch.Generator().manual_seed(0))
    before = model(tokens)
    for by in (1, 17, 49):
        assert_close(model(tokens.roll(by, 1)), before.roll(by, 1), 1e-4 * float(before.abs().max()))


def test_cost_grows_as_n_log_n() -> None:
    lengths = [2**power for power in (10, 12, 15)]
    one = spec(NAME, interface__length=lengths[-1])
    costs = [price(one, length=length, device="l4").forward for length in lengths]
    for (n, cheap), (m, dear) in pairwise(zip(lengths, costs, strict=True)):
        assert m / n <= dear / cheap <= m * math.log2(m) / (n * math.log2(n))


@pytest.mark.slow
@torch.no_grad()
def test_time_grows_as_n_log_n() -> None:
    model = body(NODE.format("spectral_magnitude"), "token: n", limit=2**15)
    lengths = (2**10, 2**15)
    taken = []
    for length in lengths:
        x, found = torch.randn(1, length, 16), []
        for _ in range(7):
            start = time.perf_counter()
            for _ in range(2**15 // length):
                model(x)
            found.append((time.perf_counter() - start) / (2**15 // length))
        taken.append(min(found))
    assert taken[1] / taken[0] < 2 * 32 * 1.5


@torch.no_grad()
def test_without_a_condition_the_filter_is_the_same_for_all() -> None:
    """Then the output is linear in the input."""
    model = body(NODE.format("absent"))
    x, y = torch.randn(2, 2, 12, 16, generator=torch.Generator().manual_seed(0))
    assert_close(model(x + 2 * y), model(x) + 2 * model(y), 1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"interface": {"kind": "causal_lm", "vocab": 64, "length": 128}}, "the first token of a circle follows"),
        ({"interface__padding": True}, "padding would be a part of the circle"),
    ],
)
def test_a_circle_has_no_end(changes: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        spec(NAME, **changes)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("{from: [x, y], kind: circular_convolution, condition: spectral_magnitude}", "the filter is made of"),
        ("{from: [x, x], kind: circular_convolution}", "nothing that makes a filter of it"),
        ("{from: x, kind: circular_convolution, condition: {kind: spectral_magnitude, size: 4}}", "has no middle"),
    ],
)
def test_what_makes_no_filter_is_refused(node: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        body(f"[{{name: y, kind: project, width: 8}}, {node}]")
