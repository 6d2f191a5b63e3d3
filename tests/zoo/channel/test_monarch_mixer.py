"""Monarch Mixer. Fu et al. 2023, arXiv 2310.12109."""

import cmath
import math
from typing import Any

import pytest
import torch

from archspec.errors import SpecError
from search.cost.price import price
from tests.compiler.modules.bodies import assert_close, body
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("monarch_mixer")

NAME = "channel/monarch_mixer"
NODE = "{{name: p, kind: project, width: {}, bias: true, linear: {{kind: monarch, blocks: {}}}}}"


def test_bert_of_80_million() -> None:
    """Of BERT base's 109.5 M, 27 % fewer."""
    count = parameters(build(f"{NAME}_80m", device="meta"))
    assert count == pytest.approx(80e6, rel=0.02)
    assert 1 - count / parameters(build("language/bert_base", device="meta")) == pytest.approx(0.27, abs=0.005)


@pytest.mark.parametrize(("outputs", "blocks"), [(16, 4), (32, 4), (8, 2), (16, 1)])
@torch.no_grad()
def test_a_monarch_matrix_equals_its_dense_expansion(outputs: int, blocks: int) -> None:
    """Block-diagonal matrices and permutations, multiplied out."""
    model = body(NODE.format(outputs, blocks))
    linear = model.p.linear
    permute = [
        torch.eye(width).unflatten(0, (blocks, -1)).transpose(0, 1).flatten(0, 1)
        for width in (min(16, outputs), outputs)
    ]
    first, second = (torch.block_diag(*(block.T for block in factor)) for factor in (linear.first, linear.second))
    dense = permute[1] @ second @ permute[0] @ first
    assert (dense != 0).all()
    x = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
    assert_close(model(x), x @ dense.T + linear.bias)


@torch.no_grad()
def test_a_fourier_transform_is_one() -> None:
    """Of 16 numbers, read column by column."""
    model = body(NODE.format(16, 4))
    linear = model.p.linear

    def turn(number: int, whole: int) -> complex:
        return cmath.exp(-2j * math.pi * number / whole)

    r = range(4)
    linear.first = torch.nn.Parameter(
        torch.tensor([[[turn(i * k, 4) * turn(g * k, 16) for k in r] for i in r] for g in r])
    )
    linear.second = torch.nn.Parameter(torch.tensor([[[turn(g * o, 4) for o in r] for g in r] for _ in r]))
    linear.bias.zero_()
    x = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
    found = model(x.unflatten(2, (4, 4)).mT.flatten(2).to(torch.complex64))
    torch.testing.assert_close(found, torch.fft.fft(x), atol=1e-5, rtol=1e-5)


def mixed(**changes: Any) -> Any:
    return random(build(NAME, **changes))


@torch.no_grad()
def test_no_token_is_seen_before_its_time() -> None:
    model, tokens = mixed(), torch.arange(2 * 16).reshape(2, 16) * 7 % 256
    before = model(tokens)
    for place in range(16):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % 256
        after = model(changed)
        torch.testing.assert_close(after[:, :place], before[:, :place], atol=1e-4, rtol=1e-4)
        assert ((after[:, place:] - before[:, place:]).abs().amax((0, 2)) > 1e-3).all()


@torch.no_grad()
def test_without_causality_all_tokens_are_seen() -> None:
    model = mixed(interface={"kind": "masked_lm", "vocab": 256, "length": 256})
    tokens = torch.arange(2 * 16).reshape(2, 16) * 7 % 256
    changed = tokens.clone()
    changed[:, -1] += 1
    assert ((model(changed) - model(tokens)).abs().amax((0, 2)) > 1e-3).all()


def test_cost_grows_less_than_with_the_square_of_length_and_of_width() -> None:
    by_length = [price(spec(NAME, interface__length=8192), length=n, device="l4").forward for n in (1024, 2048, 4096)]
    by_width = [price(spec(NAME, dims__width=width), length=256, device="l4").forward for width in (256, 1024, 4096)]
    for cheap, dear in zip(by_length, by_length[1:], strict=False):
        assert math.log2(dear / cheap) < 1.1
    for cheap, dear in zip(by_width, by_width[1:], strict=False):
        assert math.log(dear / cheap, 4) < 1.55


def test_blocks_divide() -> None:
    with pytest.raises(SpecError, match="a matrix 16 × 20 has no 8 equal blocks"):
        body(NODE.format(20, 8))
