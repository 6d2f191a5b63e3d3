"""Predictions of a GPU's latencies and memory, replayed against what was measured on it (benchmarks/gpu/h200)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from search.calibration.check import Checked, check
from search.calibration.truth import Truth, read
from search.cost import price
from search.cost.devices import load

FOLDER = Path(__file__).parents[3] / "benchmarks" / "gpu" / "h200"
WORKSPACE = 80e6  # bytes that cuBLAS takes for itself on this GPU


@cache
def truths() -> list[Truth]:
    return [truth for truth in read(FOLDER / "truth.jsonl") if not truth.compiled]


@cache
def checked() -> list[Checked]:
    return check(truths(), load(str(FOLDER / "profile.json")))


def test_forty_models_were_measured() -> None:
    assert len({truth.name for truth in truths()}) == 40
    assert {truth.phase for truth in truths()} == {"prefill", "decode", "step"}
    assert all("H200" in str(truth.fingerprint["device"]) for truth in truths())


@pytest.mark.parametrize(("phase", "most"), [("prefill", 0.13), ("decode", 0.09), ("step", 0.15)])
def test_predictions_are_as_near_as_they_were(phase: str, most: float) -> None:
    mine = [one for one in checked() if one.truth.phase == phase]
    errors = [abs(one.error) for one in mine]
    assert sum(errors) / len(errors) < most


def test_memory_of_a_prefill() -> None:
    for truth in truths():
        if truth.phase == "prefill":
            cost = price(truth.load(), batch=truth.batch, length=truth.length, dtype=truth.dtype, device="h200")
            assert truth.memory is not None
            assert -0.06 * cost.peak_inference <= truth.memory - cost.peak_inference <= WORKSPACE, truth.name
