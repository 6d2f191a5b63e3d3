"""Unified Normalization. Yang et al. 2022, arXiv 2208.01313."""

from typing import Any

import pytest
import torch
from torch import Tensor

import compiler
from archspec.errors import SpecError
from compiler.modules.batch_norm import Statistics
from compiler.modules.unified_norm import MeanSquares
from search.data.digits import Digits
from search.recipe import Recipe
from search.train import train
from tests.zoo.published import build, spec

pytestmark = pytest.mark.system("unified_normalization")
NAME = "norm/unified_normalization"
WIDTH = 32


def norm(**fields: Any) -> MeanSquares:
    """The last norm of a model, with other fields."""
    model = build(NAME, blocks__norm={"kind": "unified_norm", **fields}).train()
    found = model.last.norm
    assert isinstance(found, MeanSquares)
    return found


def batches(count: int, seed: int = 0) -> list[Tensor]:
    """Features ``[8, 16, 32]`` whose scale goes up and down a little."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 16, WIDTH, generator=generator) * (1 + 0.1 * (step % 3)) for step in range(count)]


def test_inference_is_an_affine_map_and_folds_away() -> None:
    model: Any = compiler.compile(spec(NAME))
    data = Digits().open(model.spec.interface)
    train(model, data, Recipe(steps=60, batch=32, learning_rate=5e-3))
    model.eval()
    one = model.last.norm
    x = torch.randn(4, 16, WIDTH)
    shift = one(torch.zeros_like(x), None)
    alone = torch.cat([one(token[None, None], None) for token in x.flatten(0, 1)]).view_as(x)
    torch.testing.assert_close(one(x, None), alone)  # nothing of what it is given beside
    torch.testing.assert_close(one(-2 * x, None) - shift, -2 * (one(x, None) - shift), atol=1e-5, rtol=1e-4)
    folded: Any = compiler.fold(model)
    left = [node for node in folded.graph.nodes if node.op == "call_module"
            and isinstance(folded.get_submodule(node.target), Statistics)]  # fmt: skip
    assert [[reader.target for reader in node.users] for node in left] == [["mean"]]  # the pool's, no matrix's
    (batch,) = (one.inputs for one in data.validation(size=64, length=None, batches=1))
    with torch.no_grad():
        expected, found = model(**batch), folded(**batch)
    assert (expected - found).abs().max() < 1e-5 < 0.1 < expected.abs().max()


@torch.no_grad()
def test_mean_squares_are_smoothed_by_their_geometric_mean() -> None:
    part, seen, running = norm(warmup=0, filter=False), [], torch.ones(WIDTH)
    for step, x in enumerate(batches(10)):
        seen.append(x.square().mean((0, 1)))
        last = torch.stack(seen[-4:])
        square = last.prod(0) ** 0.25 if step >= 4 else seen[-1]
        running = 0.9 * running + 0.1 * square
        torch.testing.assert_close(part(x, None), x / (square + 1e-5).sqrt())
    torch.testing.assert_close(part.running_var, running)
    torch.testing.assert_close(part.eval()(x, None), x / (running + 1e-5).sqrt())


@torch.no_grad()
def test_a_batch_unlike_the_others_leaves_no_trace() -> None:
    parts = [norm(warmup=8) for _ in range(2)]
    for x in batches(12):
        for part in parts:
            part(x, None)
    before = parts[0].running_var.clone()
    x = 30 * batches(1, seed=1)[0]
    torch.testing.assert_close(parts[0](x, None), x / (x.square().mean((0, 1)) + 1e-5).sqrt())
    assert torch.equal(parts[0].running_var, before)
    for later in batches(6, seed=2):
        found, expected = (part(later, None) for part in parts)
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)
    careless = norm(warmup=8, filter=False)
    for y in (*batches(12), x):
        careless(y, None)
    assert (careless.running_var - before).max() > 0.1


def test_with_a_window_of_one_batch_gradients_are_those_of_its_own_mean_square() -> None:
    part = norm(window=1, momentum=1.0, warmup=0, filter=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        part.weight.copy_(torch.randn(WIDTH, generator=generator))  # type: ignore[union-attr]
    x, upstream = (torch.randn(4, 8, WIDTH, generator=generator) for _ in range(2))
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    part(mine, None).backward(upstream)
    plain = theirs / (theirs.square().mean((0, 1)) + 1e-5).sqrt() * part.weight.detach()  # type: ignore[union-attr]
    plain.backward(upstream)
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-4)


def test_products_of_the_gradient_are_smoothed_alike() -> None:
    part, seen, running = norm(warmup=0, filter=False), [], torch.zeros(WIDTH)
    generator = torch.Generator().manual_seed(0)
    for step, x in enumerate(batches(8)):
        x.requires_grad_()
        upstream = torch.randn(x.shape, generator=generator)
        z = part(x, None)
        z.backward(upstream)
        seen.append((upstream * z.detach()).mean((0, 1)))
        running = 0.9 * running + 0.1 * (torch.stack(seen[-4:]).mean(0) if step >= 4 else seen[-1])
        scale = z.detach()[0, 0] / x.detach()[0, 0]
        torch.testing.assert_close(x.grad, scale * (upstream - z.detach() * running), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_padding_has_no_part() -> None:
    x = batches(1)[0]
    valid = torch.arange(16)[None] < torch.tensor([16, 3, 9, 1, 16, 2, 8, 5])[:, None]
    one, other = norm(), norm()
    found = one(x.masked_fill(~valid[..., None], 100.0), valid)
    torch.testing.assert_close(found[valid], other(x[valid][None], None)[0])
    torch.testing.assert_close(one.running_var, other.running_var)


def test_a_window_of_no_batch_is_refused() -> None:
    with pytest.raises(SpecError, match="window"):
        spec(NAME, blocks__norm__window=0)
