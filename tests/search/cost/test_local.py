"""The measured profile, its cache and its fingerprint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from search.cost import devices, local
from search.cost.devices import Device, Level

STAND_IN = Device(
    title="stand-in",
    kind="cpu",
    units=1,
    peak={"float32": 1e9},
    memory=(Level(name="memory", size=1e9, bandwidth=1e8),),
    overhead=1e-6,
    sources=("a test",),
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """An empty cache folder, and a count of the measurements."""
    calls: list[int] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(local, "measure", lambda device: calls.append(1) or STAND_IN)
    return calls


def test_measured_once(measured: list[int], tmp_path: Path) -> None:
    assert devices.load("local") == devices.load("local") == STAND_IN
    assert len(measured) == 1
    (file,) = (tmp_path / "archspec").iterdir()
    kept = json.loads(file.read_text())
    assert kept["fingerprint"]["torch"] == torch.__version__
    assert kept["date"].startswith("20")


def test_measured_again_for_another_fingerprint(measured: list[int]) -> None:
    local.load()
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        local.load()
        assert len(measured) == 2
    finally:
        torch.set_num_threads(threads)
    local.load()
    assert len(measured) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"fingerprint": 1}', '{"fingerprint": 1, "device": {}}'])
def test_a_broken_file_is_replaced(measured: list[int], tmp_path: Path, content: str) -> None:
    local.load()
    (file,) = (tmp_path / "archspec").iterdir()
    file.write_text(content)
    assert local.load() == STAND_IN
    assert len(measured) == 2
    assert json.loads(file.read_text())["device"]["title"] == "stand-in"


def test_a_cache_that_cannot_be_written(measured: list[int], tmp_path: Path) -> None:
    (tmp_path / "archspec").write_text("a file where the folder should be")
    assert local.load() == STAND_IN


def test_rates_of_this_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_PRODUCTS", (128, 256))
    monkeypatch.setattr(local, "_WORKING_SETS", (2**18, 2**22))
    monkeypatch.setattr(local, "_DTYPES", {"float32": torch.float32})
    device = local.measure()
    assert 1e8 < device.peak_flops("float32") < 1e14
    assert 1e8 < device.memory[-1].bandwidth <= device.memory[0].bandwidth < 1e13
    assert 1e-7 < device.overhead < 1e-3
