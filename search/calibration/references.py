"""Models that a calibration runs: small ones of several kinds, in all phases, at sizes from overhead to arithmetic."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from archspec.spec import Spec, load
from search.calibration.workload import Workload
from search.cost.setting import Phase

_SIZES: tuple[tuple[str, dict[str, Any], int, int | None], ...] = (  # file, dims, batch, length
    ("decoder", {"width": 128, "heads": 2, "layers": 2}, 1, 64),
    ("decoder", {"width": 256, "heads": 4, "layers": 8}, 1, 32),
    ("decoder", {"width": 320, "heads": 5, "layers": 4}, 1, 256),
    ("decoder", {"width": 640, "heads": 10, "layers": 3}, 2, 128),
    ("plain_decoder", {"width": 128, "heads": 2, "layers": 8}, 1, 64),
    ("plain_decoder", {"width": 256, "heads": 4, "layers": 6}, 1, 128),
    ("plain_decoder", {"width": 512, "heads": 8, "layers": 3}, 1, 512),
    ("image", {"width": 128, "heads": 2, "layers": 6, "patch": 28}, 1, None),
    ("image", {"width": 192, "heads": 3, "layers": 4}, 1, None),
    ("image", {"width": 384, "heads": 6, "layers": 2, "patch": 14}, 1, None),
    ("pyramid", {"width": 32, "layers": 1}, 1, None),
    ("pyramid", {"width": 64, "layers": 2}, 1, None),
    ("hybrid", {"width": 256, "layers": 1}, 1, 256),
    ("hybrid", {"width": 128, "layers": 2}, 1, 512),
)
_DECODED = ((1, 128), (1, 2048), (8, 512))  # batch and context


def workloads(phase: Phase, dtype: str = "float32", *, scale: int = 1, batch: int = 1) -> list[Workload]:
    """The reference workloads of a phase.

    Args:
        scale, batch: by which widths and heads, and by which batches are multiplied, for faster devices.
    """
    found = []
    for name, dims, samples, length in _SIZES:
        spec = reference(name, tuple(sorted(_scaled(dims, scale).items())))
        if phase != "decode":
            found.append(Workload(spec, phase, samples * batch, length, dtype))
        elif length is not None:
            for _ in range(2):  # of the pairs, in turn
                several, context = _DECODED[len(found) % len(_DECODED)]
                found.append(Workload(spec, phase, several * batch, context, dtype))
    return found


def _scaled(dims: dict[str, Any], scale: int) -> dict[str, Any]:
    return {name: value * scale if name in ("width", "heads") else value for name, value in dims.items()}


@cache
def reference(name: str, dims: tuple[tuple[str, int], ...] = ()) -> Spec:
    """A reference spec with some of its dims replaced."""
    file = files("search.calibration").joinpath("references", f"{name}.yaml")
    return load(str(file), set={f"dims.{key}": value for key, value in dims})
