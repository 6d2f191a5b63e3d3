"""Measurements on disk: read as they were written, and refused by line when they are none."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from archspec.errors import SpecError
from search.calibration.clock import Clock
from search.calibration.references import reference
from search.calibration.truth import Truth, append, file_of, measure, read, text_of
from search.calibration.workload import Workload
from search.cost import local

SPEC = reference("decoder", (("heads", 2), ("layers", 1), ("width", 64)))


def truth(**fields: object) -> Truth:
    about = {"name": "made up", "spec": text_of(SPEC), "phase": "prefill", "batch": 1, "dtype": "float32"}
    return Truth.model_validate(about | {"median_ms": 2.0, "low_ms": 1.0, "high_ms": 3.0} | fields)


def test_what_was_measured_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "new" / "truth.jsonl"
    workloads = [Workload(SPEC, "prefill", 2, 16), Workload(SPEC, "decode", 1, 8)]
    found = measure(workloads, Clock(), rounds=2, budget=0.01, fingerprint={"device": "here", "threads": 1})
    append(file, found[:1])
    append(file, found[1:])
    assert read(file) == found
    prefill, decode = found
    assert (prefill.phase, prefill.batch, prefill.length, prefill.rounds) == ("prefill", 2, 16, 2)
    assert (decode.phase, decode.length, decode.fingerprint) == ("decode", 8, {"device": "here", "threads": 1})
    assert 0 < prefill.low_ms <= prefill.median_ms <= prefill.high_ms < 1e4
    assert prefill.load().structure == SPEC.structure


def line(**fields: object) -> str:
    return json.dumps(json.loads(truth().line()) | fields)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ("{}", "version None; this program reads 1"),
        (line(schema=9), "version 9; this program reads 1"),
        (line(median_ms=-1.0), "median_ms: input should be greater than 0"),
        (line(median_ms="x"), "median_ms: input should be a valid number"),
        (line(phase="prefil"), "phase: input should be 'prefill', 'decode' or 'step'"),
        (line(colour=1), "colour: extra inputs are not permitted"),
    ],
)
def test_a_line_that_is_no_measurement(tmp_path: Path, text: str, cause: str) -> None:
    file = tmp_path / "truth.jsonl"
    file.write_text(f"{line()}\n{text}\n{line()}\n{text}\n")
    with pytest.raises(SpecError) as caught:
        read(file)
    assert [(problem.mark.line, problem.mark.file) for problem in caught.value.problems if problem.mark] == [
        (2, str(file)), (4, str(file)),
    ]  # fmt: skip
    assert all(cause in problem.cause for problem in caught.value.problems)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no.jsonl cannot be read: No such file"):
        read(tmp_path / "no.jsonl")
    (tmp_path / "empty").touch()
    with pytest.raises(SpecError, match="empty is empty"):
        read(tmp_path / "empty")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="is no text"):
        read(tmp_path / "binary")


def test_all_is_written_or_nothing(tmp_path: Path) -> None:
    file = tmp_path / "truth.jsonl"
    append(file, [truth()])
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(SpecError, match="cannot be written: (No space|File too large)"):
            append(file, [truth()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == before
    with pytest.raises(SpecError, match="cannot be written: Not a directory|File exists"):
        append(file / "below", [truth()])


def test_truth_lies_beside_the_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert file_of("cpu").parent == local.file_of("cpu").parent
    assert file_of("cpu").name.startswith("truth-") and file_of("cpu") != local.file_of("cpu")
