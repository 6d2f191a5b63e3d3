"""The device profile ``local``: what torch reaches on this computer's CPU, measured in a few seconds.

Measured are the rate of matrix products per dtype (the best over sizes), the rate at which an addition streams through
working sets from cache size to memory size, and the time of a module's operator on next to no data. The result is kept
as JSON in the user's cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``, in ``archspec/``), one file for each processor,
number of threads and version of torch, with its date; delete the file to measure again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from search.cost.devices import Device, DType, Level

_DTYPES: dict[DType, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_PRODUCTS = (256, 512, 1024)
_WORKING_SETS = (2**18, 2**20, 2**22, 2**24, 2**26, 2**28)  # bytes, of three equal vectors together
_SLOW = 0.1  # seconds: no larger product is tried after one that took so long


def load() -> Device:
    """The profile of this computer, measured unless it was before."""
    fingerprint = _fingerprint()
    file = _file(fingerprint)
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["fingerprint"] == fingerprint:
            return Device.model_validate(kept["device"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        pass  # never measured, or not by this version: measure
    device = measure()
    _write(file, {"fingerprint": fingerprint, "date": _now(), "device": device.model_dump(mode="json")})
    return device


def measure() -> Device:
    """Measures this computer's CPU with as many threads as torch uses now; takes a few seconds."""
    with torch.no_grad():
        peak = {name: _product_rate(dtype) for name, dtype in _DTYPES.items()}
        memory = _levels([(size, _stream_rate(size)) for size in _WORKING_SETS])
        overhead = _operator_time()
    what = f"measured {_now()} with torch {torch.__version__}, {torch.get_num_threads()} threads"
    return Device(
        title=f"{_processor()}, this computer",
        kind="cpu",
        units=torch.get_num_threads(),
        peak=peak,
        memory=memory,
        overhead=overhead,
        sources=(what,),
    )


def _product_rate(dtype: torch.dtype) -> float:
    best = 0.0
    for size in _PRODUCTS:
        a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
        out = torch.empty(size, size, dtype=dtype)
        seconds = _fastest(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), budget=0.15)  # type: ignore[misc]
        best = max(best, 2 * size**3 / seconds)
        if seconds > _SLOW:
            break
    return best


def _stream_rate(working_set: int) -> float:
    count = working_set // 3 // 4
    a, b, out = torch.ones(count), torch.ones(count), torch.empty(count)
    return 3 * 4 * count / _fastest(lambda: torch.add(a, b, out=out), budget=0.15)


def _levels(rates: list[tuple[int, float]]) -> tuple[Level, ...]:
    """Working sets that stream alike are one level; a larger one is never called faster than a smaller one."""
    levels: list[Level] = []
    for size, rate in reversed(rates):  # from memory inwards: what a small set reaches, measured short, may be low
        if levels and rate < 1.2 * levels[0].bandwidth:
            continue
        levels.insert(0, Level(name=f"up to {size // 2**10} KiB", size=size, bandwidth=rate))
    last = levels.pop()
    return (*levels, Level(name="memory", size=max(_memory(), last.size), bandwidth=last.bandwidth))


def _operator_time() -> float:
    """Seconds of an operator that has next to nothing to do, with the module around it."""
    x = torch.ones(4, 8)
    modules = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
    return _fastest(lambda: modules(x), budget=0.1, batch=20) / len(modules)


def _fastest(run: Callable[[], Any], *, budget: float, batch: int = 1) -> float:
    """Seconds of the fastest of the runs that fit into a budget of seconds, at least three, after one to warm up."""
    run()
    best, until, done = float("inf"), time.perf_counter() + budget, 0
    while done < 3 or time.perf_counter() < until:
        start = time.perf_counter()
        for _ in range(batch):
            run()
        best = min(best, (time.perf_counter() - start) / batch)
        done += 1
    return best


def _fingerprint() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine() or "CPU"


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _file(fingerprint: dict[str, Any]) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "archspec"
    digest = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
    return folder / f"local-{digest[:12]}.json"


def _write(file: Path, content: dict[str, Any]) -> None:
    """Writes the whole file or none of it; a cache folder that cannot be written only means measuring again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=file.parent, prefix=file.stem)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=2)
        os.replace(draft, file)
    except OSError:
        pass


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
