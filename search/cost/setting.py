"""Under what a model is priced."""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

import torch

from archspec.errors import Problem, SpecError, did_you_mean
from search.cost import devices
from search.cost.devices import Device

Phase = Literal["prefill", "decode", "step"]
PHASES: tuple[Phase, ...] = ("prefill", "decode", "step")
DTYPES = {
    str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
}


class Setting(NamedTuple):
    """How things are priced, for all parts of a model alike.

    Attributes:
        name: of the device.
        phase: whose latency is told: a forward pass over the whole batch, one more token of each sequence, or a
            training step.
        context: tokens that were read before the one that is decoded.
    """

    dtype: torch.dtype
    device: Device
    name: str
    phase: Phase = "prefill"
    context: int | None = None


def setting(*, dtype: str, device: str, phase: Phase = "prefill", context: int | None = None) -> Setting:
    """The setting of these names.

    Errors:
        SpecError: an unknown dtype, device or phase.
    """
    if phase not in PHASES:
        hint = did_you_mean(phase, PHASES) or f"try {', '.join(PHASES)}"
        raise SpecError(Problem(f"there is no phase {phase!r}", hint))
    return Setting(known_dtype(dtype), known_device(device), device, phase, context if phase == "decode" else None)


def known_dtype(name: str) -> torch.dtype:
    """The dtype of that name.

    Errors:
        SpecError: it is none in which models are priced.
    """
    if name not in DTYPES:
        raise SpecError(
            Problem(f"models are not priced in {name!r}", did_you_mean(name, DTYPES) or f"try {', '.join(DTYPES)}")
        )
    return DTYPES[name]


@cache
def known_device(name: str) -> Device:
    """The profile of that name, read once."""
    return devices.load(name)
