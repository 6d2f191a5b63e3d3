"""Times of operators, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from archspec.errors import SpecError
from search.cost.block import Operator
from search.cost.devices import Device, Level
from search.cost.grid import Grid
from search.cost.kernels import APART, operator_time, summed, weights_per_pass
from search.cost.measured import Kernels, Measured, Whole
from search.cost.passes import table_by_work
from search.cost.setting import Setting

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


def latency(table: list[Operator], device: Device = DEVICE) -> float:
    """Seconds of a pass of these operators alone."""
    resident = weights_per_pass(table)
    times = [(operator_time(row, device, resident), row.count) for row in table]
    return device.pass_seconds("prefill", sum(t.busy * n for t, n in times), sum(t.host * n for t, n in times))


def test_arithmetic_bounds() -> None:
    assert latency([row(flops=10_000, read=500, written=500)]) == pytest.approx(1e-6 + 1e-5)
    assert latency([row(flops=10_000, read=500, written=500, dtype="bfloat16")]) == pytest.approx(1e-6 + 2.5e-6)


def test_traffic_bounds_from_the_level_that_holds_it() -> None:
    assert latency([row(flops=10, read=500, written=500)]) == pytest.approx(1e-6 + 1e-6)
    assert latency([row(flops=10, read=1_500, written=500)]) == pytest.approx(1e-6 + 2e-5)


def test_weights_come_from_where_all_of_them_fit() -> None:
    """The small operator's own weights would fit the cache, but those of the pass do not."""
    alone = [row(read=600, written=100, weights=500)]
    assert latency(alone) == pytest.approx(1e-6 + 0.7e-6)
    many = [row(read=600, written=100, weights=500, count=3)]
    assert weights_per_pass(many) == 1_500
    assert latency(many) == pytest.approx(3 * (1e-6 + 0.2e-6 + 5e-6))


def test_operators_add_up() -> None:
    one = row(flops=10_000, read=500, written=500)
    other = row(read=1_500, written=500)
    both = latency([one, other])
    assert both == pytest.approx(latency([one]) + latency([other]))


def test_traffic_needs_no_peak() -> None:
    assert latency([row(read=10, dtype="int64")]) > 0
    with pytest.raises(SpecError, match="toy states no peak for float16"):
        latency([row(flops=1, dtype="float16")])


def test_a_gpu_works_while_it_is_asked() -> None:
    gpu = DEVICE.model_copy(update={"kind": "gpu"})
    small, large = row(flops=100), row(flops=10_000)
    views = [replace(small, work="view", count=20)]
    assert latency([small, *views], gpu) == pytest.approx(7e-6)
    assert latency([small, large, *views], gpu) == pytest.approx(12.1e-6)


def test_a_start_has_a_factor_of_its_own() -> None:
    whole = {"prefill": Whole(factors={"start": 4.0, "product": 0.5, "host": 2.0})}
    gpu = DEVICE.model_copy(update={"kind": "gpu", "measured": Measured(whole=whole)})
    one = replace(row(flops=10_000, read=500, written=500), work="product", shape=(1, 10, 50, 10))
    assert operator_time(one, gpu, 0) == (pytest.approx(4e-6 + 0.5 * 1.1e-5), 2e-6, "roofline", 4e-6)
    assert summed([one], gpu).busy == (pytest.approx(9.5e9, rel=1e-6),) * 2
    by_work = table_by_work((one, replace(one, count=2)), Setting(torch.float32, gpu, "toy"), 0)
    found = {name: seconds for name, seconds in by_work.items() if seconds}
    assert found == pytest.approx({"product": 3 * 0.55e-5, "start": 12e-6, "host": 6e-6})


def test_a_product_s_arithmetic_and_traffic_add_up() -> None:
    one = replace(row(flops=10_000, read=500, written=500), work="product", shape=(1, 10, 50, 10))
    assert latency([one]) == pytest.approx(1e-6 + 1e-5 + 1e-6)


def test_softmax_is_done_on_vector_units() -> None:
    one = replace(row(flops=4 * 8_000, dtype="bfloat16"), work="attention", shape=(2, 20, 20, 10, 1))
    assert latency([one]) == pytest.approx(1e-6 + 8e-6 + 30 * 800 * 1e-9)


def test_a_gpu_s_streams_reach_half_of_its_bandwidth() -> None:
    gpu = DEVICE.model_copy(update={"kind": "gpu"})
    assert latency([row(read=1_500, written=500)], gpu) == pytest.approx(1e-6 + 4e-5)


GRID = Grid(axes={"m": (1, 8), "k": (64, 512), "n": (64,)}, seconds=(1e-6, 4e-6, 2e-6, 8e-6))
FAR = Grid(axes={"m": (1, 8), "k": (64, 512), "n": (64,)}, seconds=(4e-6, 16e-6, 3e-6, 9e-6))
REACH = Grid(axes={"bytes": (1e6, 1e7, 1e8)}, seconds=(1e-6, 2e-6, 4e-6))
ADD = Grid(axes={"bytes": (1e3, 1e6)}, seconds=(1e-6, 1e-3))
KERNELS = Kernels(products=GRID, far_products=FAR, reach=REACH, operators={"aten.add": ADD, "aten.add" + APART: GRID})
DOUBLED = Whole(factors={"product": 2.0})
MEASURED = DEVICE.model_copy(update={"measured": Measured(kernels={"float32": KERNELS}, whole={"prefill": DOUBLED})})


def test_a_grid_reads_its_points_and_powers_between_them() -> None:
    assert GRID.at(8, 512, 64) == (pytest.approx(8e-6), True)
    middle = GRID.at(8**0.5, (64 * 512) ** 0.5, 64)
    assert middle.seconds == pytest.approx((1e-6 * 4e-6 * 2e-6 * 8e-6) ** 0.25)
    assert GRID.at(80, 512, 64) == (pytest.approx(80e-6), False)
    assert GRID.at(8, 1, 64) == (pytest.approx(2e-6), False)


def product(rows: int) -> Operator:
    """``[rows, 64]`` by a weight ``[64, 64]``."""
    flops, weights, shape = 2 * rows * 64 * 64, 64 * 64 * 4, (1, rows, 64, 64)
    return Operator("aten.mm", "forward", "float32", flops, 0, 0, weights, work="product", shape=shape)


def test_measured_products_and_what_far_weights_cost() -> None:
    assert operator_time(product(1), MEASURED, 0).busy == pytest.approx(2 * 1e-6)
    assert operator_time(product(1), MEASURED, 1e8).busy == pytest.approx(2 * 4e-6)
    assert operator_time(product(1), MEASURED, 1e7).busy == pytest.approx(2 * (1e-6 + 3e-6 / 3))
    assert operator_time(product(8), MEASURED, 1e8).busy == pytest.approx(2 * 3e-6)
    more = operator_time(product(32), MEASURED, 1e8).busy  # loading the weights takes as long as with eight rows
    assert more == pytest.approx(2 * (GRID.at(32, 64, 64).seconds + 1e-6))
    assert operator_time(product(8), MEASURED, 0).origin == "calibrated"


def test_an_operator_that_was_not_measured_falls_back() -> None:
    assert operator_time(row(read=500, written=500), MEASURED, 0).origin == "roofline"
    unknown = Operator("vendor.mystery", "forward", "float32", 0, 1_500, 500, 0, priced=False)
    time = operator_time(unknown, MEASURED, 0)
    assert (time.origin, time.busy) == ("bytes", pytest.approx(2e-5))
    added = Operator("aten.add", "forward", "float32", 0, 500, 500, 0)
    assert operator_time(added, MEASURED, 0) == (pytest.approx(1e-6), 0.3 * DEVICE.overhead, "calibrated", 0.0)


def test_passes_are_summed_for_every_working_set() -> None:
    far = Operator(
        "aten.mm", "forward", "float32", 2 * 64 * 64, 0, 0, 64 * 64 * 4, work="product", shape=(1, 1, 64, 64)
    )
    time = summed([far, Operator("view", "forward", "", 0, 0, 0, 0, work="view", count=10)], MEASURED)
    assert time.busy == pytest.approx((2e9, 4e9, 8e9), rel=1e-6)
    assert time.host == pytest.approx(11 * 0.3 * 1e9)
    assert MEASURED.between(1e5) == (0, 0.0)
    assert MEASURED.between(10**6.5) == (0, 0.5)
    assert MEASURED.between(1e9) == (1, 1.0)
