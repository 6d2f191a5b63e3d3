"""SOFT. Lu et al. 2021, arXiv 2110.11945; Lu et al. 2022, arXiv 2207.03341."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import loads
from compiler.modules.softmax_free_attention import inverse
from search.cost.price import price
from tests.compiler.modules.bodies import assert_close, body
from tests.zoo.published import build, macs, parameters

pytestmark = pytest.mark.system("soft")

TINY = "attention/soft_tiny"
GRID = "row: 8, column: 8"
X = torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(0))
MARKS = "[{kind: patch_merging, factor: 2, width: 8, place: after}, {kind: activation, function: gelu}]"


def node(**fields: Any) -> str:
    told = "".join(f", {name}: {value}" for name, value in fields.items())
    return f"{{name: a, kind: softmax_free_attention, heads: 2{told}}}"


def kernel(a: Tensor, b: Tensor) -> Tensor:
    return (-(a[..., :, None, :] - b[..., None, :, :]).square().sum(-1) / 2).exp()


def heads_of(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    made = (x @ state[f"{role}.weight"].T + state[f"{role}.bias"] for role in ("query", "value"))
    q, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in made)
    return q / 8**0.25, v


def out_of(state: dict[str, Tensor], y: Tensor) -> Tensor:
    return y.transpose(1, 2).flatten(2) @ state["out.weight"].T + state["out.bias"]


def test_has_the_published_size() -> None:
    model = build(TINY, device="meta")
    assert parameters(model) == 13_069_056
    assert parameters(model) == pytest.approx(13e6, rel=0.03)
    newton = sum(heads * layers * 20 * 2 * 49**3 for heads, layers in ((2, 1), (4, 2), (10, 3)))
    counted = macs(model, torch.empty(1, 224, 224, 3)) - newton
    assert counted == pytest.approx(1.9e9, rel=0.03)


@pytest.mark.parametrize("normalize", [False, True])
@torch.no_grad()
def test_equals_its_definition(normalize: bool) -> None:
    model = body(node(landmarks=MARKS, convolution=3, iterations=40, normalize=str(normalize).lower()), GRID)
    state = model.a.state_dict()
    q, v = heads_of(state, X)
    blocks = q.unflatten(2, (4, 2, 4, 2)).transpose(3, 4).flatten(4, 6).flatten(2, 3)  # pixels of a block side by side
    norm = (state[f"landmarks.patch_merging.norm.{name}"] for name in ("weight", "bias"))
    marks = F.gelu(F.layer_norm(blocks @ state["landmarks.patch_merging.linear.weight"].T, (8,), *norm))
    among = kernel(marks, marks)
    middle = torch.linalg.inv((among + 0.01 * torch.eye(16)).double()).float()
    if normalize:
        root = among.sum(-1).rsqrt()
        middle = root[..., :, None] * middle * root[..., None, :]
    images = v.transpose(2, 3).flatten(0, 1).unflatten(-1, (8, 8))  # [batch * heads, width, rows, columns]
    taps = state["filter.weight"].repeat(2, 1, 1, 1)
    heard = torch.stack(
        [F.conv2d(one[:, None], tap[None], padding=1)[:, 0] for one, tap in zip(images, taps, strict=True)]
    )
    y = kernel(q, marks) @ middle @ kernel(marks, q) @ v + heard.flatten(2).transpose(1, 2).unflatten(0, (2, 2))
    assert_close(model(X.unflatten(1, (8, 8))), out_of(state, y), 2e-3)


@torch.no_grad()
def test_with_all_tokens_as_landmarks_it_is_the_exact_kernel() -> None:
    x = 4 * X  # far apart, so that the kernel can be inverted in single precision
    through = body(node(landmarks="identity", ridge=0, iterations=30), GRID)
    exact = body(node(), GRID)
    exact.load_state_dict(through.state_dict())
    state = exact.a.state_dict()
    q, v = heads_of(state, x)
    expected = out_of(state, kernel(q, q) @ v)
    image = x.unflatten(1, (8, 8))
    assert_close(exact(image), expected, 1e-4)
    assert_close(through(image), expected, 1e-3)


def test_the_inverse_and_its_gradient_are_those_of_an_inverse() -> None:
    generator = torch.Generator().manual_seed(0)
    marks = torch.randn(2, 3, 12, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, 12, 12, generator=generator, dtype=torch.float64)
    found = []
    for form in (lambda g: inverse(g, 40, 0.01), lambda g: torch.linalg.inv(g + 0.01 * torch.eye(12))):
        made = form(kernel(marks, marks))
        found.append((made, *torch.autograd.grad((made * weights).sum(), marks)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-8, rtol=1e-8)


def test_cost_grows_with_the_number_of_pixels() -> None:
    """Stages of images of 224, 448 and 896 pixels, 49 landmarks in each."""
    flops = []
    for side in (56, 112, 224):
        marks = "[{kind: patch_merging, factor: row / 7, width: width_in, place: after}]"
        text = f"""
archspec: 1
name: stage
interface: {{kind: backbone, inputs: {{x: {{axes: {{row: {side}, column: {side}}}, width: 64}}}}}}
graph: [{node(landmarks=marks, convolution=9)}]
"""
        flops.append(price(loads(text), device="l4").forward)
    powers = [math.log2(b / a) / 2 for a, b in zip(flops, flops[1:], strict=False)]
    assert all(0.9 < power <= 1.001 for power in powers)


@pytest.mark.parametrize(
    ("fields", "axes", "causal", "said"),
    [
        ({}, "token: 16", "token", "every token reads later ones"),
        ({"convolution": 4}, GRID, "", "an even size, 4, has no middle"),
        ({"landmarks": "{kind: project, width: 4}"}, GRID, "", "as wide as the queries"),
        ({"landmarks": "pool"}, GRID, "", "as wide as the queries"),
        ({"landmarks": "{kind: pool, window: 3}"}, GRID, "", "does not divide into blocks of 3"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], axes: str, causal: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        body(node(**fields), axes, causal=causal)
