"""The roofline, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from archspec.errors import SpecError
from search.cost.block import Operator
from search.cost.devices import Device, Level
from search.cost.roofline import latency, weights_per_pass

DEVICE = Device(
    title="toy",
    kind="cpu",
    units=1,
    peak={"float32": 1e9, "bfloat16": 4e9},
    memory=(Level(name="cache", size=1e3, bandwidth=1e9), Level(name="memory", size=1e9, bandwidth=1e8)),
    overhead=1e-6,
    sources=("by hand",),
)


def row(
    *, flops: int = 0, read: int = 0, written: int = 0, weights: int = 0, dtype: str = "float32", count: int = 1
) -> Operator:
    return Operator("aten.mm", "forward", dtype, flops, read, written, weights, count=count)


def test_arithmetic_bounds() -> None:
    assert latency([row(flops=10_000, read=500, written=500)], DEVICE) == pytest.approx(1e-6 + 1e-5)
    assert latency([row(flops=10_000, read=500, written=500, dtype="bfloat16")], DEVICE) == pytest.approx(1e-6 + 2.5e-6)


def test_traffic_bounds_from_the_level_that_holds_it() -> None:
    assert latency([row(flops=10, read=500, written=500)], DEVICE) == pytest.approx(1e-6 + 1e-6)
    assert latency([row(flops=10, read=1_500, written=500)], DEVICE) == pytest.approx(1e-6 + 2e-5)


def test_weights_come_from_where_all_of_them_fit() -> None:
    """The small operator's own weights would fit the cache, but those of the pass do not."""
    alone = [row(read=600, written=100, weights=500)]
    assert latency(alone, DEVICE) == pytest.approx(1e-6 + 0.7e-6)
    many = [row(read=600, written=100, weights=500, count=3)]
    assert weights_per_pass(many) == 1_500
    assert latency(many, DEVICE) == pytest.approx(3 * (1e-6 + 0.2e-6 + 5e-6))


def test_operators_add_up() -> None:
    one = row(flops=10_000, read=500, written=500)
    other = row(read=1_500, written=500)
    both = latency([one, other], DEVICE)
    assert both == pytest.approx(latency([one], DEVICE) + latency([other], DEVICE))


def test_traffic_needs_no_peak() -> None:
    assert latency([row(read=10, dtype="int64")], DEVICE) > 0
    with pytest.raises(SpecError, match="toy states no peak for float16"):
        latency([row(flops=1, dtype="float16")], DEVICE)
