"""Device profiles: plausible numbers, and errors with a place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from archspec import source
from archspec.errors import SpecError
from search.cost import devices

PUBLISHED = [name for name in devices.names() if name not in (devices.LOCAL, devices.CUDA)]

ARITHMETIC: dict[str, tuple[float, dict[str, int]]] = {  # GHz; FLOPs of one unit in one cycle, dense
    "p100": (1.48, {"float64": 64, "float32": 128, "float16": 128}),
    "v100": (1.53, {"float64": 64, "float32": 128, "float16": 1024}),
    "t4": (1.59, {"float32": 128, "float16": 1024, "int8": 2048}),
    "rtx_2080_ti": (1.545, {"float32": 128, "float16": 512, "int8": 2048}),
    "a100_40gb": (1.41, {"float64": 128, "float32": 128, "bfloat16": 2048, "float16": 2048, "int8": 4096}),
    "a100_80gb": (1.41, {"float64": 128, "float32": 128, "bfloat16": 2048, "float16": 2048, "int8": 4096}),
    "a10": (1.695, {"float32": 256, "bfloat16": 1024, "float16": 1024, "int8": 2048}),
    "a40": (1.74, {"float32": 256, "bfloat16": 1024, "float16": 1024, "int8": 2048}),
    "rtx_a6000": (1.8, {"float32": 256, "bfloat16": 1024, "float16": 1024, "int8": 2048}),
    "rtx_3080": (1.71, {"float32": 256, "bfloat16": 512, "float16": 512, "int8": 2048}),
    "rtx_4090": (2.52, {"float32": 256, "bfloat16": 512, "float16": 512, "float8_e4m3fn": 1024, "int8": 2048}),
    "l4": (2.04, {"float32": 256, "bfloat16": 1024, "float16": 1024, "float8_e4m3fn": 2048, "int8": 2048}),
    "h100_pcie": (1.69, HOPPER := {"float64": 256, "float32": 256, "bfloat16": 4096, "float16": 4096,
                                   "float8_e4m3fn": 8192, "int8": 8192}),
    "h100_sxm": (1.9, HOPPER),
    "h200": (1.9, HOPPER),
    "b200": (1.93, {"float64": 128, "float32": 256, "bfloat16": 8192, "float16": 8192, "float8_e4m3fn": 16384,
                    "int8": 16384}),
    "mi300x": (2.1, {"float64": 256, "float32": 256, "bfloat16": 2048, "float16": 2048, "int8": 4096}),
    "tpu_v5e": (1.5, {"float32": 131072 // 6, "bfloat16": 131072, "int8": 262144}),  # four arrays of 128 × 128
    "epyc_9654": (2.4, {"float64": 16, "float32": 32, "bfloat16": 64, "int8": 128}),
    "xeon_gold_6240": (2.6, {"float64": 32, "float32": 64, "int8": 256}),
    "xeon_8480": (2.0, {"float64": 32, "float32": 64, "float16": 128, "bfloat16": 2048, "int8": 4096}),
    "graviton3": (2.6, {"float64": 16, "float32": 32, "float16": 64, "bfloat16": 128, "int8": 256}),
    "raspberry_pi_4": (1.5, {"float64": 4, "float32": 8}),
    "raspberry_pi_5": (2.4, {"float64": 8, "float32": 16, "float16": 32, "int8": 64}),
    "snapdragon_855": (2.525, {"float32": 16, "float16": 32, "int8": 64}),
}  # fmt: skip
MEASURED = {"m1"}  # its matrix coprocessor is not a core's

MEMORY_BUS = {  # bits, 10⁹ transfers/s
    "p100": (4096, 1.43), "v100": (4096, 1.75), "t4": (256, 10), "rtx_2080_ti": (352, 14),
    "a100_40gb": (5120, 2.43), "a100_80gb": (5120, 3.19), "a10": (384, 12.5), "a40": (384, 14.5),
    "rtx_a6000": (384, 16), "rtx_3080": (320, 19), "rtx_4090": (384, 21), "l4": (192, 12.5),
    "h100_pcie": (5120, 3.19), "h100_sxm": (5120, 5.23), "h200": (6144, 6.25), "b200": (8192, 8), "mi300x": (8192, 5.2),
    "tpu_v5e": (2048, 3.2), "epyc_9654": (768, 4.8), "xeon_gold_6240": (384, 2.933), "xeon_8480": (512, 4.8),
    "graviton3": (512, 4.8), "raspberry_pi_4": (32, 3.2), "raspberry_pi_5": (32, 4.267), "snapdragon_855": (64, 4.266),
    "m1": (128, 4.266),
}  # fmt: skip

LINKS = {  # ports, GB/s of each in one direction
    "p100": (4, 20), "v100": (6, 25), "rtx_2080_ti": (2, 25), "a100_40gb": (12, 25), "a100_80gb": (12, 25),
    "a40": (4, 14.06), "rtx_a6000": (4, 14.06), "h100_pcie": (12, 25), "h100_sxm": (18, 25), "h200": (18, 25),
    "b200": (18, 50), "mi300x": (7, 64), "tpu_v5e": (4, 50),
}  # fmt: skip
LANE = {"3": 0.985, "4": 1.969, "5": 3.938}  # GB/s of one PCIe lane in one direction


def test_the_devices_of_the_documentation_are_there() -> None:
    expected = {"p100", "v100", "t4", "a10", "l4", "a40", "a100_40gb", "a100_80gb", "rtx_2080_ti", "rtx_3080"}
    expected |= {"rtx_4090", "rtx_a6000", "h100_pcie", "h100_sxm", "h200", "b200", "mi300x", "tpu_v5e", "m1", "local"}
    expected |= {"epyc_9654", "xeon_gold_6240", "graviton3", "raspberry_pi_4", "raspberry_pi_5", "snapdragon_855"}
    assert expected <= set(devices.names())


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_are_plausible(name: str) -> None:
    """A slipped power of ten, a swapped column or a forgotten figure does not pass."""
    device = devices.load(name)
    least, most = {"cpu": (1, 256), "gpu": (20, 400), "tpu": (1, 8)}[device.kind]
    assert least <= device.units <= most
    peak = {str(dtype): value for dtype, value in device.peak.items()}
    assert 1e10 <= peak["float32"] <= 2e14
    main = device.memory[-1]
    assert 1e9 <= main.size <= 1e12
    assert 2 <= peak["float32"] / main.bandwidth <= 120  # FLOPs for each byte of main memory
    assert all(
        near.bandwidth <= 20 * far.bandwidth for near, far in zip(device.memory, device.memory[1:], strict=False)
    )
    assert 1e-7 <= device.overhead <= 1e-4
    assert device.power is not None or device.kind == "tpu"
    if device.power:
        assert 1e9 <= peak["float32"] / device.power.full <= 1e12
        assert 2 <= device.power.full / device.power.idle <= 25
    assert len(device.sources) >= 2


@pytest.mark.parametrize("name", sorted(set(PUBLISHED) - MEASURED))
def test_peaks_are_units_times_rate_times_clock(name: str) -> None:
    """A peak with sparsity, of TF32, of float16 accumulation or of another number of units does not pass."""
    clock, rates = ARITHMETIC[name]
    device = devices.load(name)
    assert {str(dtype): value / device.units for dtype, value in device.peak.items()} == {
        dtype: pytest.approx(rate * clock * 1e9, rel=0.06) for dtype, rate in rates.items()
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_memory_is_as_fast_as_its_bus(name: str) -> None:
    bits, transfers = MEMORY_BUS[name]
    assert devices.load(name).memory[-1].bandwidth == pytest.approx(bits / 8 * transfers * 1e9, rel=0.03)


@pytest.mark.parametrize("name", PUBLISHED)
def test_links_are_of_one_direction(name: str) -> None:
    """The sum of both directions, as datasheets like to give, does not pass."""
    device = devices.load(name)
    assert device.links or device.kind == "cpu"
    ports = [link for link in device.links if not link.name.startswith(("PCIe", "Gigabit"))]
    assert len(ports) == (name in LINKS)
    for link in device.links:
        assert 1e-7 <= link.latency <= 1e-3
        assert link.bandwidth < device.memory[-1].bandwidth
        if pcie := re.fullmatch(r"PCIe (\d)\.0 x(\d+)", link.name):
            assert link.bandwidth == pytest.approx(LANE[pcie[1]] * int(pcie[2]) * 1e9, rel=0.01)
        elif link.name == "Gigabit Ethernet":
            assert link.bandwidth == 1e9 / 8
        else:
            count, each = LINKS[name]
            assert link.bandwidth == pytest.approx(count * each * 1e9, rel=0.01)


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


def test_a_problem_for_each_wrong_figure() -> None:
    text = (
        "title: mine\nkind: npu\nunits: 1.5\npeak: {float32: .inf, float31: 1}\nmemory:\n  - {name: RAM, size: 8e9}\n"
        "overhead: -1\npower: {idle: 1, full: 0, fulll: 2}\n"
        "links:\n  - {name: NVLink, bandwidth: -1, latency: .nan, latencies: 2}\nsources: [measured]\n"
    )
    with pytest.raises(SpecError) as caught:
        devices.from_tree(source.parse(text, "mine.yaml"))
    assert {(problem.path, problem.mark.line) for problem in caught.value.problems if problem.mark} == {
        ("kind", 2), ("units", 3), ("peak.float32", 4), ("peak.float31", 4), ("memory.0.bandwidth", 6), ("overhead", 7),
        ("power.full", 8), ("power.fulll", 8), ("links.0.bandwidth", 10), ("links.0.latency", 10),
        ("links.0.latencies", 10),
    }  # fmt: skip
    assert len(caught.value.problems) == 11
    assert "links.0.latencies\n  there is no field latencies\n  did you mean latency?" in str(caught.value)
    assert "memory.0.bandwidth\n  the field bandwidth is missing" in str(caught.value)
    assert "power.fulll\n  there is no field fulll\n  did you mean full?" in str(caught.value)
