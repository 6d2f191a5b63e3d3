"""The device profiles ``local`` and ``cuda``: what torch reaches on this computer, measured in a few seconds.

Measured are the rate of matrix products per dtype (the best over sizes), the rate at which an addition streams through
working sets from cache size to memory size, and the time of a module's operator on next to no data. The result is kept
as JSON in the user's cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``, in ``archspec/``), one file for each device,
number of threads and version of torch, with its date. ``archc calibrate`` replaces it by a finer one.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from search.cost.devices import Device, Level
from search.cost.fingerprint import fingerprint
from search.cost.measured import DType

_DTYPES: dict[DType, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_PRODUCTS = (256, 512, 1024)
_WORKING_SETS = (2**18, 2**20, 2**22, 2**24, 2**26, 2**28)  # bytes, of three equal vectors together
_LARGE_PRODUCTS = (2048, 4096, 8192)
_LARGE_SETS = (2**22, 2**24, 2**26, 2**28, 2**30)
_SLOW = 0.03  # seconds: no larger product is tried after one that took so long


def load(device: str = "cpu") -> Device:
    """The profile of a device of this computer, measured unless it was before."""
    try:
        return read(device)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # never measured, or not by this version: measure
    profile = measure(device)
    with suppress(OSError):  # a cache folder that cannot be written only means measuring again
        write(profile, device)
    return profile


def read(device: str = "cpu") -> Device:
    """The profile that is kept of a device.

    Errors:
        OSError, ValueError, KeyError, TypeError: there is none.
    """
    mark = fingerprint(device)
    kept = json.loads(file_of(device).read_text(encoding="utf-8"))
    if kept["fingerprint"] != mark:
        raise ValueError("the profile is of another device")
    return Device.model_validate(kept["device"])


def canary(device: str = "cpu") -> float | None:
    """Seconds of the canary when a device of this computer was calibrated; None if it was not."""
    try:
        measured = read(device).measured
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return measured.canary or None if measured else None


def write(profile: Device, device: str = "cpu") -> Path:
    """Keeps a profile: the whole file or none of it.

    Errors:
        OSError: it cannot be written.
    """
    file = file_of(device)
    content = {"fingerprint": fingerprint(device), "date": _now(), "device": profile.model_dump(mode="json")}
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=file.parent, prefix=file.stem)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream)
        os.replace(draft, file)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    return file


def measure(device: str = "cpu") -> Device:
    """Measures a device of this computer, a CPU with as many threads as torch uses now; takes a few seconds."""
    cuda = torch.device(device).type == "cuda"
    products, sets = (_LARGE_PRODUCTS, _LARGE_SETS) if cuda else (_PRODUCTS, _WORKING_SETS)
    with torch.no_grad():
        peak = {name: _product_rate(dtype, device, products) for name, dtype in _DTYPES.items()}
        memory = _levels([(size, _stream_rate(size, device)) for size in sets], _memory(device))
        overhead = _operator_time(device)
    mark = fingerprint(device)
    threads = f", {torch.get_num_threads()} threads" * (not cuda)
    what = f"measured {_now()} with torch {torch.__version__}{threads}"
    units = torch.cuda.get_device_properties(device).multi_processor_count if cuda else torch.get_num_threads()
    return Device(
        title=f"{mark['device']}, this computer", kind="gpu" if cuda else "cpu", units=units, peak=peak, memory=memory,
        overhead=overhead, sources=(what,),
    )  # fmt: skip


def _product_rate(dtype: torch.dtype, device: str, sizes: Sequence[int]) -> float:
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        seconds = _fastest(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device, budget=0.15)  # type: ignore[misc]
        best = max(best, 2 * size**3 / seconds)
        if seconds > _SLOW:
            break
    return best


def _stream_rate(working_set: int, device: str) -> float:
    count = working_set // 3 // 4
    a, b, out = torch.ones(count, device=device), torch.ones(count, device=device), torch.empty(count, device=device)
    batch = 20 if torch.device(device).type == "cuda" else 1  # so that a GPU is not waited for each time
    return 3 * 4 * count / _fastest(lambda: torch.add(a, b, out=out), device, budget=0.15, batch=batch)


def _levels(rates: list[tuple[int, float]], whole: int) -> tuple[Level, ...]:
    """Working sets that stream alike are one level; a larger one is never called faster than a smaller one."""
    levels: list[Level] = []
    for size, rate in reversed(rates):  # from memory inwards: what a small set reaches, measured short, may be low
        if levels and rate < 1.2 * levels[0].bandwidth:
            continue
        levels.insert(0, Level(name=f"up to {size // 2**10} KiB", size=size, bandwidth=rate))
    last = levels.pop()
    return (*levels, Level(name="memory", size=max(whole, last.size), bandwidth=last.bandwidth))


def _operator_time(device: str) -> float:
    """Seconds of an operator that has next to nothing to do, with the module around it."""
    x = torch.ones(4, 8, device=device)
    modules = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)).to(device)
    return _fastest(lambda: modules(x), device, budget=0.1, batch=20) / len(modules)


def _fastest(run: Callable[[], Any], device: str, *, budget: float, batch: int = 1) -> float:
    """Seconds of the fastest of the runs that fit into a budget of seconds, at least three, after one to warm up."""
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else _nothing
    run()
    wait()
    best, until, done = float("inf"), time.perf_counter() + budget, 0
    while done < 3 or time.perf_counter() < until:
        start = time.perf_counter()
        for _ in range(batch):
            run()
        wait()
        best = min(best, (time.perf_counter() - start) / batch)
        done += 1
    return best


def _nothing() -> None:
    """What there is to wait for on a CPU."""


def _memory(device: str) -> int:
    if torch.device(device).type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def file_of(device: str = "cpu") -> Path:
    """Where the profile of a device of this computer is kept."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "archspec"
    digest = hashlib.sha256(json.dumps(fingerprint(device), sort_keys=True).encode()).hexdigest()
    return folder / f"local-{digest[:12]}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
