"""Activator. Abdullah and Aydin 2024, arXiv 2405.15953."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from compiler.logical import logical
from search.cost.price import price
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("activator_glu")
NAME = "channel/activator_glu"
WIDTH, INNER, LAYERS = 64, 128, 4
GLU_ONLY = {"graph__layers__body": "glu_layer"}
ATTENTION = {"blocks__unit": {"kind": "attention", "heads": 4, "bias": True}}
FORMS: dict[str, dict[str, Any]] = {"both": {}, "glu only": GLU_ONLY}
IMAGES = torch.randn(2, 32, 32, 3, generator=torch.Generator().manual_seed(0))


def unit(x: Tensor, state: dict[str, Tensor], at: str) -> Tensor:
    """``out(norm(gelu(gate(x))) * norm(up(x)))``."""
    norm = (INNER,), state[f"{at}.gate_norm.weight"], state[f"{at}.gate_norm.bias"]
    gate, up = (F.linear(x, state[f"{at}.{role}.linear.weight"], state[f"{at}.{role}.linear.bias"])
                for role in ("gate", "up"))  # fmt: skip
    inner = F.layer_norm(F.gelu(gate), *norm) * F.layer_norm(up, *norm)
    return F.linear(inner, state[f"{at}.out.linear.weight"], state[f"{at}.out.linear.bias"])


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_equals_its_definition(form: str) -> None:
    model: Any = random(build(NAME, **FORMS[form]))
    state = logical(model)
    rows = IMAGES.unflatten(1, (8, 4)).unflatten(3, (8, 4)).transpose(2, 3).flatten(3).flatten(1, 2)
    x = F.linear(rows, state["patch_embedding.linear.weight"], state["patch_embedding.linear.bias"])
    for layer in range(LAYERS):
        at = f"layers.{layer}"
        norm, mixed = ("read", "mixed") if form == "both" else ("residual.norm", "residual.body")
        weights = (WIDTH,), state[f"{at}.{norm}.weight"], state[f"{at}.{norm}.bias"]
        x = x + unit(F.layer_norm(x, *weights), state, f"{at}.{mixed}")
        if form == "both":
            inner = F.linear(F.layer_norm(x, *weights), state[f"{at}.thought.up.weight"],
                             state[f"{at}.thought.up.bias"])  # fmt: skip
            x = x + F.linear(F.gelu(inner), state[f"{at}.thought.down.weight"], state[f"{at}.thought.down.bias"])
    expected = F.linear(x.mean(1), state["classifier.weight"], state["classifier.bias"])
    torch.testing.assert_close(model(IMAGES), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_has_the_parameters_of_the_authors_model(form: str) -> None:
    """Theirs on CIFAR-10; counted from its layers: `nn.Linear` and `nn.LayerNorm` with all biases."""
    width, inner = 256, 512
    size = {"dims__width": width, "dims__inner": inner}
    gated = 2 * (width * inner + inner) + 2 * inner + inner * width + width
    mlp = width * inner + inner + inner * width + width if form == "both" else 0
    whole = 4 * (gated + mlp + 2 * width) + (4 * 4 * 3 * width + width) + (width * 10 + 10)
    assert parameters(build(NAME, device="meta", **size, **FORMS[form])) == whole


def test_costs_less_than_attention_of_the_same_width() -> None:
    attention, both, alone = (price(spec(NAME, **changes)).forward for changes in (ATTENTION, {}, GLU_ONLY))
    assert alone < both
    inner = {"dims__inner": WIDTH}  # as wide as the attention's own matrices
    assert price(spec(NAME, **inner)).forward < price(spec(NAME, **inner, **ATTENTION)).forward
    assert alone < attention


def test_patches_meet_in_the_mean_alone() -> None:
    model: Any = random(build(NAME))
    seen: list[Tensor] = []
    model.get_submodule("layers.3").register_forward_hook(lambda _, __, out: seen.append(out))
    images = IMAGES.clone().requires_grad_()
    model(images)
    (grad,) = torch.autograd.grad(seen[0][:, 0].sum(), images)
    assert grad[:, :4, :4].abs().sum() > 0
    assert grad[:, 4:].abs().sum() == grad[:, :, 4:].abs().sum() == 0


def test_a_unit_without_an_inner_width_is_refused() -> None:
    with pytest.raises(SpecError, match="width must be more than 0"):
        spec(NAME, dims__inner=0)
