"""DSFormer. Chand, Prabhu and Kumar 2023, arXiv 2312.13211."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import load, loads
from compiler.model import compile
from compiler.modules.dense_sparse import support
from tests.zoo.published import ZOO, build, random, spec

pytestmark = pytest.mark.system("dsformer")
NAME = "channel/dsformer"
TOKENS = torch.arange(24).reshape(2, 12) * 7 % 256


def factors(model: Any) -> list[tuple[Tensor, Tensor]]:
    """The dense and the sparse factor of each matrix."""
    state = dict(model.named_parameters())
    return [(state[name.removesuffix("sparse") + "dense"], value) for name, value in state.items()
            if name.endswith(".sparse")]  # fmt: skip


def one(rank: int, nonzeros: int, inputs: int, outputs: int) -> Any:
    return compile(loads(
        f"archspec: 1\ninterface: {{kind: backbone, inputs: {{x: {{axes: {{token: 6}}, width: {inputs}}}}}}}\n"
        f"graph: [{{name: a, kind: project, width: {outputs}, "
        f"linear: {{kind: dense_sparse, rank: {rank}, nonzeros: {nonzeros}}}}}]\n"
    ))  # fmt: skip


def test_counts_at_berts_size() -> None:
    plain = compile(load(ZOO / "language/bert_base.yaml"), device="meta")
    model = compile(load(ZOO / "channel/dsformer_bert_base.yaml"), device="meta")
    found = factors(model)
    widths = [768, 768] * 4 + [768, 3072, 3072, 768]
    expected = 12 * sum(192 * out + 48 * ins for ins, out in zip(widths[::2], widths[1::2], strict=True))
    expected += 192 * 768 + 48 * 768  # the matrix before the head
    assert sum(dense.numel() + 48 * full.shape[1] for dense, full in found) == expected
    matrices = 12 * (4 * 768**2 + 2 * 768 * 3072) + 768**2
    left = sum(p.numel() for name, p in model.named_parameters() if not name.endswith((".dense", ".sparse")))
    assert left == sum(p.numel() for p in plain.parameters()) - matrices
    assert expected < 0.3 * matrices


@torch.no_grad()
def test_equals_the_product_of_its_factors() -> None:
    model: Any = random(one(8, 3, 12, 5))
    ((dense, full),) = factors(model)
    sparse = torch.zeros_like(full)
    for column in range(12):
        largest = sorted(range(8), key=lambda row: -abs(full[row, column].item()))[:3]  # noqa: B023
        sparse[largest, column] = full[largest, column]
    x = torch.randn(2, 6, 12)
    torch.testing.assert_close(model(x), x @ (dense @ sparse).T, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_full_support_is_a_product_of_two_matrices() -> None:
    model: Any = random(one(8, 8, 12, 5))
    ((dense, full),) = factors(model)
    x = torch.randn(2, 6, 12)
    assert torch.equal(model(x), F.linear(F.linear(x, full), dense))


def test_a_step_keeps_the_nonzeros_and_reaches_both_factors() -> None:
    model: Any = build(NAME).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    before = [support(full, 4) != 0 for _, full in factors(model)]
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.flatten()).backward()
        optimizer.step()
    for dense, full in factors(model):
        assert dense.grad is not None and dense.grad.abs().sum() > 0
        assert full.grad is not None and (full.grad != 0).float().mean() > 0.9  # straight through: others as well
        assert (support(full, 4) != 0).sum(0).eq(4).all()
    after = [support(full, 4) != 0 for _, full in factors(model)]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))  # the support moves


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_long_tailed_matrix_is_nearer_than_by_a_truncated_svd_of_the_same_size(seed: int) -> None:
    """Both factors learned from random ones, the dense one small."""
    torch.manual_seed(seed)
    outputs, inputs, rank, nonzeros, cut, steps = 32, 64, 16, 4, 8, 300
    assert rank * outputs + nonzeros * inputs == cut * (outputs + inputs)
    target = torch.randn(outputs, inputs) ** 3
    beyond = torch.linalg.svdvals(target)[cut:].square().sum()  # what the best matrix of rank `cut` lacks
    ((dense, full),) = factors(random(one(rank, nonzeros, inputs, outputs)))
    optimizer = torch.optim.Adam([dense, full], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        error = (dense @ support(full, nonzeros) - target).square().sum()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
    assert error < 0.85 * beyond


def test_more_nonzeros_than_rows_are_refused() -> None:
    with pytest.raises(SpecError, match="20 numbers in a column of 16"):
        spec(NAME, dims__nonzeros=20)
