"""Runs that are foretold against runs that are written down."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search.cost import lengths, price, unit
from search.cost.meter import record_block
from search.cost.recording import Irregular, Series
from tests.search.cost.small import EMBED, layer, spec

MIXERS = {
    "mamba": "{kind: mamba}",
    "mamba2": "{kind: mamba2, heads: 4, chunk: 16}",
    "gated delta rule": "{kind: gated_delta_rule, heads: 4}",
}


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_long_loop_costs_what_it_is_foretold_to(mixer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = spec("{kind: causal_lm, vocab: 48, length: 4096}", EMBED, layer(MIXERS[mixer]), "lm_head")
    found: list[Any] = []
    foretold = lengths._foretold
    monkeypatch.setattr(lengths, "_foretold", lambda *args: found.append(foretold(*args)) or found[-1])
    costs = []
    for most in (100, 10**9):
        monkeypatch.setattr(lengths, "LONG", most)
        unit.forget()
        costs.append((price(model, length=2041, device="l4"), {key: one.cost for key, one in unit._units.items()}))
    unit.forget()
    assert any(found)
    assert costs[0] == costs[1]


class Loop(nn.Module):
    """Reads tokens so many at a time; ``kind`` says what makes it hard to foretell."""

    def __init__(self, chunk: int, kind: str) -> None:
        super().__init__()
        self.chunk, self.kind = chunk, kind
        self.mix = nn.Linear(4, 4, device="meta")

    def forward(self, x: Tensor) -> Tensor:
        state, read = x[:, :1], []
        for number, part in enumerate(x.split(self.chunk, dim=1)):
            state = (state + part.sum(dim=1, keepdim=True)).relu()
            if self.kind == "roots" and number % 2:
                state = state.exp()
            read.append(part * state)
        if self.kind == "growing":
            for number in range(1, len(read)):
                read[number] = torch.cat(read[: number + 1], dim=1).cumsum(dim=1)[:, -self.chunk :]
        out = torch.cat(read, dim=1)
        if self.kind == "square":
            return out + (out @ x.transpose(1, 2)).softmax(dim=-1) @ x
        if self.kind == "threshold" and x.shape[1] > 100:
            return self.mix(out.exp())
        return self.mix(out)


def run(kind: str, tokens: int, chunk: int = 5) -> Any:
    module = Loop(chunk, kind)
    return record_block(module, [torch.empty(2, tokens, 4, device="meta", requires_grad=True)], train=True)


@pytest.mark.parametrize(("kind", "stride"), [("plain", 5), ("square", 5), ("roots", 10)])
def test_four_runs_tell_a_long_one(kind: str, stride: int) -> None:
    for rest in (0, 3):
        series = Series([run(kind, 40 + rest + stride * number) for number in range(4)])
        assert series.at(37) == run(kind, 40 + rest + stride * 37).cost()
        assert series.begins(run(kind, 40 + rest + stride * 9).inference, 9)
        assert series.at(0) == run(kind, 40 + rest).cost()


@pytest.mark.parametrize("kind", ["growing", "roots"])
def test_what_is_no_loop_of_that_stride_is_not_foretold(kind: str) -> None:
    with pytest.raises(Irregular):
        Series([run(kind, 40 + 5 * number) for number in range(4)])


def test_what_happens_at_some_length_only_is_seen_by_where_it_begins_or_far_away() -> None:
    series = Series([run("threshold", 40 + 5 * number) for number in range(4)])
    assert series.at(19) != run("threshold", 40 + 5 * 19).cost()
