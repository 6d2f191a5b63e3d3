"""What whole models say of a device, beyond their operators: factors for kinds of work, fitted to measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search.calibration.truth import Truth
from search.cost.devices import Device
from search.cost.fit import fit
from search.cost.measured import Whole
from search.cost.passes import WORKS, seconds_by_work
from search.cost.price import known_context, resolve_lengths
from search.cost.setting import DTYPES, Setting
from search.cost.steps import steps

TURNS = 4  # of asking anew which measurements a GPU spends waiting to be asked


def fitted(truths: Sequence[Truth], device: Device) -> Whole:
    """Factors by which the times of a device's profile agree with measurements of one phase.

    A GPU works while it is asked: of a model that it is faster with than it can be asked, a measurement tells of the
    asking alone, of another of the work alone. Which is which, the factors themselves decide.
    """
    plain = unfitted(device)
    times = np.array([list(work_of(truth, plain).values()) for truth in truths])
    measured = np.array([truth.median_ms / 1e3 for truth in truths])
    names = (*WORKS, "host")
    if device.kind == "cpu":
        found = fit(times, measured)
        return _whole(names, found.factors, found.constant, found.residuals)
    factors = np.ones(len(names))
    for _ in range(TURNS):
        asked = times[:, -1] * factors[-1] > times[:, :-1] @ factors[:-1]
        seen = times * np.where(asked[:, None], [*[0.0] * len(WORKS), 1.0], [*[1.0] * len(WORKS), 0.0])
        found = fit(seen, measured)
        factors = found.factors
    return _whole(names, factors, found.constant, found.residuals)


def _whole(names: Sequence[str], factors: Sequence[float], constant: float, errors: Sequence[float]) -> Whole:
    return Whole(
        factors={name: round(float(factor), 4) for name, factor in zip(names, factors, strict=True)},
        constant=constant,
        errors=tuple(round(float(error), 4) for error in errors),
    )


def unfitted(device: Device) -> Device:
    """The profile without what whole models said of it."""
    if device.measured is None:
        return device
    return device.model_copy(update={"measured": device.measured.model_copy(update={"whole": {}})})


def work_of(truth: Truth, device: Device) -> dict[str, float]:
    """Seconds by kind of work that a profile expects of what was measured."""
    spec = truth.load()
    length = None if truth.phase == "decode" else truth.length
    lengths = resolve_lengths(spec, length)
    context = known_context(spec, lengths, truth.length) if truth.phase == "decode" else None
    under = Setting(DTYPES[truth.dtype], device, f"fitted to {truth.name}", truth.phase, context)
    return seconds_by_work(steps(spec, batch=truth.batch, lengths=lengths, dtype=under.dtype, context=context), under)
