"""The clock, on a machine whose speed the test decides."""

from __future__ import annotations

import time

import pytest

from search.calibration import clock as module
from search.calibration.clock import Clock, Timed


class Machine:
    """Counts seconds of which every piece of work, the canary's too, takes as many as it is slow."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slow = 1.0

    def __call__(self) -> float:
        self.now += self.slow
        return self.now


def test_what_slows_the_canary_is_divided_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.0)
    monkeypatch.setattr(module, "AROUND", 0.0)
    machine = Machine()
    clock = Clock(counter=machine)
    taken = []
    for number in range(10):
        machine.slow = 1.0 if number < 5 else 2.0
        taken.append(clock.time(lambda: None, budget=0, least=2))
    assert [timed.seconds for timed in taken] == pytest.approx([1.0] * 5 + [2.0] * 5)
    assert [clock.corrected(timed) for timed in taken] == pytest.approx([1.5] * 10)
    assert clock.drift == pytest.approx(1 / 3)


def test_a_steady_machine_is_left_alone() -> None:
    clock = Clock(counter=Machine())
    timed = clock.time(lambda: None, budget=0)
    assert (timed.seconds, timed.low, timed.high) == pytest.approx((1.0, 1.0, 1.0))
    assert clock.corrected(timed) == pytest.approx(1.0)
    assert clock.drift == pytest.approx(0.0)


def test_a_clock_that_never_looked_corrects_nothing() -> None:
    clock = Clock(counter=Machine())
    assert clock.corrected(Timed(2.0, 2.0, 2.0, at=0.0, until=1.0)) == 2.0
    assert clock.drift == 0.0


def test_the_median_and_quartiles_of_calls() -> None:
    machine = Machine()
    clock = Clock(counter=machine)
    pace = iter([9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 5.0])  # two to warm up

    def run() -> None:
        machine.slow = next(pace)

    timed = clock.time(run, budget=0, least=5)
    assert (timed.low, timed.seconds, timed.high) == (2.0, 3.0, 4.0)


def test_seconds_are_those_of_a_real_call() -> None:
    timed = Clock().time(lambda: time.sleep(0.01), budget=0.05, least=3)
    assert 0.01 <= timed.seconds < 0.05
