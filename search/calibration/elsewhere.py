"""A device that is elsewhere: its profile is fitted to latencies that somebody measured there, perhaps of ten specs.

The measurements are a CSV file with a header; a spec is a path, seen from the file's own folder::

    spec,phase,batch,length,dtype,latency_ms
    models/small.yaml,prefill,8,512,bfloat16,3.25

Only ``spec`` and ``latency_ms`` are needed: the others are prefill, 1, the longest that the interface allows, and
float32. The length of a decoded token is that of what comes before it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from archspec.errors import Mark, Problem, SpecError, did_you_mean
from archspec.spec import Spec, load
from search.calibration.fitting import fitted
from search.calibration.truth import Truth, text_of
from search.cost.devices import Device
from search.cost.measured import Measured
from search.cost.setting import DTYPES, PHASES

COLUMNS = ("spec", "phase", "batch", "length", "dtype", "latency_ms")
NEEDED = ("spec", "latency_ms")


class Refusal(ValueError):
    """A cell is wrong: what with it, and a way out."""

    def __init__(self, cause: str, hint: str | None = None) -> None:
        super().__init__(cause)
        self.hint = hint


class _Line(NamedTuple):
    number: int
    cells: Mapping[str, str]
    columns: Mapping[str, int]  # where each cell starts, counted from 1


def read(file: Path) -> list[Truth]:
    """The measurements of a CSV file.

    Errors:
        SpecError: all that is wrong with it.
    """
    found: list[Truth] = []
    problems: list[Problem] = []
    specs: dict[str, Spec | Refusal] = {}
    for line in _lines(file):
        row: dict[str, Any] = {}
        for name in COLUMNS:
            try:
                row[name] = _cell(name, line.cells.get(name, "").strip(), file.parent, specs)
            except Refusal as error:
                mark = Mark(str(file), line.number, line.columns.get(name, 1))
                problems.append(Problem(str(error), error.hint, name, mark))
        if len(row) == len(COLUMNS):
            spec: Spec = row["spec"]
            latency = row["latency_ms"]
            truth = Truth(
                name=spec.name, spec=text_of(spec), phase=row["phase"], batch=row["batch"], length=row["length"],
                dtype=row["dtype"], median_ms=latency, low_ms=latency, high_ms=latency,
            )  # fmt: skip
            found.append(truth)
            problems += [problem._replace(mark=Mark(str(file), line.number, 1)) for problem in _unpriced(truth)]
    if problems:
        raise SpecError(*problems)
    if not found:
        raise SpecError(Problem("the file has no measurement", "a line for each, below the header", mark=_top(file)))
    return found


def _lines(file: Path) -> Iterator[_Line]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SpecError(Problem(f"{file} is no text")) from None
    except OSError as error:
        raise SpecError(Problem(f"{file} cannot be read: {error.strerror}")) from None
    try:
        rows = list(_rows(text))
    except csv.Error as error:
        raise SpecError(Problem(f"not CSV: {error}", mark=_top(file))) from None
    if not rows:
        raise SpecError(Problem("the file is empty", f"start with {','.join(COLUMNS)}", mark=_top(file)))
    (_, heads), *rest = rows
    names = [name.strip() for name in heads]
    marks = [Mark(str(file), 1, column) for column in _places(heads)]
    problems = [
        Problem(f"there is no column {name!r}", did_you_mean(name, COLUMNS), mark=mark)
        for name, mark in zip(names, marks, strict=True)
        if name not in COLUMNS
    ]
    problems += [
        Problem(f"the column {name} stands twice", mark=mark)
        for place, (name, mark) in enumerate(zip(names, marks, strict=True))
        if name in names[:place]
    ]
    missing = [name for name in NEEDED if name not in names]
    if missing:
        problems.append(Problem(f"the column {' and '.join(missing)} is missing", None, mark=_top(file)))
    wrong = [(number, row) for number, row in rest if len(row) != len(names)]
    for number, row in wrong:
        cause = f"{len(row)} cells under {len(names)} columns"
        problems.append(Problem(cause, None, mark=Mark(str(file), number, 1)))
    if problems:
        raise SpecError(*problems)
    for number, row in rest:
        yield _Line(number, dict(zip(names, row, strict=True)), dict(zip(names, _places(row), strict=True)))


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not empty, with their numbers."""
    reader = csv.reader(text.splitlines(), strict=True)
    for row in reader:
        if any(cell.strip() for cell in row):
            yield reader.line_num, row


def _places(row: Sequence[str]) -> list[int]:
    """Where cells start on their line; exactly where none is quoted."""
    return [1 + sum(len(cell) + 1 for cell in row[:place]) for place in range(len(row))]


def _top(file: Path) -> Mark:
    return Mark(str(file), 1, 1)


def _cell(name: str, text: str, folder: Path, specs: dict[str, Spec | Refusal]) -> Any:
    if name == "spec":
        if text not in specs:
            specs[text] = _spec(text, folder)
        found = specs[text]
        if isinstance(found, Refusal):
            raise found
        return found
    if name == "phase":
        return _one_of(text or PHASES[0], PHASES, "phase")
    if name == "dtype":
        return _one_of(text or "float32", DTYPES, "dtype")
    if name == "latency_ms":
        return _milliseconds(text)
    if not text:
        return 1 if name == "batch" else None
    if not text.isdecimal() or (name == "batch" and int(text) == 0):
        raise Refusal(f"{text!r} is no number of {'samples' if name == 'batch' else 'tokens'}")
    return int(text)


def _one_of(text: str, known: Sequence[str] | Mapping[str, Any], what: str) -> str:
    if text not in known:
        raise Refusal(f"there is no {what} {text!r}", did_you_mean(text, known))
    return text


def _milliseconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        raise Refusal(f"{text!r} is no number of milliseconds" if text else "the latency is missing") from None
    if not isfinite(found) or found <= 0:
        raise Refusal(f"{text} ms: a latency is more than 0")
    return found


def _spec(text: str, folder: Path) -> Spec | Refusal:
    if not text:
        return Refusal("the spec is missing", "write its path, seen from the folder of this file")
    try:
        return load(folder / text)
    except SpecError as error:
        first = error.problems[0]
        where = f" at {first.mark}" if first.mark else ""
        return Refusal(f"{text} is refused{where}: {first.cause}", first.hint)


def _unpriced(truth: Truth) -> Sequence[Problem]:
    """Why what was measured cannot be run so: too long, or nothing to decode."""
    from search.cost.price import known_context, resolve_lengths

    spec, decoding = truth.load(), truth.phase == "decode"
    try:
        lengths = resolve_lengths(spec, None if decoding else truth.length)
        if decoding:
            known_context(spec, lengths, truth.length)
    except SpecError as error:
        return error.problems
    return ()


def fit(truths: Sequence[Truth], base: Device, source: str) -> Device:
    """The profile of a device, fitted phase by phase to what was measured there.

    Args:
        base: the profile that is nearest.
        source: where the measurements come from.

    Errors:
        SpecError: the base states no peak for a dtype that was measured.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    before = base.measured or Measured()
    phases = [phase for phase in PHASES if any(truth.phase == phase for truth in truths)]
    whole = {phase: fitted([truth for truth in truths if truth.phase == phase], base) for phase in phases}
    measured = before.model_copy(update={"whole": before.whole | whole, "date": now, "fingerprint": {}})
    said = f"fitted {now} to {len(truths)} measurements of {source}"
    title = f"{base.title}, fitted"
    return base.model_copy(update={"title": title, "measured": measured, "sources": (*base.sources, said)})
