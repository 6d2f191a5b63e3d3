"""What is measured is what a model does."""

from __future__ import annotations

import pytest
import torch

from archspec.errors import SpecError
from archspec.spec import Spec
from search.calibration.references import reference, workloads
from search.calibration.workload import Workload, peak_memory, random_inputs
from search.cost.setting import PHASES
from tests.search.cost.small import spec as small

DECODER = reference("decoder", (("heads", 2), ("layers", 1), ("width", 64)))
IMAGE = reference("image", (("heads", 3), ("layers", 1), ("width", 48)))


@pytest.mark.parametrize(("spec", "length"), [(DECODER, 12), (IMAGE, None)], ids=["decoder", "image"])
def test_prefill_is_a_forward_pass(spec: Spec, length: int | None) -> None:
    workload = Workload(spec, "prefill", 2, length)
    model = workload.build()
    torch.manual_seed(1)
    run = workload.ready(model=model)
    torch.manual_seed(1)
    lengths = {"length": length} if length else {}
    given = random_inputs(spec, batch=2, lengths=lengths, dtype=torch.float32, device="cpu")
    assert torch.equal(run(), model.eval()(*given))
    assert not run().requires_grad


def test_a_decoded_token_is_the_last_of_a_forward_pass() -> None:
    workload = Workload(DECODER, "decode", 2, 9)
    model = workload.build()
    torch.manual_seed(1)
    run = workload.ready(model=model)
    torch.manual_seed(1)
    tokens = torch.randint(0, 4096, (2, 10))
    with torch.no_grad():
        expected = model.eval()(tokens)[:, -1]
    for out in [run(), run()]:  # again after the same context
        assert torch.allclose(out[:, -1], expected, atol=1e-4)


def test_a_step_trains() -> None:
    workload = Workload(DECODER, "step", 2, 12)
    model = workload.build()
    before = [parameter.clone() for parameter in model.parameters()]
    workload.ready(model=model)()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


def test_what_cannot_be_run_is_refused() -> None:
    with pytest.raises(SpecError, match="cannot be decoded|decod"):
        Workload(IMAGE, "decode").ready()
    features = small("{kind: backbone, inputs: {x: {width: 8, axes: {length: 8}}}}", "rms_norm")
    with pytest.raises(SpecError, match="no loss"):
        Workload(features, "step").ready()


def test_every_phase_has_reference_models() -> None:
    for phase in PHASES:
        some = workloads(phase)
        assert len(some) >= 10
        assert {one.phase for one in some} == {phase}


def test_larger_devices_get_larger_models() -> None:
    small, large = workloads("prefill")[1], workloads("prefill", scale=2, batch=2)[1]
    assert large.spec.graph.types != small.spec.graph.types or large.batch == 2 * small.batch
    assert sum(p.numel() for p in large.build("meta").parameters()) > 3 * sum(
        p.numel() for p in small.build("meta").parameters()
    )


def test_memory_is_at_least_the_weights() -> None:
    run = Workload(DECODER, "prefill", 1, 8).ready()
    peak = peak_memory(run, "cpu")
    assert peak is None or peak > 1e6
