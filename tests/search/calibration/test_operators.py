"""Operators that models execute: found, and run again by themselves."""

from __future__ import annotations

import pytest
import torch

from search.calibration.operators import Call, Calls, chosen, curve, executed
from search.calibration.references import reference
from search.calibration.workload import Workload
from search.cost.kernels import APART
from search.cost.steps import steps

SMALL = {
    "decoder": {"width": 64, "heads": 2, "layers": 1},
    "image": {"width": 48, "heads": 3, "layers": 1},
    "hybrid": {"width": 64, "layers": 1},
}


def workload(name: str) -> Workload:
    spec = reference(name, tuple(SMALL[name].items()))
    return Workload(spec, "prefill", length=None if name == "image" else 32)


@pytest.fixture(scope="module", params=SMALL)
def found(request: pytest.FixtureRequest) -> tuple[Workload, Calls]:
    one = workload(request.param)
    return one, executed(one.ready())


def test_what_is_priced_by_bytes_is_found(found: tuple[Workload, Calls]) -> None:
    one, calls = found
    lengths = {"length": one.length} if one.length else {}
    work = steps(one.spec, batch=1, lengths=lengths, dtype=torch.float32, processor="cpu")
    rows = [row for step in work.steps if not step.training for row in step.unit.cost.inference]
    names = {row.name for row in rows if row.work == "traffic" and row.name != "aten.embedding"}
    assert names
    assert names <= {name.removesuffix(APART) for name in calls} | {"aten.embedding"}
    priced = {(row.name, row.read + row.written) for row in rows if row.name == "aten.add"}
    assert priced <= {(name.removesuffix(APART), size) for name in calls for size in calls[name]}


def test_each_runs_again(found: tuple[Workload, Calls]) -> None:
    _, calls = found
    for sizes in calls.values():
        for size, call in sizes.items():
            run = call.ready("cpu", size)
            for out in [run(), run()]:
                values = [out] if isinstance(out, torch.Tensor) else [v for v in out if isinstance(v, torch.Tensor)]
                assert values
                assert all(torch.isfinite(v).all() for v in values if v.is_floating_point())


def test_products_and_attention_are_measured_elsewhere(found: tuple[Workload, Calls]) -> None:
    assert not [name for name in found[1] if any(word in name for word in ("mm", "attention", "view", "detach"))]


def test_the_norm_of_a_decoder_is_one_operator() -> None:
    calls = executed(workload("decoder").ready())
    size = 2 * 32 * 64 * 4 + 64 * 4
    assert list(calls["aten.rms_norm"]) == [size]


def nothing() -> Call:
    return Call(lambda: None, (), {})


def test_sizes_that_are_near_each_other_are_measured_once() -> None:
    one: Calls = {"a": {size: nothing() for size in (100, 200, 301, 900)}}
    other: Calls = {"a": {90: nothing()}, "b": {5: nothing()}}
    kept = {name: sorted(sizes) for name, sizes in chosen([one, other]).items()}
    assert kept == {"a": [200, 900], "b": [5]}


def test_a_larger_size_never_takes_less() -> None:
    times = {10: 1.0, 20: 4.0, 40: 1.0, 80: 8.0}
    assert curve(times).seconds == pytest.approx((1.0, 2.0, 2.0, 8.0))


def test_arguments_that_are_no_tensors_stay() -> None:
    calls = executed(lambda: torch.cat([torch.ones(4, 8), torch.ones(4, 8)], dim=1).softmax(-1))
    shapes = {name: [call.ready("cpu", size)().shape for size, call in sizes.items()] for name, sizes in calls.items()}
    assert shapes["aten.cat"] == [(4, 16)]
    assert shapes["aten._softmax"] == [(4, 16)]
