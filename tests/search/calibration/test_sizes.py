"""Grids of kernels: which points are measured, and what becomes of the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from search.calibration.sizes import Plan, Pool, attention, products, reach


def test_points_that_are_too_large_grow_from_their_neighbours() -> None:
    plan = Plan({"m": (1, 10), "n": (1, 10)}, lambda m, n: lambda: 1e-3 * (m + n), most=10)
    assert plan.points() == [(1, 1), (1, 10), (10, 1)]
    measured = {point: plan.call(*point)() for point in plan.points()}
    assert plan.grid(measured).seconds == pytest.approx((2e-3, 11e-3, 11e-3, 110e-3))


def test_a_product_is_a_layer_s() -> None:
    run = products(torch.float32, "cpu", {"m": (3,), "k": (4,), "n": (5,)}, 1e9).call(3, 4, 5)
    assert run().shape == (3, 5)


def test_far_products_take_another_matrix_each_time() -> None:
    plan = products(torch.float32, "cpu", {"m": (2,), "k": (4,), "n": (8,)}, 1e9, Pool(4 * 100, torch.float32, "cpu"))
    run = plan.call(2, 4, 8)
    outs = [run() for _ in range(7)]  # three matrices fit into the pool
    assert torch.equal(outs[0], outs[3]) and torch.equal(outs[3], outs[6])
    assert len({tuple(out.flatten().tolist()) for out in outs}) == 3


def test_reach_takes_turns_over_so_many_bytes() -> None:
    plan = reach(torch.bfloat16, "cpu", (2**21,))
    run = plan.call(2**21)
    outs = [run() for _ in range(9)]  # four matrices of 512 KiB
    assert plan.points() == [(2**21,)]
    assert torch.equal(outs[0], outs[4]) and torch.equal(outs[4], outs[8])
    assert len({tuple(out[0, :4].tolist()) for out in outs}) == 4


@pytest.mark.parametrize("causal", [False, True])
def test_attention_by_shape(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda q, k, v, is_causal: asked.append((q.shape, k.shape, is_causal))
    )
    axes = {"queries": (5,), "keys": (7,), "width": (16,)}
    attention(torch.float32, "cpu", axes, 1e9, heads=3, causal=causal).call(5, 7, 16)()
    assert asked == [((1, 3, 5, 16), (1, 3, 7, 16), causal)]
