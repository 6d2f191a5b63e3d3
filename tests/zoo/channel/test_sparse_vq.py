"""Sparse-VQ. Zhao et al. 2024, arXiv 2402.05830."""

from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import loads
from compiler.logical import logical
from compiler.model import compile
from tests.zoo.published import build, parameters, random

pytestmark = pytest.mark.system("sparse_vq")
NAME = "channel/sparse_vq"
WIDTH, INNER, CODES = 64, 16, 128
DENSE = {"blocks__code": {"kind": "mlp", "ratio": 4, "activation": "gelu", "bias": True}}
SERIES = torch.randn(3, 21, 16, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 5, 0.1])[:, None, None]


def wrapped(body: str = "", more: str = "") -> Any:
    """A series that is standardized and, at once, given its statistics back."""
    return compile(loads(
        f"archspec: 1\ninterface: {{kind: backbone, inputs: {{x: {{axes: {{token: n}}, width: 4}}}}{more}}}\ngraph:\n"
        f"  - {{name: a, from: x, kind: standardize}}\n{body}  - {{name: b, from: [a, a.statistics], kind: restore}}\n"
        "outputs: {main: b, plain: a, statistics: a.statistics}\n"
    ))  # fmt: skip


@torch.no_grad()
def test_what_was_taken_is_given_back() -> None:
    x = 3 + 7 * torch.randn(4, 9, 4)
    found = wrapped()(x)
    torch.testing.assert_close(found["main"], x, atol=1e-5, rtol=1e-5)
    flat = found["plain"].flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat.std(1, correction=0), torch.ones(4), atol=1e-5, rtol=0)
    mean, deviation = found["statistics"].unbind(-1)
    torch.testing.assert_close(mean, x.flatten(1).mean(1))
    torch.testing.assert_close(deviation, x.flatten(1).std(1, correction=0))


@torch.no_grad()
def test_padding_has_no_part() -> None:
    x, valid = torch.randn(2, 9, 4), torch.arange(9) < torch.tensor([[9], [5]])
    model = wrapped(more=", padding: true")
    mean, deviation = model(x, valid)["statistics"].unbind(-1)
    assert mean[1].item() == pytest.approx(x[1, :5].mean().item(), abs=1e-5)
    assert deviation[1].item() == pytest.approx(x[1, :5].std(correction=0).item(), abs=1e-4)


@torch.no_grad()
def test_forecasts_follow_the_scale_of_their_series() -> None:
    model: Any = random(build(NAME))
    torch.testing.assert_close(model(10 + 4 * SERIES[:2]), 10 + 4 * model(SERIES[:2]), atol=1e-2, rtol=1e-3)


def test_the_code_takes_the_channel_mixers_share() -> None:
    ours, dense = build(NAME, device="meta"), build(NAME, device="meta", **DENSE)
    mixer = 2 * 4 * WIDTH**2 + 4 * WIDTH + WIDTH
    code = WIDTH * INNER + INNER + INNER * CODES + CODES + CODES * WIDTH
    assert parameters(dense) - parameters(ours) == 2 * (mixer - code)
    assert parameters(ours) < 0.79 * parameters(dense)  # the paper has 21 % fewer


@torch.no_grad()
def test_a_token_becomes_a_combination_of_the_codebook() -> None:
    model: Any = random(build(NAME))
    state = logical(model)
    seen: list[tuple[Tensor, Tensor]] = []
    book = next(name for name, _ in model.named_modules() if "layers.0" in name and name.endswith("book.linear"))
    codes = next(value for name, value in state.items() if "layers.0" in name and name.endswith("book.linear.weight")).T
    model.get_submodule(book).register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    model(SERIES)
    weights, out = seen[0]
    expected = sum(weights[..., number, None] * codes[number] for number in range(CODES))
    torch.testing.assert_close(out, expected, atol=1e-3, rtol=1e-3)


def test_the_codebook_gets_gradients_and_the_model_learns() -> None:
    torch.manual_seed(0)
    model: Any = build(NAME).train()
    phase = torch.rand(32, 1) * 6
    wave = torch.sin(torch.arange(21 * 16 + 24) * 0.2 + phase) * torch.tensor([1.0, 4.0]).repeat(16)[:, None] + 3
    series, target = wave[:, : 21 * 16].unflatten(1, (21, 16)), wave[:, 21 * 16 :]
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(60):
        losses.append((model(series).flatten(1) - target).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    books = [p.grad for name, p in model.named_parameters() if "book" in name]
    assert len(books) == 2 and all(grad.abs().sum() > 0 for grad in books)
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize(
    ("graph", "causal", "said"),
    [
        ("[{kind: standardize}]", ", causal: token", "it is causal"),
        ("[{name: s, kind: standardize}, {name: b, from: [s, s], kind: restore}]", "", "no mean and deviation"),
    ],
)
def test_what_does_not_fit_is_refused(graph: str, causal: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        loads(f"archspec: 1\ninterface: {{kind: backbone, inputs: {{x: {{axes: {{token: n}}, width: 4{causal}}}}}}}\n"
              f"graph: {graph}\n")  # fmt: skip
