"""GPHT. Liu et al. 2024, arXiv 2402.16516."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import loads
from compiler.decoding import Decoding
from compiler.model import compile
from tests.models import perturbed
from tests.zoo.published import random, spec

pytestmark = pytest.mark.system("gpht")
NAME = "structured/gpht"
POINTS = 48


def forecaster() -> Any:
    return random(compile(spec(NAME)))


def foretold(model: Any, series: Tensor) -> Tensor:
    """``[batch, channels, patches, points]`` for as many: of each patch, the next."""
    found: Tensor = model(series)
    return found.reshape(series.shape)


def test_no_patch_reads_a_later_one_or_another_channel() -> None:
    model, series = forecaster(), torch.randn(2, 3, 7, POINTS, requires_grad=True)
    for channel in range(3):
        for patch in range(7):
            (grad,) = torch.autograd.grad(foretold(model, series)[:, channel, patch].sum(), series)
            read = grad.abs().sum(-1) > 0
            assert read[:, channel, : patch + 1].all()
            assert not read[:, channel, patch + 1 :].any()
            assert not read[:, [n for n in range(3) if n != channel]].any()


@torch.no_grad()
def test_channels_are_independent() -> None:
    model, series = forecaster(), torch.randn(2, 3, 5, POINTS)
    alone = compile(spec(NAME, interface__inputs__series__axes__channel=1)).eval()
    alone.load_state_dict(model.state_dict())
    apart = torch.cat([foretold(alone, series[:, n : n + 1]) for n in range(3)], dim=1)
    torch.testing.assert_close(foretold(model, series), apart, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_one_module_forecasts_any_horizon() -> None:
    model = forecaster()
    for known, horizon in ((1, 5), (7, 2), (3, 12)):
        series = torch.randn(2, 3, known, POINTS)
        for _ in range(horizon):
            series = torch.cat([series, foretold(model, series)[:, :, -1:]], dim=2)
        assert series.shape == (2, 3, known + horizon, POINTS)
        again = foretold(model, series)  # what came out is what all of it foretells
        torch.testing.assert_close(again[:, :, known - 1 : -1], series[:, :, known:], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_stages_refine_what_those_before_left() -> None:
    """The stages one by one, by their own entries in a model of one channel."""
    graph = [
        {"name": "by_8", "from": "series", "kind": "stage", "rate": 8},
        {"name": "by_4", "from": "by_8.rest", "kind": "stage", "rate": 4},
        {"name": "sum", "from": ["by_8.forecast", "by_4.forecast"], "kind": "combine"},
    ]
    outputs = {"sum": "sum", "first": "by_8.forecast", "rest": "by_8.rest", "second": "by_4.forecast"}
    axes = {"patch": "patches"}
    model = random(compile(spec(NAME, graph=graph, outputs=outputs, interface__inputs__series__axes=axes)))
    series = torch.randn(2, 6, POINTS)
    found = model(series)
    torch.testing.assert_close(found["sum"], found["first"] + found["second"])
    due = F.pad(found["first"], (0, 0, 1, 0))[:, :-1]
    torch.testing.assert_close(found["rest"], series - due)
    blurred = series.unflatten(-1, (-1, 8)).amax(-1, keepdim=True).expand(-1, -1, -1, 8).flatten(-2)
    torch.testing.assert_close(model(blurred)["first"], found["first"])  # the first stage sees the coarse series alone


LINE = """
archspec: 1
interface: {{kind: causal_lm, vocab: 16, length: 32}}
graph:
  - {{kind: token_embedding, width: 8}}
  - {{kind: residual, body: [{{kind: delay, by: {by}}}, {{kind: project, width: 8}}]}}
  - {{kind: residual, body: [{{kind: pool_features, how: mean}}, {{kind: project, width: 8}}]}}
  - lm_head
"""


@pytest.mark.parametrize("by", [1, 3])
@torch.no_grad()
def test_a_delay_goes_on_from_what_it_kept(by: int) -> None:
    model = perturbed(compile(loads(LINE.format(by=by)))).eval()
    tokens = torch.arange(22).reshape(2, 11) * 5 % 16
    decoding = Decoding(model)
    found = torch.cat([decoding(piece) for piece in tokens.split([4, 1, 2, 1, 3], dim=1)], dim=1)
    torch.testing.assert_close(found, model(tokens), atol=1e-5, rtol=1e-5)


def test_series_of_related_channels_are_learned() -> None:
    """Sines of other phases and rates: a trained forecaster is better than telling the last patch again."""
    torch.manual_seed(0)
    model = compile(spec(NAME), seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)

    def sines(count: int) -> Tensor:
        phase, rate = torch.rand(count, 3, 1) * 6.3, 0.05 + torch.rand(count, 3, 1) * 0.1
        return torch.sin(phase + rate * torch.arange(6 * POINTS)).unflatten(-1, (6, POINTS))

    for _ in range(80):
        series = sines(16)
        loss = F.mse_loss(foretold(model, series)[:, :, :-1], series[:, :, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    series = sines(64)
    naive = F.mse_loss(series[:, :, 2:-1], series[:, :, 3:])
    assert F.mse_loss(foretold(model, series)[:, :, 2:-1], series[:, :, 3:]) < 0.4 * naive


@pytest.mark.parametrize(("node", "said"), [("{kind: pool_features, size: 3}", "do not divide"), ("delay", "one axis")])
def test_what_cannot_be_is_refused(node: str, said: str) -> None:
    text = "archspec: 1\ninterface: {kind: backbone, inputs: {x: {axes: {row: 2, column: 3}, width: 8}}}\ngraph: [%s]\n"
    with pytest.raises(SpecError, match=said):
        loads(text % node)
