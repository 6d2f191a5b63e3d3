"""What it costs to train a model on so many tokens."""

from __future__ import annotations

from typing import NamedTuple

from archspec.errors import Problem, SpecError
from search.cost.breakdown import Breakdown


class TrainingRun(NamedTuple):
    """A run on so many devices.

    Attributes:
        tokens: or samples, where a model reads no tokens.
        flops: without the optimizer's.
        hours: of all devices side by side.
        energy: joules of all of them, as an estimate; None if the profile states no power.
    """

    tokens: float
    devices: int
    mfu: float
    flops: float
    hours: float
    energy: float | None


def training_run(found: Breakdown, *, tokens: float, devices: int, mfu: float) -> TrainingRun:
    """The cost of a run.

    Args:
        mfu: the share of the devices' peak that is reached (Chowdhery et al. 2022, "PaLM", arXiv 2204.02311).

    Errors:
        SpecError: the spec has no training step, or the device states no peak for its dtype.
    """
    step = found.passes.get("step")
    if step is None:
        raise SpecError(Problem(found.absent.get("step", "a run needs the cost of a training step")))
    flops = step.flops / found.units * tokens
    seconds = flops / (devices * mfu * found.profile.peak_flops(found.cost.dtype))
    power = found.profile.power
    watts = power.idle + (power.full - power.idle) * mfu if power else None
    return TrainingRun(
        tokens, devices, mfu, flops, seconds / 3600, None if watts is None else watts * seconds * devices
    )
