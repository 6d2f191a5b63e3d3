"""A device that is elsewhere, known by a table of latencies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from archspec.errors import SpecError
from search.calibration.check import check
from search.calibration.elsewhere import COLUMNS, fit, read
from search.cost import devices
from search.cost.devices import Device, Level
from tests.search.calibration.test_fitting import truths

SPEC = """\
archspec: 1
name: small
interface: {kind: causal_lm, vocab: 256, length: 64}
graph: [{kind: token_embedding, width: 32}, rms_norm, lm_head]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "small.yaml").write_text(SPEC)
    (tmp_path / "models" / "broken.yaml").write_text(SPEC.replace("rms_norm", "rms_nrm"))
    image = "{kind: image_classification, image: [8, 8, 1], classes: 4}"
    graph = "[{kind: patch_embedding, size: 4, width: 8}, {kind: pool, how: mean}, classifier]"
    (tmp_path / "models" / "image.yaml").write_text(f"archspec: 1\ninterface: {image}\ngraph: {graph}\n")
    return tmp_path


def problems(folder: Path, text: str) -> list[str]:
    """What is told of a file, a line each: the place, the column, the cause and the hint."""
    (folder / "t.csv").write_text(text)
    with pytest.raises(SpecError) as caught:
        read(folder / "t.csv")
    found = []
    for cause, hint, path, mark in caught.value.problems:
        place = f"{Path(mark.file).name}:{mark.line}:{mark.column}" if mark else ""
        found.append(" ".join(part for part in (place, path, cause, hint) if part))
    return found


def test_a_table_is_read(folder: Path) -> None:
    table = "spec,phase,batch,length,dtype,latency_ms\nmodels/small.yaml,decode,4,32,bfloat16,1.5\n\n"
    (folder / "t.csv").write_text(table + " models/small.yaml ,,,,, 2e0\n")
    one, two = read(folder / "t.csv")
    assert (one.name, one.phase, one.batch, one.length, one.dtype, one.median_ms) == (
        "small", "decode", 4, 32, "bfloat16", 1.5,
    )  # fmt: skip
    assert (two.phase, two.batch, two.length, two.dtype, two.median_ms) == ("prefill", 1, None, "float32", 2.0)
    (folder / "t.csv").write_text("latency_ms,spec\n3,models/image.yaml\n")
    assert read(folder / "t.csv")[0].median_ms == 3.0


HEAD = ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["t.csv:1:1 the file is empty start with spec,phase,batch,length,dtype,latency_ms"]),
        ("spec,latency\n", ["t.csv:1:6 there is no column 'latency' did you mean latency_ms?",
                            "t.csv:1:1 the column latency_ms is missing"]),
        ("phase\n", ["t.csv:1:1 the column spec and latency_ms is missing"]),
        ("spec,spec,latency_ms\n", ["t.csv:1:6 the column spec stands twice"]),
        (HEAD, ["t.csv:1:1 the file has no measurement a line for each, below the header"]),
        ("spec,latency_ms\nmodels/small.yaml\n", ["t.csv:2:1 1 cells under 2 columns"]),
        ('spec,latency_ms\n"a\n', ["t.csv:1:1 not CSV: unexpected end of data"]),
        ("spec,latency_ms\nmodels/small.yaml,-1\nmodels/small.yaml,0\nmodels/small.yaml,fast\n"
         "models/small.yaml,nan\nmodels/small.yaml,\n",
         ["t.csv:2:19 latency_ms -1 ms: a latency is more than 0",
          "t.csv:3:19 latency_ms 0 ms: a latency is more than 0",
          "t.csv:4:19 latency_ms 'fast' is no number of milliseconds",
          "t.csv:5:19 latency_ms nan ms: a latency is more than 0", "t.csv:6:19 latency_ms the latency is missing"]),
        (HEAD + "models/small.yaml,prefil,0,x,float31,1\n",
         ["t.csv:2:19 phase there is no phase 'prefil' did you mean prefill?",
          "t.csv:2:26 batch '0' is no number of samples", "t.csv:2:28 length 'x' is no number of tokens",
          "t.csv:2:30 dtype there is no dtype 'float31' did you mean float32 or float16?"]),
        ("spec,length,latency_ms\nmodels/small.yaml,65,1\n",
         ["t.csv:2:1 interface 65 tokens; the interface allows 1 to 64"]),
    ],
)  # fmt: skip
def test_wrong_tables(folder: Path, text: str, expected: list[str]) -> None:
    assert problems(folder, text) == expected


def test_specs_that_are_none(folder: Path) -> None:
    text = "spec,phase,latency_ms\nmodels/no.yaml,,1\nmodels/broken.yaml,,1\n,,1\nmodels/image.yaml,decode,1\n"
    missing, broken, empty, image = problems(folder, text)
    assert missing.startswith("t.csv:2:1 spec models/no.yaml is refused") and "no such file" in missing
    assert "t.csv:3:1 spec models/broken.yaml is refused at" in broken and "broken.yaml:4" in broken
    assert "'rms_nrm'" in broken and "did you mean rms_norm?" in broken
    assert "t.csv:4:1 spec the spec is missing" in empty
    assert image.startswith("t.csv:5:1")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        read(tmp_path / "no.csv")
    (tmp_path / "t.csv").write_bytes(b"\xff\xff")
    with pytest.raises(SpecError, match="is no text"):
        read(tmp_path / "t.csv")


BASE = devices.load("xeon_8480")
KNOWN = Device(
    title="elsewhere", kind="cpu", units=4, peak={"float32": BASE.peak["float32"] / 20},
    memory=tuple(Level(name=one.name, size=one.size, bandwidth=one.bandwidth / 8) for one in BASE.memory),
    overhead=4 * BASE.overhead, sources=("made up",),
)  # fmt: skip


@pytest.mark.parametrize(("count", "error"), [(10, 0.02), (1, 0.6)])
def test_latencies_of_a_known_device_bring_it_back(count: int, error: float) -> None:
    some = truths(KNOWN, "float32", lengths=(32, 128, 512))
    some = [some[number] for number in np.random.default_rng(0).permutation(len(some))]
    found = fit(some[:count], BASE, "a test")
    alone = np.mean([abs(one.error) for one in check(some[count:], BASE)])
    fitted = check(some[count:], found)
    assert alone > 0.7
    assert np.mean([abs(one.error) for one in fitted]) < error
    assert Device.model_validate_json(found.model_dump_json(exclude_none=True)) == found
    assert found.sources[-1].endswith(f"to {count} measurements of a test")


def test_a_dtype_that_the_base_does_not_know() -> None:
    with pytest.raises(SpecError, match="states no peak for bfloat16"):
        fit(truths(BASE, "bfloat16")[:2], KNOWN, "a test")
