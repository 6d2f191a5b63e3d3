"""A calibration: what it leaves behind can be priced with, and a loaded machine is refused."""

from __future__ import annotations

import pytest

from archspec.errors import SpecError
from search.calibration.calibrate import calibrate
from search.calibration.check import check, summary
from search.calibration.clock import Clock
from search.calibration.fitting import at_work
from search.calibration.references import reference
from search.calibration.truth import measure
from search.calibration.workload import Workload
from search.cost import local
from search.cost.devices import Device
from search.cost.interval import covered
from search.cost.passes import CLASSES
from search.cost.setting import PHASES
from tests.search.calibration.quick import quick


def test_a_calibrated_profile_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    stages: list[tuple[float, str]] = []
    profile = calibrate(
        local.measure(), "cpu", progress=lambda *stage: stages.append(stage), fingerprint={"device": "a test"},
        steady=1e9,
    )  # fmt: skip
    shares = [share for share, _ in stages]
    assert shares == sorted(shares) and shares[-1] == 1.0
    measured = profile.measured
    assert measured is not None and measured.fingerprint == {"device": "a test"}
    assert set(measured.whole) == set(PHASES)
    assert all(set(whole.factors) == set(CLASSES) for whole in measured.whole.values())
    assert {len(whole.errors) for whole in measured.whole.values()} == {2, 4}
    kernels = measured.kernels["float32"]
    assert kernels.products and kernels.far_products and kernels.attention and kernels.causal
    assert {"aten.rms_norm", "aten.native_layer_norm", "aten.add"} <= set(kernels.operators)
    assert Device.model_validate_json(profile.model_dump_json(exclude_none=True)) == profile

    spec = reference("decoder", (("heads", 2), ("layers", 2), ("width", 64)))
    workloads = [Workload(spec, phase, 1, 16) for phase in PHASES]
    checked = check(measure(workloads, Clock(), budget=0.02), profile)
    assert summary(checked).error < 3  # so short and on any machine, no more can be promised
    assert covered(*at_work(checked[0].truth, profile)) > 0.9


def test_a_loaded_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    with pytest.raises(SpecError, match="too loaded to be trusted"):
        calibrate(local.measure(), "cpu", progress=lambda *stage: None, fingerprint={}, steady=-1.0)
