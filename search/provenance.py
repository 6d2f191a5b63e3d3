"""Where a result comes from: what a study must keep the same, and what may make a repetition differ."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from search.cost.fingerprint import fingerprint
from search.objectives import Objective
from search.study import Study

DISTRIBUTION = "archspec-nas"


def program() -> str:
    """The version of this program."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # run from its sources
        return "unknown"


def measured(objective: Objective) -> bool:
    """Whether a figure is taken of this computer; a kind of one's own says so by an attribute ``measured``."""
    return objective.needs_training and bool(getattr(objective, "measured", False))


def fixed(study: Study) -> dict[str, Any]:
    """What all workers of a study share beside its file, flat.

    The program's version, without the last number, which does not change what a spec or a recipe means; and the device,
    when figures are measured on it.
    """
    found = {"program": ".".join(program().split(".")[:2])}
    if any(measured(objective) for objective in study.objectives):
        found |= {f"device.{name}": str(value) for name, value in _device(study.recipe.device).items()}
    return found


def of_result(study: Study, data: str) -> dict[str, Any]:
    """What is kept with one result: its seed and data, and the versions and devices that made it."""
    return {
        "seed": study.recipe.seed,
        "data": data,
        "program": program(),
        "python": platform.python_version(),
        "host": platform.node(),
        **_device(study.recipe.device),
        "threads": torch.get_num_threads(),
    }


def _device(name: str) -> dict[str, Any]:
    return {key: value for key, value in fingerprint(name).items() if key != "threads"}
