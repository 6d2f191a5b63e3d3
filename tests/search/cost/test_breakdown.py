"""What is told of one spec: closed forms, sums, and prices at the edges of what fits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import compiler
from archspec.errors import SpecError
from archspec.spec import Spec, load
from search.cost import breakdown as told
from search.cost import price
from search.cost.breakdown import breakdown, require
from search.cost.checkpointing import checkpointed
from search.cost.devices import load as device
from search.cost.fits import largest
from search.cost.memory import training
from search.cost.meter import measure_block
from search.cost.operators import met, pricing
from search.cost.setting import PHASES
from search.cost.steps import steps
from search.cost.training_run import training_run
from search.losses import LOSSES
from tests.search.cost.small import SPECS, decoder

ZOO = Path(__file__).parents[3] / "examples" / "zoo"
GROUPED = "{kind: attention, heads: 4, kv_heads: 2}"


def test_experts_that_are_met() -> None:
    draw = torch.Generator().manual_seed(0)
    for groups, rows in ((8, 3), (64, 8), (64, 200), (256, 1024)):
        routed = torch.randint(groups, (2_000, rows), generator=draw)
        seen = torch.zeros(2_000, groups).scatter_(1, routed, 1.0).sum(1).mean()
        assert met(groups, rows) == pytest.approx(seen.item(), rel=0.01)
    assert met(256, 1) == pytest.approx(1.0)
    assert met(1, 5) == 1.0


def test_a_grouped_product_reads_the_matrices_that_it_meets() -> None:
    a, b = torch.empty(4, 16, device="meta"), torch.empty(32, 16, 24, device="meta")
    read = pricing(torch.ops.aten._grouped_mm.default).reads([a, b], [torch.empty(4, 24, device="meta")])
    assert read == [4 * 16 * 4, round(met(32, 4) * 16 * 24 * 4)]
    many = pricing(torch.ops.aten._grouped_mm.default).reads([torch.empty(9_999, 16, device="meta"), b], [])
    assert many[1] == b.nbytes


@pytest.mark.parametrize(
    ("mixer", "context", "numbers"),
    [
        (GROUPED, 19, 2 * 2 * 8 * 20),
        ("{kind: attention, heads: 4, window: 5}", 19, 2 * 32 * 5),
        ("{kind: attention, heads: 4, window: 5}", 2, 2 * 32 * 3),
        (
            "{kind: latent_attention, heads: 4, kv_rank: 12, rope_width: 4, nope_width: 8, value_width: 8}",
            19,
            (12 + 4) * 20,
        ),
        ("{kind: mamba, state: 6, convolution: 4, expand: 2}", 19, 64 * (6 + 3)),
    ],
)
def test_the_cache_after_a_context(mixer: str, context: int, numbers: int) -> None:
    found = breakdown(decoder(mixer), batch=2, dtype="bfloat16", device="l4", context=context, fitting=False)
    assert found.memory.cache == 2 * 3 * numbers * 2  # samples, rounds, bytes
    assert found.memory.decode is not None and found.memory.decode > found.memory.cache + found.memory.weights


def test_a_state_does_not_grow() -> None:
    found = breakdown(decoder("{kind: mamba}"), device="l4", fitting=False).memory
    assert found.cache_per_token == 0
    assert found.cache == found.cache_per_sequence > 0


class Again(nn.Module):
    """A module that keeps its inputs alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any) -> Any:
        return checkpoint(self.inner, *args, use_reentrant=False)


class Step(nn.Module):
    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.loss = model, LOSSES[name]

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return self.loss(self.model(tokens), targets)


def test_checkpointing_needs_what_torch_needs() -> None:
    spec = deep()
    model = compiler.compile(spec, device="meta")
    for name, round_ in list(model.repeat.named_children()):  # the rest keeps no more than its inputs
        setattr(model.repeat, name, Again(round_))
    tokens = torch.empty(2, 24, dtype=torch.int64, device="meta")
    real = measure_block(Step(model, "causal_lm"), {"tokens": tokens, "targets": tokens}, train=True)
    work = steps(spec, batch=2, lengths={"length": 24}, dtype=torch.float32)
    found, whole = checkpointed(work), training(work)
    stream, logits = 2 * 24 * 32 * 4, 2 * 24 * 48 * 4
    assert found.kept == (8 + 2) * stream + logits  # of the rounds, the norm, the head; of the loss
    assert found.peak == pytest.approx(max(real.flow.peak_forward, real.flow.peak_gradients), rel=1e-3)
    assert found.peak < whole.peak
    assert found.flops == price(spec, batch=2, device="l4").forward


def deep() -> Spec:
    from archspec.spec import loads

    text = """
        archspec: 1
        interface: {kind: causal_lm, vocab: 48, length: 24}
        graph:
          - {kind: token_embedding, width: 32}
          - kind: repeat
            times: 8
            body:
              kind: transformer_layer
              norm: layer_norm
              mixer: {kind: attention, heads: 4, softcap: 20}
              channel: {kind: glu, hidden: 48}
          - rms_norm
          - lm_head
        """
    return loads(text)


@pytest.mark.parametrize("name", SPECS)
def test_parts_add_up(name: str) -> None:
    found = breakdown(SPECS[name](), batch=2, device="l4", fitting=False)
    for phase, one in found.passes.items():
        for parts in (one.rows, one.operators):
            assert sum(part.seconds for part in parts) + one.constant == pytest.approx(one.seconds)
            assert sum(part.share for part in parts) == pytest.approx(1.0)
            assert sum(part.flops for part in parts) == one.flops
            assert sum(part.bytes for part in parts) == one.bytes
        cost = price(SPECS[name](), batch=2, device="l4", phase=phase)
        assert cost.latency_ms == pytest.approx(1e3 * one.seconds)
        if phase != "decode":
            assert one.flops == (cost.forward if phase == "prefill" else cost.training_step)
        assert sum(one.origins.values()) == pytest.approx(1.0)
    memory = found.memory
    assert memory.training >= memory.weights + memory.optimizer + max(memory.saved, memory.gradients)
    assert found.optimizer == 14 * found.cost.parameters


def test_energy_lies_between_idle_and_full() -> None:
    power = device("l4").power
    assert power is not None
    small, large_ = (breakdown(decoder(GROUPED), batch=batch, device="l4", fitting=False) for batch in (1, 4096))
    for found in (small, large_):
        for one in found.passes.values():
            assert one.watts == pytest.approx(power.idle + one.utilisation * (power.full - power.idle))
            assert one.energy == pytest.approx(one.seconds * one.watts)
            assert 0 < one.utilisation <= 1
    assert large_.passes["prefill"].utilisation > 0.5 > small.passes["prefill"].utilisation


def test_verdicts() -> None:
    small, large_ = (breakdown(decoder(GROUPED), batch=batch, device="l4", fitting=False) for batch in (1, 4096))
    products = [next(part for part in one.passes["prefill"].operators if part.name == "aten.mm")
                for one in (small, large_)]  # fmt: skip
    assert [part.verdict for part in products] == ["overhead", "memory"]  # of this width, 8 FLOPs a byte
    wide = breakdown(load(ZOO / "language" / "gpt2.yaml"), batch=8, device="l4", length=256, fitting=False)
    assert next(part for part in wide.passes["prefill"].operators if part.name == "aten.mm").verdict == "compute"


def test_what_fits_is_verified_by_pricing() -> None:
    spec = decoder(GROUPED)
    found = breakdown(spec, device="l4", context=11)
    assert found.fits is not None
    size = device("l4").memory[-1].size
    most = found.fits.training.most
    assert price(spec, batch=most, device="l4").peak_training <= size
    assert price(spec, batch=most + 1, device="l4").peak_training > size
    assert found.fits.context == (23, 0)  # all that the interface allows


def test_what_is_missing() -> None:
    spec = load(ZOO / "language" / "llama_3_1_70b.yaml")
    found = breakdown(spec, device="l4", dtype="bfloat16", length=64)
    assert found.fits is not None
    size = device("l4").memory[-1].size
    assert found.fits.training == (0, found.memory.training - size)
    assert found.fits.serving == (0, found.memory.decode - size)  # type: ignore[operator]


@pytest.mark.parametrize("bend", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("most", [1, 2, 7, 100, 5_431])
def test_the_largest_that_fits(bend: float, most: int) -> None:
    asked: list[int] = []

    def need(number: int) -> int:
        asked.append(number)
        return 1_000 + int(100 * number**bend)

    assert largest(need, need(most), limit=10_000) == (max(n for n in range(1, 10_001) if need(n) <= need(most)), 0)
    asked.clear()
    assert largest(need, 1_050) == (0, 50)
    assert largest(need, 10**12, limit=64) == (64, 0)


def test_few_prices_tell_what_fits() -> None:
    asked = []
    largest(lambda number: asked.append(number) or 1_000 + 37 * number, 10_000_000)
    assert len(asked) <= 4


def test_phases_that_are_not_there() -> None:
    found = breakdown(SPECS["image"](), device="l4", fitting=False)
    assert set(found.passes) == {"prefill", "step"}
    assert "causal" in found.absent["decode"]
    assert found.throughput("decode") is None and found.context is None
    assert found.unit == "sample"
    with pytest.raises(SpecError, match="causal"):
        require(SPECS["image"](), "decode")
    with pytest.raises(SpecError):
        breakdown(SPECS["image"](), device="l4", context=3)
    with pytest.raises(SpecError, match="the interface allows 24"):
        breakdown(decoder(GROUPED), device="l4", context=24)


def test_a_step_needs_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "LOSSES", {})
    found = breakdown(decoder(GROUPED), device="l4", fitting=False)
    assert "no loss is known for causal_lm" in found.absent["step"]
    with pytest.raises(SpecError, match="no loss"):
        training_run(found, tokens=1e9, devices=1, mfu=0.4)


def test_a_training_run() -> None:
    found = breakdown(load(ZOO / "language" / "gpt2.yaml"), device="a100_80gb", dtype="bfloat16", fitting=False)
    run = training_run(found, tokens=300e9, devices=8, mfu=0.4)
    dense = 6 * found.cost.parameters * 300e9  # Kaplan et al. 2020; attention comes on top
    assert 1.0 < run.flops / dense < 1.25
    assert run.hours * 3600 * 8 * 0.4 * 312e12 == pytest.approx(run.flops)
    twice = training_run(found, tokens=300e9, devices=16, mfu=0.4)
    assert twice.hours == pytest.approx(run.hours / 2)
    assert twice.energy == pytest.approx(run.energy)


def test_a_dictionary_and_where_its_numbers_come_from() -> None:
    found = breakdown(decoder(GROUPED), device="l4")
    plain = found.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert set(plain["latency_ms"]) == set(PHASES)
    provenance = plain["provenance"]
    for name in ("parameters", "flops", "macs", "bytes", "intensity", "memory", "latency_ms", "throughput", "energy_j"):
        assert set(provenance[name]) == set(plain[name])
    for phase in PHASES:
        low, high = provenance["latency_ms"][phase]["interval"]
        assert low < plain["latency_ms"][phase] < high
        low, high = provenance["throughput"][phase]["interval"]
        assert low < plain["throughput"][phase] < high
    assert provenance["memory"]["cache"] == {"origin": "exact"}
    assert provenance["energy_j"]["prefill"] == {"origin": "estimate"}


def test_operators_that_nobody_knows_are_named() -> None:
    spec = decoder(GROUPED)
    work = steps(spec, batch=1, lengths={"length": 24}, dtype=torch.float32)
    unit = work.steps[0].unit
    table = tuple(replace(row, name="aten.strange", priced=False) for row in unit.cost.inference)
    object.__setattr__(unit, "cost", replace(unit.cost, inference=table))
    try:
        found = breakdown(spec, device="l4", fitting=False)
    finally:
        from search.cost.unit import forget

        forget()
    assert found.passes["prefill"].unknown == ("aten.strange",)
    assert found.passes["prefill"].origins["bytes"] > 0
    assert found.cost.unpriced == ("aten.strange",)
