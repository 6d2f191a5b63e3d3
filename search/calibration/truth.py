"""Measured latencies, kept as truth: what predictions are held against.

A truth is a line of JSON: the spec itself, the phase and its sizes, the median and the quartiles, the peak of memory,
and the fingerprint of the device and the versions that ran it.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from errno import ENOSPC
from functools import cache
from os import strerror
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from archspec import canonical
from archspec.errors import Mark, Problem, SpecError
from archspec.spec import Spec, loads
from search.calibration.clock import Clock, Timed
from search.calibration.workload import Workload, peak_memory
from search.cost import local
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
        memory: bytes at most, those of the clock left out.
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
    fingerprint: dict[str, Any] | None = None, model: Any = None, progress: Callable[[float, str], None] | None = None,
) -> list[Truth]:  # fmt: skip
    """Times workloads in turn, in another order each round, so that a slow moment falls on all alike.

    Args:
        budget: seconds for each in each round.
        model: one that all of them run, built before.
        progress: told the share that is done and what comes next.

    Errors:
        SpecError: one of them cannot be run so.
    """
    device = str(clock.device)
    runs = [workload.ready(device, compiled=compiled, model=model) for workload in workloads]
    taken: list[list[Timed]] = [[] for _ in runs]
    order = random.Random(0)
    turns = [number for _ in range(rounds) for number in order.sample(range(len(runs)), len(runs))]
    for done, number in enumerate(turns):
        if progress is not None:
            progress(done / len(turns), f"round {done // len(runs) + 1} of {rounds}")
        taken[number].append(clock.time(runs[number], budget=budget, least=3, warm=1))
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
                memory=(peak_memory(run, device) or 0) - clock.bytes if clock.cuda else None,
                drift=round(clock.drift, 4), date=date,
                fingerprint=fingerprint or {},
            )
        )  # fmt: skip
    return found


def text_of(spec: Spec) -> str:
    """The canonical form of a spec, from which it can be read again."""
    return canonical.text(spec.canonical())


def file_of(device: str = "cpu") -> Path:
    """Where the measurements of a device of this computer are kept."""
    profile = local.file_of(device)
    return profile.with_name(profile.stem.replace("local", "truth") + ".jsonl")


def append(file: Path, truths: Iterable[Truth]) -> None:
    """Adds measurements to a file: all of them or none.

    Errors:
        SpecError: it cannot be written.
    """
    lines = "".join(truth.line() + "\n" for truth in truths).encode()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab", buffering=0) as stream:
            before = stream.tell()
            try:
                if stream.write(lines) != len(lines):
                    raise OSError(ENOSPC, strerror(ENOSPC))
            except OSError:
                with suppress(OSError):
                    stream.truncate(before)
                raise
    except OSError as error:
        raise SpecError(Problem(f"{file} cannot be written: {error.strerror}", "name another file")) from None


def read(file: Path) -> list[Truth]:
    """The measurements of a file.

    Errors:
        SpecError: there is no such file, or all lines that are no measurement of this version.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise SpecError(Problem(f"{file} is no text", "archc measure SPEC makes one")) from None
    except OSError as error:
        raise SpecError(Problem(f"{file} cannot be read: {error.strerror}", "archc measure SPEC makes one")) from None
    found, problems = [], []
    for number, line in enumerate(lines, 1):
        try:
            found.append(_of_line(line))
        except ValueError as error:
            problems.append(Problem(str(error), "measure again", mark=Mark(str(file), number, 1)))
    if problems:
        raise SpecError(*problems)
    if not found:
        raise SpecError(Problem(f"{file} is empty", "archc measure SPEC adds measurements"))
    return found


def _of_line(line: str) -> Truth:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise ValueError(f"the line is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError("the line is no JSON object")
    if content.get("schema") != SCHEMA:
        raise ValueError(f"a measurement of version {content.get('schema')}; this program reads {SCHEMA}")
    try:
        return Truth.model_validate(content)
    except ValidationError as error:
        detail = error.errors()[0]
        raise ValueError(
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"
        ) from None
