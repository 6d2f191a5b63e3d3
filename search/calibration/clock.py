"""A stopwatch that knows when the machine itself is slower: a canary runs between the measurements.

Other work on a machine, and a processor that changes its frequency, move all times together, invisibly to repetitions
in a row. So between measurements a fixed piece of work, the canary, is timed as well; each is divided by how slow the
canary was around it, and how far it moved is reported.
"""

from __future__ import annotations

import bisect
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

LOOKS = 3  # at the canary in a row, after one to wake up
EVERY = 0.02  # seconds between two looks at the canary, at least
AROUND = 0.5  # seconds around a measurement in which the canary tells of it
QUEUED = 20  # calls that a GPU finds in its queue
PAUSE = 2_000_000  # cycles that it waits before, about a millisecond


@dataclass(frozen=True)
class Timed:
    """What one call took.

    Attributes:
        seconds: the median, as measured.
        low, high: the quartiles.
        at, until: when.
    """

    seconds: float
    low: float
    high: float
    at: float
    until: float


class Clock:
    """Times calls on a device.

    Args:
        device: ``cpu``, or a CUDA device.
        counter: seconds; `time.process_time` counts those that a busy processor gave to this process alone.
        canary: seconds that the canary took when the device was calibrated: times are then as they would have been
            there. Its own median by default.

    Attributes:
        bytes: that it holds itself.
    """

    def __init__(
        self, device: str = "cpu", *, counter: Callable[[], float] = time.perf_counter, canary: float | None = None
    ) -> None:
        self.usual = canary
        self.device = torch.device(device)
        self.counter = counter
        self.cuda = self.device.type == "cuda"
        size = 4096 if self.cuda else 256  # near the processor, so that what ran before does not matter
        self._a = torch.randn(size, size, device=self.device)
        self._b = torch.empty_like(self._a)
        self.bytes = self._a.nbytes + self._b.nbytes
        self._moments: list[float] = []
        self._canary: list[float] = []
        for _ in range(3):
            self._look()
        self._moments.clear()
        self._canary.clear()

    def time(self, run: Callable[[], Any], *, budget: float = 0.03, least: int = 5, warm: int = 2) -> Timed:
        """The median over as many calls as fit into a budget of seconds."""
        self._watch()
        for _ in range(warm):
            run()
        self.wait()
        at, taken = time.perf_counter(), []
        while len(taken) < least or (time.perf_counter() - at < budget and len(taken) < 1000):
            start = self.counter()
            run()
            self.wait()
            taken.append(self.counter() - start)
        low, middle, high = statistics.quantiles(taken, n=4, method="inclusive")
        until = time.perf_counter()
        self._watch()
        return Timed(middle, low, high, at, until)

    def kernel(self, run: Callable[[], Any], *, budget: float = 0.03, least: int = 5) -> Timed:
        """What a call keeps the device busy, without the time that the processor needs to ask for it."""
        if not self.cuda:
            return self.time(run, budget=budget, least=least)
        return self._queued(run, budget, least)

    def _queued(self, run: Callable[[], Any], budget: float, least: int) -> Timed:
        """Calls that wait in the device's queue behind a pause, so that it never waits for them."""
        self._watch()
        run()
        self.wait()
        start = time.perf_counter()
        run()
        self.wait()
        calls = max(1, min(QUEUED, int(budget / (time.perf_counter() - start))))
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        at, taken = time.perf_counter(), []
        while len(taken) < least or (time.perf_counter() - at < budget and len(taken) < 100):
            torch.cuda._sleep(PAUSE)  # type: ignore[no-untyped-call]
            begin.record()
            for _ in range(calls):
                run()
            end.record()
            end.synchronize()
            taken.append(begin.elapsed_time(end) / 1e3 / calls)
        low, middle, high = statistics.quantiles(taken, n=4, method="inclusive")
        return Timed(middle, low, high, at, time.perf_counter())

    def wait(self) -> None:
        """Until the device has done all that it was asked."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def _watch(self) -> None:
        if not self._moments or time.perf_counter() - self._moments[-1] > EVERY:
            self._look()

    def _look(self) -> None:
        taken = []
        for _ in range(1 + LOOKS):
            self.wait()
            start = self.counter()
            torch.mm(self._a, self._a, out=self._b)
            self.wait()
            taken.append(self.counter() - start)
        self._moments.append(time.perf_counter())
        self._canary.append(statistics.median(taken[1:]))

    def corrected(self, timed: Timed) -> float:
        """Seconds as they would have been had the canary always been as usual."""
        return timed.seconds / self.slowness(timed.at, timed.until)

    def together(self, several: Sequence[Timed]) -> float:
        """The geometric mean of measurements of one thing, corrected."""
        return math.exp(statistics.fmean(math.log(self.corrected(one)) for one in several))

    def slowness(self, at: float, until: float) -> float:
        """How slow the machine was in between, 1 in the median: what the canary was shortly before, in it and after."""
        first = bisect.bisect(self._moments, at - AROUND)
        last = max(bisect.bisect(self._moments, until + AROUND), first + 1)
        around = self._canary[min(first, len(self._canary) - 1) : last]
        return statistics.median(around) / self.canary if around else 1.0

    @property
    def canary(self) -> float:
        """Seconds of the canary to which times are corrected."""
        return self.usual if self.usual is not None else statistics.median(self._canary)

    @property
    def drift(self) -> float:
        """How far the canary moved: the mean distance from its median, as a share of it."""
        if not self._canary:
            return 0.0
        middle = statistics.median(self._canary)
        return statistics.fmean(abs(one / middle - 1) for one in self._canary)
