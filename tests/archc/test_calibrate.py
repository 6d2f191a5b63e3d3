"""``archc calibrate``: what it leaves, what it says, and what a failure leaves alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from search.calibration import calibrate
from search.calibration.references import reference
from search.calibration.truth import text_of
from search.cost import devices, local
from search.cost.measured import Measured
from search.cost.setting import known_device
from tests.archc.invoking import invoke
from tests.search.calibration.quick import quick


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    known_device.cache_clear()
    return tmp_path / "cache" / "archspec"


def one_line(output: str) -> str:
    """The cause of an only problem."""
    lines = output.strip().splitlines()
    assert len(lines) <= 3, output
    return " ".join(line.strip() for line in lines)


def test_this_computer(monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> None:
    quick(monkeypatch)
    out = tmp_path / "mine.json"
    result = invoke("calibrate", "-o", out)
    assert local.read() == devices.load(str(out)) == devices.load("local")
    assert local.read().measured is not None
    assert str(out) in result.stdout and str(local.file_of()) in result.stdout
    for word in ("float32", "GB/s", "canary", "prefill", "decode", "step", "mean error"):
        assert word in result.stdout
    stages = [line for line in result.stderr.splitlines() if "%" in line]
    assert stages[0].startswith("  0%") and stages[-1].startswith("100%")
    assert "\x1b" not in result.stderr  # no terminal, no bar
    spec = Path("examples/tiny.yaml").resolve()
    priced = json.loads(invoke("cost", spec, "--device", out, "--length", 16, "--json").stdout)
    assert priced["latency_ms"]["prefill"] > 0


def test_json_and_a_canary_that_moved(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    quick(monkeypatch)

    def shaken(base: devices.Device, *_: object, **__: object) -> devices.Device:
        return base.model_copy(update={"measured": Measured(drift=0.08, residual=0.01)})

    monkeypatch.setattr(calibrate, "calibrate", shaken)
    monkeypatch.setattr(calibrate, "STEADY", 0.05)
    result = invoke("calibrate", "--json")
    assert json.loads(result.stdout)["drift"] == 0.08
    assert result.stderr.strip().startswith("warning: the canary moved by 8.0%")


def kept_before(cache: Path) -> bytes:
    profile = devices.load("xeon_8480")
    return local.write(profile).read_bytes()


def test_a_loaded_machine_keeps_the_old_profile(monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> None:
    quick(monkeypatch, steady=-1.0)
    before = kept_before(cache)
    result = invoke("calibrate", "-o", tmp_path / "new.json", code=2)
    assert "too loaded to be trusted" in result.stderr and "old profile is kept" in result.stderr
    assert local.file_of().read_bytes() == before
    assert not (tmp_path / "new.json").exists()


def test_ctrl_c_keeps_the_old_profile(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    quick(monkeypatch)
    before = kept_before(cache)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(calibrate, "calibrate", interrupted)
    result = invoke("calibrate", code=130)
    assert result.stderr.splitlines()[-1] == "interrupted; the old profile is kept"
    assert local.file_of().read_bytes() == before
    assert [file.name for file in cache.iterdir()] == [local.file_of().name]


def test_a_full_disk_keeps_the_old_profile(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    quick(monkeypatch)
    before = kept_before(cache)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(calibrate, "calibrate", lambda base, *_, **__: base.model_copy(
        update={"measured": Measured()}))  # fmt: skip
    monkeypatch.setattr("search.cost.local.json.dump", full)
    result = invoke("calibrate", code=2)
    assert "cannot be written: No space left on device" in result.stderr
    assert local.file_of().read_bytes() == before
    assert [file.name for file in cache.iterdir()] == [local.file_of().name]


def test_folders_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> None:
    """Told before anything is measured."""
    (tmp_path / "file").touch()
    assert "cannot be written" in one_line(invoke("calibrate", "-o", tmp_path / "file" / "a.json", code=2).stderr)
    (tmp_path / "a.json").mkdir()
    assert "it is a folder" in one_line(invoke("calibrate", "-o", tmp_path / "a.json", code=2).stderr)
    assert "ends in .json" in one_line(invoke("calibrate", "-o", tmp_path / "a.yaml", code=2).stderr)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "cannot be written" in one_line(invoke("calibrate", code=2).stderr)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there(cache: Path) -> None:
    for command in (("calibrate",), ("measure", "examples/tiny.yaml")):
        said = one_line(invoke(*command, "--device", "cuda", code=2).stderr)
        assert said == "this computer has no CUDA device that torch can use try --device cpu"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Ten made-up latencies."""
    lines = ["spec,length,latency_ms"]
    for number, layers in enumerate(range(1, 11)):
        spec = reference("decoder", (("heads", 2), ("layers", layers), ("width", 128)))
        (tmp_path / f"{number}.yaml").write_text(text_of(spec))
        lines.append(f"{number}.yaml,64,{1 + 2 * layers}")
    file = tmp_path / "phone.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_device_that_is_elsewhere(table: Path, tmp_path: Path, cache: Path) -> None:
    out = tmp_path / "out.json"
    result = invoke("calibrate", "--from", table, "--base", "snapdragon_855", "-o", out)
    assert result.stderr == ""
    assert "10 measurements" in result.stdout and f"archc cost SPEC --device {out}" in result.stdout
    priced = invoke("cost", tmp_path / "4.yaml", "--device", out, "--length", 64, "--json")
    assert json.loads(priced.stdout)["latency_ms"]["prefill"] == pytest.approx(11, rel=0.03)
    assert not cache.exists() or not list(cache.glob("local-*"))
    invoke("calibrate", "--from", table, "--base", "snapdragon_855")
    assert table.with_suffix(".json").read_text().count("\n") == out.read_text().count("\n")
    again = one_line(invoke("calibrate", "--from", table, "--base", "snapdragon_855", code=2).stderr)
    assert "phone.json is there already" in again and "-o" in again


@pytest.mark.parametrize(
    ("count", "said"), [(1, "1 measured spec tells one scale"), (4, "4 measured specs tell little")]
)
def test_few_are_warned_of(table: Path, tmp_path: Path, count: int, said: str) -> None:
    table.write_text("\n".join(table.read_text().splitlines()[: count + 1]) + "\n")
    result = invoke("calibrate", "--from", table, "--base", "snapdragon_855", "-o", tmp_path / "out.json")
    assert result.stderr.startswith(f"warning: {said}")


def test_what_is_wrong_is_told_at_once_and_nothing_written(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("old")
    table.write_text("spec,phase,latency_ms\n0.yaml,prefil,1\n9999.yaml,,1\n1.yaml,,-3\n")
    result = invoke("calibrate", "--from", table, "--base", "snapdragon_855", "-o", out, code=2)
    assert re.findall(r"phone\.csv:(\d+:\d+)  (\w+)", result.stderr) == [
        ("2:8", "phase"), ("3:1", "spec"), ("4:9", "latency_ms"),
    ]  # fmt: skip
    assert out.read_text() == "old"
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "t.csv"], "add --base PROFILE"),
        (["--base", "t4"], "--base is only for --from"),
        (["--from", "no.csv", "--base", "t4"], "no.csv cannot be read: No such file"),
        (["--from", "no.csv", "--base", "a100_40"], "a100_40gb"),
    ],
)
def test_options_that_do_not_fit(words: list[str], said: str) -> None:
    assert said in one_line(invoke("calibrate", *words, code=2).stderr)
