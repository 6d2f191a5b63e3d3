"""How sure a prediction is: the bounds hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search.cost.devices import Device, Level
from search.cost.grid import Grid
from search.cost.interval import ASSUMED, COVERAGE, covered, interval
from search.cost.measured import DType, Kernels, Measured, Whole
from search.cost.setting import Setting
from search.cost.steps import steps
from tests.search.cost.small import SPECS

BARE = Device(
    title="toy", kind="cpu", units=1, peak={"float32": 1e9}, memory=(Level(name="memory", size=1e9, bandwidth=1e8),),
    overhead=1e-6, sources=("by hand",),
)  # fmt: skip
GRID = Grid(axes={"m": (1, 8), "k": (1, 8), "n": (1, 8)}, seconds=(1e-6,) * 8)


def knowing(*errors: float, kernels: bool = True) -> Device:
    known: dict[DType, Kernels] = {"float32": Kernels(products=GRID)} if kernels else {}
    return BARE.model_copy(update={"measured": Measured(kernels=known, whole={"prefill": Whole(errors=errors)})})


def test_a_profile_alone_is_assumed() -> None:
    assert interval(BARE, "prefill", 1.0) == ASSUMED


def test_the_next_error_lies_inside_as_often_as_promised() -> None:
    """Whatever the errors' distribution."""
    draw = np.random.default_rng(0)
    inside = []
    for _ in range(2_000):
        errors = np.expm1(0.1 * draw.standard_t(3, 20))
        low, high = interval(knowing(*errors[:-1]), "prefill", 1.0)
        inside.append(low <= 1 / (1 + errors[-1]) <= high)
    assert np.mean(inside) == pytest.approx(COVERAGE, abs=0.02)


def test_few_errors_promise_little() -> None:
    widths = [interval(knowing(*[0.02] * count), "prefill", 1.0).high for count in (1, 3, 6, 9)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 1.8 and widths[-1] == pytest.approx(1.02)


def test_work_that_was_not_measured_widens() -> None:
    device = knowing(*[0.1] * 12)
    assert interval(device, "prefill", 1.0) == pytest.approx((1 / 1.1, 1.1))
    assert interval(device, "prefill", 0.5) == pytest.approx(((1 / 1.1 + 0.7) / 2, (1.1 + 3.0) / 2))
    assert interval(knowing(*[0.1] * 12, kernels=False), "prefill", 0.0) == pytest.approx((1 / 1.1, 1.1))


def test_another_phase_promises_nothing() -> None:
    assert interval(knowing(*[0.1] * 12), "decode", 1.0).high > 2


def test_what_is_covered() -> None:
    work = steps(SPECS["window"](), batch=1, lengths={"length": 16}, dtype=torch.float32)
    assert covered(work, Setting(torch.float32, BARE, "toy")) == 0.0
    share = covered(work, Setting(torch.float32, knowing(), "toy"))
    free = knowing().model_copy(
        update={"peak": {"float32": 1e15}, "memory": (Level(name="m", size=1, bandwidth=1e15),)}
    )
    assert 0.0 < share < 1.0
    assert covered(work, Setting(torch.float32, free, "toy")) == pytest.approx(1.0, abs=1e-3)
