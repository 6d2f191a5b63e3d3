"""PolyCom. Zhuo et al. 2024, arXiv 2411.03884."""

from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import loads
from compiler.logical import logical
from compiler.model import compile
from search.cost.price import price
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("polycom")
NAME = "channel/polycom"
TOKENS = torch.arange(24).reshape(2, 12) * 7 % 256


def body(node: str, width: int = 16) -> str:
    return f"archspec: 1\ninterface: {{kind: backbone, inputs: {{x: {{axes: {{token: 6}}, width: {width}}}}}}}\n" \
           f"graph: [{{name: a, {node}}}]\n"  # fmt: skip


def weighted(node: str, weights: list[float], **more: int) -> Any:
    model: Any = compile(loads(body(node, **more))).eval()
    with torch.no_grad():
        next(value for name, value in logical(model).items() if value.ndim == 1).copy_(torch.tensor(weights))
    return model


def powers(x: Tensor, weights: list[float], kind: str) -> Tensor:
    """The sum written out, power by power."""
    total = torch.full_like(x, weights[0])
    for power, weight in enumerate(weights[1:], 1):
        if kind == "poly_relu":
            total += weight * torch.relu(x) ** power
        else:
            total += weight * x**power / (x ** (2 * power)).mean(-1, keepdim=True).add(1e-6).sqrt()
    return total


@torch.no_grad()
@pytest.mark.parametrize("kind", ["poly_relu", "poly_norm"])
@pytest.mark.parametrize("weights", [[0.3, -0.5], [0.1, 0.7, -0.2, 0.4]])
def test_equals_its_definition(kind: str, weights: list[float]) -> None:
    x = torch.randn(2, 6, 16)
    model = weighted(f"kind: {kind}, order: {len(weights) - 1}", weights)
    torch.testing.assert_close(model(x), powers(x, weights, kind), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_first_power_alone_is_a_relu() -> None:
    model, plain = weighted("kind: mlp, ratio: 2, activate: poly_relu", [0.0, 1.0, 0.0, 0.0]), compile(
        loads(body("kind: mlp, ratio: 2, activation: relu"))
    )  # fmt: skip
    for name, value in logical(plain).items():
        value.copy_(logical(model)[name])
    x = torch.randn(2, 6, 16)
    assert torch.equal(model(x), plain(x))


@pytest.mark.parametrize("order", [1, 3, 5])
@pytest.mark.parametrize("kind", ["poly_relu", "poly_norm"])
def test_adds_order_plus_one_parameters_a_layer(kind: str, order: int) -> None:
    think = {"kind": "mlp", "ratio": 4}
    plain = build(NAME, device="meta", graph__layers__body="dense_layer", blocks__poly_relu_mlp=think)
    think = think | {"activate": {"kind": kind, "order": order}}
    model = build(NAME, device="meta", graph__layers__body="dense_layer", blocks__poly_relu_mlp=think)
    assert parameters(model) - parameters(plain) == 2 * (order + 1)


def test_starts_at_the_mean_of_the_powers() -> None:
    for name, value in build(NAME).named_parameters():
        if "activate" in name:
            assert value.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("node", ["mlp, ratio: 2, activate: poly_relu", "glu, ratio: 2, activate: poly_norm"])
def test_the_second_derivative_is_finite(node: str) -> None:
    model: Any = random(compile(loads(body(f"kind: {node}"))))
    x = torch.randn(2, 6, 16, requires_grad=True)
    (first,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert second.isfinite().all() and second.abs().sum() > 0


def test_powers_have_a_price() -> None:
    """Pointwise work is no FLOP here; its time is counted."""
    sizes = [price(loads(body(f"kind: poly_norm, order: {order}", 4096)), batch=64, device="h100_sxm").latency_ms
             for order in (1, 3, 6)]  # fmt: skip
    assert sizes[0] < sizes[1] < sizes[2]


@torch.no_grad()
def test_experts_have_polynomials_of_their_own() -> None:
    model: Any = random(build(NAME))
    found = [value for name, value in model.named_parameters() if "experts" in name and "activate" in name]
    assert len(found) == 2 * 4
    before = model(TOKENS)
    found[0].mul_(2)
    assert not torch.equal(model(TOKENS), before)


@torch.no_grad()
def test_a_gate_may_be_a_polynomial() -> None:
    model: Any = random(compile(loads(body("kind: glu, ratio: 2, activate: poly_relu"))))
    state, x = logical(model), torch.randn(2, 6, 16)
    gate = powers(x @ state["a.gate.weight"].T, state["a.activate.weight"].tolist(), "poly_relu")
    expected = (gate * (x @ state["a.up.weight"].T)) @ state["a.down.weight"].T
    torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("kind: mlp, ratio: 2, activation: relu, activate: poly_relu", "relu is the activation already"),
        ("kind: mlp, ratio: 2, activate: pool_features", r"gives x\[token=6\] × 16, not"),
        ("kind: poly_relu, order: 0", "order"),
        ("kind: mlp, ratio: 2, activate: {kind: attention, heads: 2}", "attention"),
    ],
)
def test_what_does_not_fit_is_refused(node: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        loads(body(node))


def test_specs_without_it_are_as_they_were() -> None:
    node = "kind: mlp, ratio: 2, activation: gelu"
    assert "activate" not in str(loads(body(node)).canonical())
    assert spec(NAME).structure != spec(NAME, blocks__poly_relu_mlp__activate__order=2).structure
