"""Weights laid out for inference give what the model gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import compiler
from archspec.spec import loads
from compiler.inference import Int8Linear, PackedLinear
from tests.models import perturbed
from tests.specs import EXAMPLES

TEXT = (EXAMPLES / "tiny.yaml").read_text("utf-8")
TIED = TEXT.replace("- lm_head", "- {kind: lm_head, tied: true, bias: true}")


def model_of(text: str) -> Any:
    return perturbed(compiler.compile(loads(text))).eval()


@pytest.mark.parametrize("text", [TEXT, TIED])
@pytest.mark.parametrize("rows", [1, 8])
@torch.no_grad()
def test_packed_weights_change_no_logit(text: str, rows: int) -> None:
    tokens = torch.randint(0, 256, (2, 9))
    expected = model_of(text)(tokens)
    found = compiler.pack(model_of(text), rows=rows)
    assert any(isinstance(module, PackedLinear) for module in found.modules())
    assert not any(type(module) is nn.Linear for module in found.modules())
    torch.testing.assert_close(found(tokens), expected, atol=1e-4, rtol=1e-4)
    assert compiler.generate(found, [[1, 2, 3]], tokens=5) == compiler.generate(model_of(text), [[1, 2, 3]], tokens=5)


@pytest.mark.parametrize("count", [1, 32, 33])
@torch.no_grad()
def test_eight_bits_are_the_nearest_of_255_steps(count: int) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(24, 16), torch.randn(count, 16)
    found = Int8Linear(weight, None)
    step = weight.abs().amax(1, keepdim=True) / 127
    kept = found.weight * found.scale[:, None]
    assert ((kept - weight).abs() <= step / 2 * 1.001).all()
    rounded = x if count > 32 else x.bfloat16().float()
    torch.testing.assert_close(found(x), rounded @ kept.T, atol=0.02 if count <= 32 else 1e-5, rtol=0.01)


@pytest.mark.parametrize("text", [TEXT, TIED])
@torch.no_grad()
def test_every_matrix_and_the_head_are_kept_in_eight_bits(text: str) -> None:
    tokens = torch.randint(0, 256, (2, 40))
    found, rounded = compiler.quantize(model_of(text)), model_of(text)
    kept = {name: module.weight * module.scale[:, None] for name, module in found.named_modules()
            if isinstance(module, Int8Linear)}  # fmt: skip
    assert len(kept) == 4 * 4 + 1
    head = kept.pop("lm_head.inference")
    for name, value in kept.items():
        rounded.get_submodule(name).weight.copy_(value)
    rounded.lm_head.weight = nn.Parameter(head)  # the table of a tied embedding stays as it is
    torch.testing.assert_close(found(tokens), rounded(tokens), atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_a_model_with_losses_in_training_is_for_inference_from_there_on() -> None:
    text = TEXT.replace("channel: {kind: glu, hidden: 8 * width / 3, multiple_of: 32}",
                        "channel: {kind: mixture, experts: {count: 4, body: {kind: glu, hidden: 32}}}")  # fmt: skip
    model, tokens = model_of(text), torch.randint(0, 256, (2, 9))
    expected = model(tokens)
    torch.testing.assert_close(compiler.pack(model)(tokens), expected, atol=1e-4, rtol=1e-4)
