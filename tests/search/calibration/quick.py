"""A calibration of a second: few sizes, small models."""

from __future__ import annotations

import pytest

from search.calibration import calibrate, references
from search.cost import local

EFFORT = calibrate.CPU._replace(
    dtypes=("float32",), rows=(1, 16), widths=(16, 64), far=(2**16, 2**22), tokens=(8, 32), most=2**16, budget=1e-3,
    lengths=(16,),
)  # fmt: skip
MODELS = (
    ("decoder", {"width": 64, "heads": 2, "layers": 1}, 1, 16),
    ("plain_decoder", {"width": 64, "heads": 2, "layers": 2}, 1, 32),
)


def quick(monkeypatch: pytest.MonkeyPatch, *, steady: float = 1e9) -> None:
    """Makes a calibration quick, and trusting or not."""
    monkeypatch.setattr(calibrate, "CPU", EFFORT)
    monkeypatch.setattr(calibrate, "STEADY", steady)
    monkeypatch.setattr(references, "_SIZES", MODELS)
    monkeypatch.setattr(references, "_DECODED", ((1, 16), (2, 32)))
    monkeypatch.setattr(local, "_PRODUCTS", (128,))
    monkeypatch.setattr(local, "_WORKING_SETS", (2**18, 2**22))
