"""Convolutions as long as the sequence."""

import math
import time

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import loads
from compiler.modules.long_convolution import filtered
from tests.compiler.modules.bodies import assert_close, body

X = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))


def by_pairs(x: Tensor, past: Tensor, future: Tensor | None) -> Tensor:
    """As a product with the matrix of each feature."""
    lag = torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])
    matrix = past[lag.clamp(min=0)] * (lag >= 0)[..., None]
    if future is not None:
        matrix = matrix + future[(-lag).clamp(min=0)] * (lag <= 0)[..., None]
    return torch.einsum("tsw,bsw->btw", matrix, x)


@pytest.mark.parametrize("causal", ["token", ""])
@pytest.mark.parametrize("filter", ["lag_table", "{kind: implicit_filter, width: 8, bands: 2}"])
@torch.no_grad()
def test_equals_the_matrices_of_all_pairs(causal: str, filter: str) -> None:
    model = body(f"{{name: c, kind: long_convolution, filter: {filter}}}", causal=causal)
    taps = [None if one is None else one(12) for one in (model.c.convolve.past, model.c.convolve.future)]
    assert taps[0] is not None and (taps[1] is None) == bool(causal)
    assert_close(model(X), by_pairs(X, taps[0], taps[1]) + model.c.skip * X)


@torch.no_grad()
def test_a_lag_of_none_is_the_identity() -> None:
    model = body("{name: c, kind: long_convolution, filter: lag_table, skip: false}", causal="token")
    model.c.convolve.past.weight.zero_()[0] = 1
    assert_close(model(X), X, 1e-6)


@torch.no_grad()
def test_an_implicit_filter_is_as_hyena_says() -> None:
    """Written out for one lag and feature, of the same weights."""
    model = body(
        "{name: c, kind: long_convolution, filter: {kind: implicit_filter, width: 8, bands: 2}}", causal="token"
    )
    past = model.c.convolve.past
    lag, feature, lags = 5, 3, 12
    bands = (1e-4, 1.0)
    angles = [2 * math.pi * band * lag / lags for band in bands]
    x = torch.tensor([lag / (lags - 1), *(math.cos(a) for a in angles), *(-math.sin(a) for a in angles)])
    for layer in past.inner:
        x = torch.sin(past.frequency * (layer.weight @ x + layer.bias))
    slowest, fastest = math.log(100) / 1.5, math.log(100) / 0.3
    rate = slowest + (fastest - slowest) * feature / 15
    expected = past.last.weight[feature] @ x * math.exp(-rate * lag / (lags - 1))
    torch.testing.assert_close(past(12)[lag, feature], expected)


def test_spectra_are_faster_than_all_pairs() -> None:
    def seconds(form: object) -> float:
        x, past, future = (torch.randn(*shape, requires_grad=True) for shape in ((2, 1024, 8), (1024, 8), (1024, 8)))
        found = []
        for _ in range(3):
            start = time.perf_counter()
            form(x, past, future).sum().backward()  # type: ignore[operator]
            found.append(time.perf_counter() - start)
        return min(found)

    assert seconds(filtered) < 0.5 * seconds(by_pairs)


def test_a_longest_lag_must_be_known() -> None:
    interface = "{kind: backbone, inputs: {x: {axes: {token: n}, width: 4}}}"
    with pytest.raises(SpecError, match="no longest lag"):
        loads(f"archspec: 1\nname: endless\ninterface: {interface}\ngraph: [long_convolution]\n")
