"""Factors fitted to whole models, against those that the measurements were made with."""

from __future__ import annotations

from itertools import product

import pytest

from search.calibration.fitting import at_work, fitted, predicted, unfitted, work_of
from search.calibration.references import reference
from search.calibration.truth import Truth, text_of
from search.cost import devices
from search.cost.devices import Device
from search.cost.measured import Measured, Whole
from search.cost.passes import CLASSES, pass_time, seconds
from search.cost.setting import Phase

SPECS = [
    reference("decoder", (("heads", heads), ("layers", layers), ("width", 64 * heads)))
    for heads, layers in product((1, 2, 3, 6), (1, 3))
]


def with_factors(device: Device, **factors: float) -> Device:
    whole = {"prefill": Whole(factors=factors), "decode": Whole(factors=factors)}
    return device.model_copy(update={"measured": Measured(whole=whole)})


def milliseconds(truth: Truth, device: Device) -> float:
    work, under = at_work(truth, device)
    return 1e3 * seconds(pass_time(work, under), under)


def truths(device: Device, dtype: str, phase: Phase = "prefill", lengths: tuple[int, ...] = (32, 512)) -> list[Truth]:
    """What a device would take."""
    found = []
    for spec, length in product(SPECS, lengths):
        about = {"name": spec.name, "spec": text_of(spec), "phase": phase, "batch": 1, "length": length}
        made = Truth.model_validate(about | {"dtype": dtype, "median_ms": 1.0, "low_ms": 1.0, "high_ms": 1.0})
        found.append(made.model_copy(update={"median_ms": milliseconds(made, device)}))
    return found


CPU, GPU = devices.load("xeon_8480"), devices.load("a100_40gb")


def test_factors_of_a_cpu_are_recovered() -> None:
    known = with_factors(CPU, product=2.0, attention=5.0, traffic=3.0, host=1.5)
    found = fitted(truths(known, "float32"), CPU)
    assert found.factors["product"] == pytest.approx(2.0, rel=0.05)
    assert found.factors["traffic"] == pytest.approx(3.0, rel=0.1)
    assert found.factors["host"] == pytest.approx(1.5, rel=0.05)
    assert max(map(abs, found.errors)) < 0.03


@pytest.mark.parametrize(("phase", "host", "start"), [("prefill", 0.0, 0.5), ("decode", 3.0, 0.5)])
def test_a_gpu_that_waits_and_one_that_does_not(phase: Phase, host: float, start: float) -> None:
    """Where it never waits, what it starts with is fitted; where it always does, what it takes to be asked is."""
    known = with_factors(GPU, product=2.0, traffic=2.0, start=start, host=host)
    some = truths(known, "bfloat16", phase)
    found = fitted(some, GPU)
    fixed = GPU.model_copy(update={"measured": Measured(whole={phase: found})})
    assert [milliseconds(one, fixed) for one in some] == pytest.approx([one.median_ms for one in some], rel=0.02)
    if host:
        assert found.factors["host"] == pytest.approx(host, rel=0.02)
    else:
        assert found.factors["start"] < found.factors["product"] / 3


def test_predictions_are_those_of_the_fitted_profile() -> None:
    known = with_factors(CPU, product=2.0, traffic=3.0, host=1.5)
    some = truths(known, "float32")
    times = [list(work_of(one, CPU).values()) for one in some]
    whole = Whole(factors=dict.fromkeys(CLASSES, 1.0) | {"product": 2.0, "traffic": 3.0, "host": 1.5})
    assert 1e3 * predicted(times, whole, CPU) == pytest.approx([one.median_ms for one in some], rel=1e-6)


def test_fitting_starts_from_the_profile_without_factors() -> None:
    known = with_factors(CPU, product=2.0, host=1.5)
    some = truths(known, "float32")
    assert fitted(some, known) == fitted(some, CPU)
    assert unfitted(known).factor("prefill", "product") == 1.0
    assert unfitted(CPU) is CPU


def test_work_adds_up_to_the_latency() -> None:
    (one, *_) = truths(CPU, "float32")
    assert 1e3 * sum(work_of(one, CPU).values()) == pytest.approx(one.median_ms, rel=1e-6)


def test_profiles_of_one_name_are_not_mixed_up() -> None:
    (one, *_) = truths(CPU, "float32")
    slow = with_factors(CPU, host=3.0)
    assert milliseconds(one, slow) > 1.5 * one.median_ms
    assert milliseconds(one, CPU) == one.median_ms
