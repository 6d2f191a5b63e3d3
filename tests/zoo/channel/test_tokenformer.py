"""TokenFormer. Wang et al. 2024, arXiv 2410.23168."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import compiler
from archspec.errors import SpecError
from archspec.spec import loads
from compiler.logical import logical
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("tokenformer")
NAME = "channel/tokenformer"
TOKENS = torch.arange(24).reshape(2, 12) * 7 % 256


def normalised(normalize: str) -> dict[str, Any]:
    """Changes of the example: all of its matrices with another normaliser."""
    return {
        "blocks__layer__mixer__linear__normalize": normalize,
        "blocks__layer__channel__linear__normalize": normalize,
    }


def naive(x: Tensor, keys: Tensor, values: Tensor, normalize: str, scale: float) -> Tensor:
    """One token and one pair at a time."""
    out = torch.zeros(*x.shape[:-1], values.shape[0])
    for place in range(x.shape[1]):
        scores = [(x[:, place] * key).sum(-1) for key in keys]
        if normalize == "gelu_l2":
            scores = [F.gelu(score) for score in scores]
        if normalize == "softmax":
            total = torch.stack(scores).exp().sum(0) / scale**2
            scores = [score.exp() for score in scores]
        else:
            total = torch.stack(scores).square().sum(0).sqrt() / scale
        for number, score in enumerate(scores):
            weight = score / total
            weight = F.gelu(weight) if normalize == "l2_gelu" else weight
            out[:, place] += weight[:, None] * values[:, number]
    return out


@torch.no_grad()
@pytest.mark.parametrize("scale", [None, 2.5])
@pytest.mark.parametrize("normalize", ["l2_gelu", "gelu_l2", "softmax"])
def test_equals_its_definition(normalize: str, scale: float | None) -> None:
    said = "" if scale is None else f", scale: {scale}"
    model: Any = random(compiler.compile(loads(
        "archspec: 1\ninterface: {kind: backbone, inputs: {x: {axes: {token: 6}, width: 8}}}\ngraph: [{name: a, kind: "
        f"project, width: 5, linear: {{kind: token_parameters, count: 9, normalize: {normalize}{said}}}}}]\n"
    )))  # fmt: skip
    keys, values = logical(model).values()
    x = torch.randn(2, 6, 8)
    expected = naive(x, keys, values, normalize, 3.0 if scale is None else scale)
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-4)


def test_has_the_parameters_of_150m() -> None:
    model = build("channel/tokenformer_150m", device="meta")
    width, layers = 768, 12
    attention, think = 4 * 2 * width * width, 2 * 3072 * width  # pairs of a key and a value
    assert parameters(model) == layers * (attention + think) + 50304 * width + 2 * width
    assert round(parameters(model), -7) == 150_000_000


def test_parameters_of_projections_grow_linearly_with_the_pairs() -> None:
    counts = [parameters(build(NAME, device="meta", dims__pairs=pairs)) for pairs in (64, 128, 192)]
    assert counts[1] - counts[0] == counts[2] - counts[1] == 2 * 4 * 2 * 64 * 64


@torch.no_grad()
@pytest.mark.parametrize("normalize", ["l2_gelu", "gelu_l2"])
def test_growth_leaves_the_function_as_it_was(normalize: str) -> None:
    model: Any = random(build(NAME, **normalised(normalize)))
    large: Any = compiler.grow(model, spec(NAME, dims__pairs=96, dims__inner=400, **normalised(normalize)))
    assert parameters(large) > 1.4 * parameters(model)
    assert not large.training
    torch.testing.assert_close(large(TOKENS), model(TOKENS), atol=1e-6 * model(TOKENS).abs().max().item(), rtol=0)
    again: Any = compiler.grow(large, spec(NAME, dims__pairs=97, dims__inner=400, **normalised(normalize)))
    torch.testing.assert_close(again(TOKENS), model(TOKENS), atol=1e-6 * model(TOKENS).abs().max().item(), rtol=0)


def test_new_pairs_learn() -> None:
    model: Any = compiler.grow(random(build(NAME)), spec(NAME, dims__pairs=96))
    F.cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.flatten()).backward()
    keys = [p.grad for name, p in model.named_parameters() if name.endswith("query.keys")]
    assert len(keys) == 2 and all(grad[64:].abs().sum() > 0 for grad in keys)


@torch.no_grad()
def test_prefixes_are_smaller_models() -> None:
    """Pairs beyond a prefix cut off are the smaller model with the same scale: one table serves all sizes."""
    large: Any = random(build(NAME))
    small: Any = build(NAME, dims__pairs=40)
    for name, value in logical(small).items():
        value.copy_(logical(large)[name][tuple(slice(size) for size in value.shape)])
    for name, value in logical(large).items():
        if "mixer" in name and name.endswith("keys"):
            value[40:] = 0
    torch.testing.assert_close(large(TOKENS), small(TOKENS), atol=1e-4, rtol=1e-4)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "fewer": ({"dims__pairs": 32}, "has 32 parameter tokens; the model has 64"),
    "another scale": ({"dims__pairs": 128, "dims__scale": "sqrt(128)"}, "the scale 11.3137; the model has 8"),
    "other heads": ({"dims__pairs": 128, "dims__heads": 2}, "more than the counts"),
    "wider": ({"dims__width": 128}, "more than the counts"),
    "another normaliser": (normalised("gelu_l2"), "more than the counts"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_growth_that_would_change_the_function_is_refused(why: str) -> None:
    changes, said = REFUSED[why]
    with pytest.raises(SpecError, match="a growth that would change the function") as caught:
        compiler.grow(build(NAME), spec(NAME, **changes))
    assert said in str(caught.value)


def test_growth_under_a_softmax_is_refused() -> None:
    changes = normalised("softmax")
    with pytest.raises(SpecError, match="a key of zero changes"):
        compiler.grow(build(NAME, **changes), spec(NAME, dims__pairs=128, **changes))


def test_no_pairs_are_refused() -> None:
    with pytest.raises(SpecError, match="count must be more than 0"):
        spec(NAME, dims__pairs=0)
