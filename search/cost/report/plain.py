"""A breakdown as a dictionary of plain numbers, with an object beside them that says where each comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from search.cost.breakdown import Breakdown, Fits
from search.cost.interval import ASSUMED, COVERAGE
from search.cost.parts import Part, Pass
from search.cost.setting import PHASES
from search.cost.training_run import TrainingRun


def as_dict(found: Breakdown, run: TrainingRun | None = None) -> dict[str, Any]:
    """Counts, bytes, milliseconds, joules; None for a phase that the spec does not have.

    ``provenance`` mirrors the figures: ``exact``, or for a latency the shares of its work by origin and an interval.
    """
    base = found.cost.as_dict()
    passes = found.passes
    step = passes.get("step")
    decode = passes.get("decode")
    backward = step.backward if step else None
    tokens = decode.flops if decode else None
    figures: dict[str, Any] = {
        "schema": base["schema"],
        "parameters": base["parameters"],
        "flops": {
            **base["flops"],
            "backward": backward,
            "optimizer": found.optimizer,
            "decode": tokens,
            "checkpointing": found.again,
        },
        "macs": {
            **base["macs"],
            "backward": None if backward is None else backward // 2,
            "decode": None if tokens is None else tokens // 2,
        },
        "bytes": _by_phase(passes, lambda one: one.bytes),
        "intensity": _by_phase(passes, lambda one: one.intensity),
        "memory": _memory(found),
        "latency_ms": _by_phase(passes, lambda one: 1e3 * one.seconds),
        "throughput": {phase: found.throughput(phase) for phase in PHASES},
        "energy_j": _by_phase(passes, lambda one: one.energy),
        "fits": _fits(found.fits) if found.fits else None,
    }
    if run is not None:
        figures["training_run"] = {
            "tokens": run.tokens, "devices": run.devices, "mfu": run.mfu, "flops": run.flops, "hours": run.hours,
            "energy_j": run.energy,
        }  # fmt: skip
    measured = found.profile.measured
    return {
        **figures,
        "parts": {
            phase: {"rows": [_part(part) for part in one.rows], "operators": [_part(part) for part in one.operators]}
            for phase, one in passes.items()
        },
        "assumptions": {
            **base["assumptions"],
            "title": found.profile.title,
            "calibrated": measured.date or None if measured else None,
            "context": found.context,
            "throughput": f"{found.unit}s a second",
            "first_token": "after prefill" if decode else None,
            "cache": "keys and values of another stream, computed once, are not in it" if decode else None,
            "routing": "any expert is as likely for each row as any other",
            "optimizer": "pointwise FLOPs, which the others leave out",
            "checkpointing": "each row (a top-level node, or a round of one) keeps its inputs and is run again",
            "energy": "estimate: idle power, and the rest of full power for the share of the time that the "
            "profile says the work needs at least",
            "interval": f"contains what is measured in {COVERAGE:.0%} of cases; where nothing was measured, assumed "
            f"to reach from {ASSUMED[0]:g} to {ASSUMED[1]:g} times the prediction",
            "absent": dict(found.absent),
        },
        "provenance": _provenance(found, figures),
    }


def _by_phase(passes: Mapping[Any, Pass], figure: Callable[[Pass], Any]) -> dict[str, Any]:
    return {phase: figure(passes[phase]) if phase in passes else None for phase in PHASES}


def _memory(found: Breakdown) -> dict[str, int | None]:
    memory = found.memory
    return {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "saved_activations": memory.saved,
        "loss": memory.loss,
        "transient": memory.transient,
        "peak_inference": memory.inference,
        "peak_training": memory.training,
        "saved_activations_checkpointed": memory.saved_checkpointed,
        "peak_training_checkpointed": memory.peak_checkpointed,
        "cache_per_token": memory.cache_per_token,
        "cache_per_sequence": memory.cache_per_sequence,
        "cache": memory.cache,
        "peak_decode": memory.decode,
    }


def _fits(fits: Fits) -> dict[str, Any]:
    named = {"training": fits.training, "serving": fits.serving, "context": fits.context}
    return {
        "memory": fits.memory,
        "training_batch": fits.training.most,
        "serving_batch": fits.serving.most,
        "context": fits.context.most if fits.context else None,
        "missing": {name: fit.missing for name, fit in named.items() if fit and fit.missing},
    }


def _part(part: Part) -> dict[str, Any]:
    return {**asdict(part), "seconds": part.seconds, "intensity": part.intensity}


def _provenance(found: Breakdown, figures: Mapping[str, Any]) -> dict[str, Any]:
    def mirrored(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: mirrored(inner) for key, inner in value.items()}
        return None if value is None else {"origin": "exact"}

    predicted, rates, energies = {}, {}, {}
    for phase, one in found.passes.items():
        low, high = (1e3 * one.seconds * factor for factor in one.interval)
        origin = dict(one.origins)
        predicted[phase] = {"origin": origin, "interval": [low, high], "coverage": COVERAGE}
        rate = found.throughput(phase) or 0.0
        bounds = [rate / one.interval.high, rate / one.interval.low]
        rates[phase] = {"origin": origin, "interval": bounds, "coverage": COVERAGE}
        energies[phase] = {"origin": "estimate"} if one.energy is not None else None
    nothing = dict.fromkeys(PHASES)
    exact = ("parameters", "flops", "macs", "bytes", "intensity", "memory", "fits")
    result = {name: mirrored(figures[name]) for name in exact}
    result |= {"latency_ms": nothing | predicted, "throughput": nothing | rates, "energy_j": nothing | energies}
    if "training_run" in figures:
        result["training_run"] = {
            name: {"origin": "exact" if name == "flops" else "estimate"} for name in ("flops", "hours", "energy_j")
        }
    return result
