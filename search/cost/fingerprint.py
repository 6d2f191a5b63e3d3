"""What a measurement is of: the device, and what ran on it."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def fingerprint(device: str = "cpu") -> dict[str, str | int]:
    """The device's name, and the versions and settings that its times depend on."""
    if torch.device(device).type == "cuda":
        return {
            "device": torch.cuda.get_device_name(device),
            "cuda": str(torch.version.cuda),
            "torch": torch.__version__,
        }
    return {
        "device": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def processor() -> str:
    """The name of this computer's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine() or "CPU"
