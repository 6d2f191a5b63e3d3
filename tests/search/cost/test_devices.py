"""Device profiles: plausible numbers, and errors with a place."""

from __future__ import annotations

from pathlib import Path

import pytest

from archspec import source
from archspec.errors import SpecError
from search.cost import devices

PUBLISHED = [name for name in devices.names() if name != devices.LOCAL]


def test_the_devices_of_the_documentation_are_there() -> None:
    expected = {"a100_40gb", "a100_80gb", "h100_sxm", "h100_pcie", "h200", "l4", "rtx_4090", "t4", "local"}
    assert expected <= set(devices.names())


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_are_plausible(name: str) -> None:
    """A slipped power of ten, a sparse peak or a swapped column does not pass."""
    device = devices.load(name)
    peak = {str(dtype): value for dtype, value in device.peak.items()}
    assert 1e11 <= peak["float32"] <= 1e14
    assert 1.9 <= peak["int8"] / max(peak.get("bfloat16", 0), peak.get("float16", 0)) <= 4.1
    for narrow in {"bfloat16", "float16"} & peak.keys():
        assert 1.9 <= peak[narrow] / peak["float32"] <= 16.5
    if "float64" in peak:
        assert peak["float64"] == pytest.approx(peak["float32"] / 2, rel=0.01)
    main = device.memory[-1]
    assert 1e9 <= main.size <= 1e12
    assert 2 <= peak["float32"] / main.bandwidth <= 120  # FLOPs for each byte of main memory
    assert all(
        near.bandwidth <= 20 * far.bandwidth for near, far in zip(device.memory, device.memory[1:], strict=False)
    )
    assert 1e-7 <= device.overhead <= 1e-4
    assert device.power is not None
    assert 1e9 <= peak["float32"] / device.power.full <= 1e12
    assert len(device.sources) >= 2


def test_relations_between_devices() -> None:
    l4, t4, h100, h200 = (devices.load(name) for name in ("l4", "t4", "h100_sxm", "h200"))
    assert h200.peak == h100.peak
    assert h200.memory[-1].bandwidth > h100.memory[-1].bandwidth > 10 * l4.memory[-1].bandwidth
    assert l4.memory[-1].bandwidth == pytest.approx(t4.memory[-1].bandwidth, rel=0.1)


def test_bandwidth_is_that_of_the_nearest_level_that_holds_it() -> None:
    device = devices.load("a100_80gb")
    cache, memory = device.memory
    assert device.bandwidth(cache.size) == cache.bandwidth
    assert device.bandwidth(cache.size + 1) == memory.bandwidth
    assert device.bandwidth(10 * memory.size) == memory.bandwidth


def test_unknown_device() -> None:
    with pytest.raises(SpecError, match="there is no device 'h100_smx'\n  did you mean h100_sxm"):
        devices.load("h100_smx")


def test_unknown_dtype() -> None:
    with pytest.raises(SpecError, match=r"NVIDIA T4 states no peak for bfloat16\n  it states float32, float16, int8"):
        devices.load("t4").peak_flops("bfloat16")


def test_a_users_file_and_its_errors(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    good = "title: mine\npeak: {float32: 1e12}\nmemory:\n  - {name: RAM, size: 8e9, bandwidth: 50e9}\n"
    good += "kind: cpu\nunits: 4\nlinks:\n  - {name: Ethernet, bandwidth: 125e6, latency: 1e-4}\n"
    file.write_text(good + "overhead: 1e-6\nsources: [measured]\n")
    assert devices.load(str(file)).peak_flops("float32") == 1e12
    file.write_text(good.replace(" 8e9", " -8e9") + "overheads: 1e-6\nsources: [measured]\n")
    with pytest.raises(SpecError) as caught:
        devices.load(str(file))
    text = str(caught.value)
    assert f"{file}:4:23  memory.0.size" in text
    assert "  overheads\n  there is no field overheads\n  did you mean overhead?" in text
    assert "  overhead\n  the field overhead is missing" in text
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("empty", ["memory: []", "sources: []", "peak: {}"])
def test_an_empty_profile(empty: str) -> None:
    fields = {
        "title": "mine",
        "kind": "cpu",
        "units": "4",
        "peak": "{float32: 1}",
        "memory": "[{name: RAM, size: 1, bandwidth: 1}]",
    }
    fields |= {"overhead": "0", "sources": "[measured]"}
    name, value = empty.split(": ")
    text = "\n".join(f"{key}: {entry}" for key, entry in (fields | {name: value}).items())
    with pytest.raises(SpecError, match="must not be empty"):
        devices.from_tree(source.parse(text))


def test_levels_out_of_order(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "title: mine\nkind: cpu\nunits: 4\npeak: {float32: 1e12}\noverhead: 0\nsources: [measured]\nmemory:\n"
        "  - {name: RAM, size: 8e9, bandwidth: 50e9}\n  - {name: L2, size: 8e6, bandwidth: 500e9}\n"
    )
    with pytest.raises(SpecError, match="RAM must be smaller and faster than L2"):
        devices.load(str(file))
