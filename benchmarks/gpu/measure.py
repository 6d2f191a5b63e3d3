"""Calibrates a GPU, and measures forty models on it: prefill, decoding, a training step, memory, some compiled.

    python -m benchmarks.gpu.measure -o FOLDER          # at most 8 minutes
    python -m benchmarks.gpu.measure -o FOLDER --device cpu --models 4

Writes ``profile.json`` and ``truth.jsonl``, each as soon as there is something to write, and a table of predictions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from archspec.errors import SpecError
from benchmarks.gpu.models import Model, models
from search.calibration.calibrate import calibrate
from search.calibration.check import Summary, check, summary
from search.calibration.clock import Clock
from search.calibration.truth import append, measure, read
from search.calibration.workload import Workload
from search.cost import local
from search.cost.devices import load
from search.cost.fingerprint import fingerprint
from search.cost.setting import PHASES

MINUTES = 8.0
ROUNDS, BUDGET = 2, 0.2  # seconds for each measurement in each round


def workloads(model: Model, dtype: str) -> Iterator[Workload]:
    """What is measured of a model."""
    prefill = Workload(model.spec, "prefill", model.batch, model.length, dtype)
    yield prefill
    yield replace(prefill, phase="step")
    if model.context is not None:
        yield Workload(model.spec, "decode", 1, model.context, dtype)
        yield Workload(model.spec, "decode", 32, model.context, dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--only", choices=["profile", "truth"])
    args = parser.parse_args()
    began, cuda = time.perf_counter(), torch.device(args.device).type == "cuda"
    args.out.mkdir(parents=True, exist_ok=True)

    def left() -> float:
        return 60 * args.minutes - (time.perf_counter() - began)

    def say(text: str) -> None:
        print(f"{time.perf_counter() - began:6.1f} s  {text}", flush=True)

    mark = fingerprint(args.device)
    say(f"{mark}")
    stages: set[str] = set()

    def progress(share: float, what: str) -> None:
        if what not in stages:
            stages.add(what)
            say(f"{share:4.0%} {what}")

    if args.only != "truth":
        try:
            base = local.measure(args.device)
            say(f"{base.peak} {base.memory} overhead {base.overhead * 1e6:.2f} us")
            profile = calibrate(base, args.device, progress=progress, fingerprint=mark)
            (args.out / "profile.json").write_text(profile.model_dump_json(indent=1, exclude_none=True))
            assert profile.measured is not None
            say(f"drift {profile.measured.drift:.1%}, residual {profile.measured.residual:.1%}")
            for phase, whole in profile.measured.whole.items():
                say(f"{phase}: {whole.factors} + {whole.constant * 1e6:.0f} us; errors {whole.errors}")
        except (SpecError, RuntimeError) as error:
            say(f"calibration failed: {error}")
    if args.only == "profile":
        return
    clock, dtype = Clock(args.device), "bfloat16" if cuda else "float32"
    chosen = list(models(small=not cuda))[:: max(1, 40 // args.models)][: args.models]
    for number, model in enumerate(chosen):
        if left() < 20:
            say(f"time is up at model {number}")
            break
        every = list(workloads(model, dtype))
        built = every[0].build(args.device)
        for workload in every:
            _measure(workload, built, clock, args.out, mark, say, compiled=False)
        if cuda and number % 10 == 5 and left() > 120:
            for workload in every:
                if workload.phase != "step":
                    _measure(workload, built, clock, args.out, mark, say, compiled=True)
        del built
    for phase, found in _predicted(args.out).items():
        say(f"{phase}: {found}")
    say("done")


def _predicted(out: Path) -> dict[str, Summary]:
    """How good the profile's predictions are of what was measured."""
    checked = check(read(out / "truth.jsonl"), load(str(out / "profile.json")))
    phases = {phase: [one for one in checked if one.truth.phase == phase] for phase in PHASES}
    return {phase: summary(some) for phase, some in phases.items() if some}


def _measure(workload: Workload, model: Any, clock: Clock, out: Path, mark: dict, say, *, compiled: bool) -> None:  # type: ignore[type-arg,no-untyped-def]
    try:
        truths = measure(
            [workload], clock, rounds=ROUNDS, budget=0.25, compiled=compiled, fingerprint=mark, model=model
        )
    except Exception as error:  # one model that fails leaves the others to be measured
        say(f"{workload.spec.name} {workload.phase}: {type(error).__name__} {str(error)[:300]}")
        return
    append(out / "truth.jsonl", truths)
    (truth,) = truths
    form = "compiled" if compiled else "eager"
    say(f"{truth.name:12} {truth.phase:8} {form} batch {truth.batch}: {truth.median_ms:.3f} ms")


if __name__ == "__main__":
    main()
