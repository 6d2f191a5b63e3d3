"""How much memory this machine can still give."""

from __future__ import annotations

import os
from pathlib import Path

from archspec.errors import Problem, SpecError

CGROUPS = (  # limit and use, version 2 and 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available(device: str = "cpu") -> int | None:
    """Bytes that can be allocated on a device without swapping; None where the system does not say."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0] if torch.cuda.is_available() else None
    known = [free for free in (_system(), *(_cgroup(*files) for files in CGROUPS)) if free is not None]
    return min(known) if known else None


def require(need: int, what: str, device: str = "cpu") -> None:
    """Refuses what needs more memory than there is, before anything is allocated.

    Errors:
        SpecError: the need, and what is there.
    """
    there = available(device)
    if there is not None and need > there:
        cause = f"{what} needs {shown(need)} of memory on {device}; {shown(there)} are free"
        raise SpecError(Problem(cause, "try a smaller dtype, model or batch, or another machine"))


def shown(count: float) -> str:
    """Bytes as people read them."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.4g} {unit}"
    return f"{count:g} B"


def _system() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _cgroup(limit: str, use: str) -> int | None:
    try:
        return int(Path(limit).read_text()) - int(Path(use).read_text())
    except (OSError, ValueError):  # no such group, or no limit
        return None
