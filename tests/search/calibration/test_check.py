"""Predictions held against measurements, and figures of them."""

from __future__ import annotations

import numpy as np
import pytest

from archspec.errors import SpecError
from search.calibration.check import check, ordered, summary, tau
from search.calibration.truth import Truth
from search.cost.interval import ASSUMED
from search.cost.measured import Measured, Whole
from tests.search.calibration.test_fitting import CPU, truths


def test_tau_is_kendall_s() -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(0)
    for ties in (3, 1000):
        a, b = draw.integers(0, ties, 50), draw.integers(0, ties, 50)
        assert tau(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)
    assert tau([1, 2, 3], [2, 4, 9]) == 1.0
    assert tau([1, 2, 3], [9, 4, 2]) == -1.0
    assert tau([1, 1], [1, 2]) is None


def test_pairs_of_nearly_the_same_work() -> None:
    work = [100, 110, 116, 200]  # 100 and 116 are 16 % apart
    assert ordered([1, 2, 3, 4], [1, 3, 2, 4], work) == (0.5, 2)
    assert ordered([1, 2], [1, 2], [100, 116]) == (None, 0)


def test_a_device_agrees_with_itself() -> None:
    checked = check(truths(CPU, "float32"), CPU)
    found = summary(checked)
    assert (found.count, found.tau, found.ordered, found.coverage) == (16, 1.0, 1.0, 1.0)
    assert found.error < 1e-6
    assert checked[0].low_ms == pytest.approx(ASSUMED[0] * checked[0].predicted_ms)


def test_errors_and_intervals() -> None:
    known = CPU.model_copy(update={"measured": Measured(whole={"prefill": Whole(errors=(0.1,) * 10)})})
    some = truths(known, "float32")
    some[0] = some[0].model_copy(update={"median_ms": some[0].median_ms * 2})
    some[1] = some[1].model_copy(update={"median_ms": some[1].median_ms * 1.05})
    checked = check(some, known)
    assert [one.error for one in checked[:3]] == pytest.approx([-0.5, 1 / 1.05 - 1, 0.0])
    assert [one.inside for one in checked[:3]] == [False, True, True]
    assert summary(checked).coverage == 15 / 16
    assert [one.flops for one in checked] == sorted({one.flops for one in checked}, key=[
        one.flops for one in checked].index)  # fmt: skip


def of(truth: Truth, **mark: str | int) -> Truth:
    return truth.model_copy(update={"fingerprint": mark})


def test_another_device_or_version_is_named() -> None:
    known = CPU.model_copy(update={"measured": Measured(fingerprint={"device": "Xeon", "threads": 8, "torch": "2.13"})})
    one, two, *_ = truths(CPU, "float32")
    others = [of(one, device="EPYC", torch="2.13"), of(two, device="EPYC", torch="2.13"), of(one, torch="2.0")]
    with pytest.raises(SpecError) as caught:
        check([*others, of(one, device="Xeon", threads=8, torch="2.13")], known)
    assert [problem.cause for problem in caught.value.problems] == [
        "measured on EPYC, torch 2.13; the profile is of Xeon, threads 8, torch 2.13",
        "measured on torch 2.0; the profile is of Xeon, threads 8, torch 2.13",
    ]
    assert len(check(others, CPU)) == 3  # a datasheet does not say whose it is
    with pytest.raises(SpecError, match="measured on EPYC"):
        check(others, CPU, fingerprint={"device": "Xeon"})


def test_what_was_compiled_is_left_out() -> None:
    one, two, *_ = truths(CPU, "float32")
    assert len(check([one, two.model_copy(update={"compiled": True})], CPU)) == 1
