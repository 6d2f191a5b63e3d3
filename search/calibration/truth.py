"""Measured latencies, kept as truth: what predictions are held against.

A truth is a line of JSON: the spec itself, the phase and its sizes, the median and the quartiles, the peak of memory,
and the fingerprint of the device and the versions that ran it.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from archspec import canonical
from archspec.errors import Problem, SpecError
from archspec.spec import Spec, loads
from search.calibration.clock import Clock, Timed
from search.calibration.workload import Workload, peak_memory
from search.cost.setting import Phase

SCHEMA = 1
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Truth(BaseModel):
    """One measurement.

    Attributes:
        spec: its canonical form.
        length: tokens, of a decoded token those before it; None where the interface leaves none open.
        low_ms, high_ms: quartiles.
        rounds: how often it was measured, other models between.
        memory: bytes at most.
        drift: how far the clock's canary moved meanwhile, as a share.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: int = Field(SCHEMA, alias="schema")
    name: str
    spec: str
    phase: Phase
    batch: int = Field(gt=0)
    length: int | None = None
    dtype: str
    compiled: bool = False
    median_ms: Positive
    low_ms: Positive
    high_ms: Positive
    rounds: int = 1
    memory: int | None = None
    drift: float = 0.0
    date: str = ""
    fingerprint: dict[str, str | int] = {}

    def load(self) -> Spec:
        """The spec that was measured."""
        return _spec(self.spec)

    def line(self) -> str:
        return self.model_dump_json(by_alias=True)


@cache
def _spec(text: str) -> Spec:
    return loads(text)


def measure(
    workloads: Sequence[Workload], clock: Clock, *, rounds: int = 1, budget: float = 0.5, compiled: bool = False,
    fingerprint: dict[str, Any] | None = None, model: Any = None,
) -> list[Truth]:  # fmt: skip
    """Times workloads in turn, in another order each round, so that a slow moment falls on all alike.

    Args:
        budget: seconds for each in each round.
        model: one that all of them run, built before.

    Errors:
        SpecError: one of them cannot be run so.
    """
    device = str(clock.device)
    runs = [workload.ready(device, compiled=compiled, model=model) for workload in workloads]
    taken: list[list[Timed]] = [[] for _ in runs]
    order = random.Random(0)
    for _ in range(rounds):
        for number in order.sample(range(len(runs)), len(runs)):
            taken[number].append(clock.time(runs[number], budget=budget, least=3))
    date = datetime.now(UTC).isoformat(timespec="seconds")
    found = []
    for workload, run, timed in zip(workloads, runs, taken, strict=True):
        medians = [1e3 * clock.corrected(one) for one in timed]
        low, high = 1e3 * min(one.low for one in timed), 1e3 * max(one.high for one in timed)
        middle = statistics.median(medians)
        found.append(
            Truth(
                name=workload.spec.name, spec=text_of(workload.spec), phase=workload.phase, batch=workload.batch,
                length=workload.length, dtype=workload.dtype, compiled=compiled, median_ms=middle,
                low_ms=min(low, middle), high_ms=max(high, middle), rounds=rounds,
                memory=peak_memory(run, device) if clock.cuda else None, drift=round(clock.drift, 4), date=date,
                fingerprint=fingerprint or {},
            )
        )  # fmt: skip
    return found


def text_of(spec: Spec) -> str:
    """The canonical form of a spec, from which it can be read again."""
    return canonical.text(spec.canonical())


def append(file: Path, truths: Iterable[Truth]) -> None:
    """Adds measurements to a file; one that cannot be written whole is not written."""
    lines = "".join(truth.line() + "\n" for truth in truths)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(lines)
    except OSError as error:
        raise SpecError(Problem(f"{file} cannot be written: {error.strerror}")) from None


def read(file: Path) -> Iterator[Truth]:
    """The measurements of a file.

    Errors:
        SpecError: there is no such file, or a line is no measurement of this version.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(Problem(f"{file} cannot be read: {error}", "archc measure SPEC makes one")) from None
    for number, line in enumerate(lines, 1):
        try:
            content = json.loads(line)
            version = content.get("schema") if isinstance(content, dict) else None
            if version != SCHEMA:
                cause = f"{file}:{number} is of version {version}; this program reads {SCHEMA}"
                raise SpecError(Problem(cause, "measure again"))
            yield Truth.model_validate(content)
        except (ValueError, ValidationError) as error:
            detail = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error), "loc": ()}
            where = ".".join(map(str, detail["loc"]))
            raise SpecError(Problem(f"{file}:{number} {where}: {detail['msg']}", "measure again")) from None
