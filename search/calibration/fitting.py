"""What whole models say of a device, beyond their operators: factors for kinds of work, fitted to measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.calibration.truth import Truth
from search.cost.devices import Device
from search.cost.fit import Fit, fit
from search.cost.measured import Whole
from search.cost.passes import CLASSES, seconds_by_work
from search.cost.price import known_context, resolve_lengths
from search.cost.setting import Setting, known_dtype
from search.cost.steps import Steps, steps

TURNS = 4  # of asking anew which measurements a GPU spends waiting to be asked
STARTS = (1.0, 0.0, 1e3)  # factors of the asking from which to begin: as stated, none, everything
Reals = NDArray[np.float64]


def fitted(truths: Sequence[Truth], device: Device) -> Whole:
    """Factors by which the times of a device's profile agree with measurements of one phase.

    A GPU works while it is asked: of a model that it is faster with than it can be asked, a measurement tells of the
    asking alone, of another of the work alone. Which is which, the factors themselves decide.
    """
    plain = unfitted(device)
    times = [list(work_of(truth, plain).values()) for truth in truths]
    return fitted_to(times, [truth.median_ms / 1e3 for truth in truths], device)


def fitted_to(times: ArrayLike, measured: ArrayLike, device: Device) -> Whole:
    """As `fitted`, from the seconds of each class of work (`search.cost.passes.CLASSES`) and those measured.

    Args:
        times: ``[measurements, classes]``, under the profile without factors.
        measured: ``[measurements]``.
    """
    x, y = np.asarray(times, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if device.kind == "cpu":
        return _whole(fit(x, y))
    tries = [_waiting(x, y, host) for host in STARTS]
    return min(
        (_whole(found) for found in tries), key=lambda one: float(np.abs(predicted(x, one, device) / y - 1).mean())
    )


def _waiting(x: Reals, y: Reals, host: float) -> Fit:
    """A fit to measurements of which some tell of the asking alone, the others of the work alone.

    Args:
        host: the factor of the asking by which they are told apart at first.
    """
    busy = np.array([name != "host" for name in CLASSES])
    factors = np.where(busy, 1.0, host)
    for _ in range(TURNS):
        asked = x[:, ~busy] @ factors[~busy] > x[:, busy] @ factors[busy]
        found = fit(x * (asked[:, None] != busy), y)
        factors = found.factors.copy()
        if not asked.all():  # asking took no longer than what was measured where the work took longer
            factors[~busy] = min(factors[~busy][0], (y / x[:, ~busy].sum(axis=1))[~asked].min())
        else:
            factors[busy] *= min(1.0, (y / (x[:, busy] @ factors[busy])).min())
    return replace(found, factors=factors)


def _whole(found: Fit) -> Whole:
    return Whole(
        factors={name: float(f"{factor:.4g}") for name, factor in zip(CLASSES, found.factors, strict=True)},
        constant=found.constant,
        errors=tuple(round(float(error), 4) for error in found.residuals),
    )


def predicted(times: ArrayLike, whole: Whole, device: Device) -> Reals:
    """Seconds that factors tell, from the seconds of each class of work under the profile without, as `fitted_to`."""
    x = np.asarray(times, dtype=np.float64) * [whole.factors[name] for name in CLASSES]
    busy, host = x[:, :-1].sum(axis=1), x[:, -1]
    found: Reals = whole.constant + (busy + host if device.kind == "cpu" else np.maximum(busy, host))
    return found


def unfitted(device: Device) -> Device:
    """The profile without what whole models said of it."""
    if device.measured is None:
        return device
    return device.model_copy(update={"measured": device.measured.model_copy(update={"whole": {}})})


def work_of(truth: Truth, device: Device) -> dict[str, float]:
    """Seconds by kind of work that a profile expects of what was measured."""
    return seconds_by_work(*at_work(truth, device))


def at_work(truth: Truth, device: Device) -> tuple[Steps, Setting]:
    """The steps of what was measured, and under what they are priced.

    Errors:
        SpecError: what was measured cannot be priced so.
    """
    spec, decoding = truth.load(), truth.phase == "decode"
    lengths = resolve_lengths(spec, None if decoding else truth.length)
    context = known_context(spec, lengths, truth.length) if decoding else None
    under = Setting(known_dtype(truth.dtype), device, device.title, truth.phase, context)
    kind = device.kind
    return steps(spec, batch=truth.batch, lengths=lengths, dtype=under.dtype, context=context, processor=kind), under
