"""What one candidate may take before it counts as failed, so that it takes nothing else along.

Time is watched from outside, so that a candidate that hangs in compiled code ends as well; memory is refused by the
system, so that what asks for too much gets an error and the process lives on.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, field_validator

from search.kinds import Fields

_UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_BYTES = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS)})")


class Limits(Fields):
    """Limits of one candidate's training and measuring.

    Example:
        limits: {minutes: 30, memory: 4 GB}
    """

    minutes: float | None = Field(None, gt=0, description="from its begin to its end, but for waits on measurements")
    memory: str | None = Field(None, description="beside what the process had before, as 4 GB; on the GPU, all of it")
    silence: float = Field(60.0, ge=5, description="seconds without a sign after which a worker elsewhere is dead")

    @field_validator("memory")
    @classmethod
    def _is_an_amount(cls, amount: str | None) -> str | None:
        if amount is not None and not _BYTES.fullmatch(amount.strip()):
            raise ValueError(f"{amount!r} is no amount of memory; write it as 512 MB or 4 GB")
        return amount

    @property
    def bytes(self) -> int | None:
        """The limit on memory."""
        if self.memory is None:
            return None
        found = _BYTES.fullmatch(self.memory.strip())
        assert found is not None
        return int(float(found[1]) * _UNITS[found[2]])

    @property
    def seconds(self) -> float | None:
        """The limit on time."""
        return None if self.minutes is None else 60 * self.minutes

    @contextmanager
    def enforced(self, device: str) -> Iterator[None]:
        """Allocations beyond the limit on memory raise inside, as they do when a machine has no more.

        On Linux; other systems do not count a process's data.
        """
        taken = _data()
        if self.bytes is None:
            yield
        elif device.startswith("cuda"):
            import torch

            whole = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, self.bytes / whole), device)
            try:
                yield
            finally:
                torch.cuda.set_per_process_memory_fraction(1.0, device)
        elif taken is None:
            yield
        else:
            soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
            most = taken + self.bytes
            resource.setrlimit(resource.RLIMIT_DATA, (min([most, *(n for n in (soft, hard) if n >= 0)]), hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data() -> int | None:
    """Bytes of this process's data: what it allocated, not what it shares or has read from files."""
    try:
        found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024
