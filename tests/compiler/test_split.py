"""What a decoder reads of its source is computed once for all tokens that it decodes."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from archspec.spec import loads
from compiler.decoding import Decoding
from compiler.model import compile
from compiler.split import split
from search.cost.operators import FORMULAS
from tests.models import perturbed

WIDTH, VOCAB = 16, 32
CROSS = {
    "plain": "kind: attention, heads: 2",
    "grouped": "kind: attention, heads: 4, kv_heads: 2, qk_norm: rms_norm, value_norm: rms_norm",
    "low rank": "kind: attention, heads: 2, linear: {kind: low_rank, rank: 3}",
    "biased": "kind: attention, heads: 2, bias: true, softcap: 5, head_width: 4",
}


def model(cross: str, times: int = 2) -> Any:
    text = f"""
archspec: 1
name: small
interface: {{kind: seq2seq_lm, vocab: {VOCAB}, length: 64, padding: true}}
blocks:
  self: {{kind: residual, norm: rms_norm, body: {{kind: attention, heads: 2}}}}
  cross: {{kind: residual, norm: rms_norm, body: {{{cross}, memory: encoded}}}}
graph:
  - {{name: words, from: source, kind: token_embedding, width: {WIDTH}}}
  - {{name: encoded, kind: self}}
  - {{from: target, kind: token_embedding, width: {WIDTH}}}
  - {{kind: repeat, times: {times}, body: [self, cross]}}
  - lm_head
"""
    return perturbed(compile(loads(text))).eval()


def given(source: int, target: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = {"source": torch.randint(0, VOCAB, (3, source), generator=generator),
           "target": torch.randint(0, VOCAB, (3, target), generator=generator)}  # fmt: skip
    lengths = torch.tensor([source, source - 2, source // 2])
    return {**ids, "source_valid": torch.arange(source) < lengths[:, None],
            "target_valid": torch.ones(3, target, dtype=torch.bool)}  # fmt: skip


@pytest.mark.parametrize("cross", CROSS)
@torch.no_grad()
def test_a_ragged_source_is_read_while_decoding_as_in_the_full_pass(cross: str) -> None:
    built, tensors = model(CROSS[cross]), given(9, 11)
    decoding = Decoding(built, source={name: tensors[name] for name in ("source", "source_valid")})
    found = [decoding(piece) for piece in tensors["target"].split([4, 1, 1, 3, 1, 1], dim=1)]
    torch.testing.assert_close(torch.cat(found, dim=1), built(*tensors.values()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cross", CROSS)
@torch.no_grad()
def test_a_step_multiplies_nothing_but_scores_by_the_length_of_the_source(cross: str) -> None:
    built, flops = model(CROSS[cross]), {}
    for source in (8, 40):
        tensors = given(source, 5)
        decoding = Decoding(built, source={name: tensors[name] for name in ("source", "source_valid")})
        decoding(tensors["target"][:, :4])
        with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
            decoding(tensors["target"][:, 4:])
        flops[source] = counter.get_total_flops()
    width = 4 * 2 if cross == "biased" else WIDTH
    assert flops[40] - flops[8] == 2 * 3 * (2 * width + 2 * width) * 32  # layers, batch, queries by keys and by values


@torch.no_grad()
def test_two_parts_are_the_whole_and_leave_it_alone() -> None:
    built, tensors = model(CROSS["plain"]), given(9, 11)
    expected = built(*tensors.values())
    built.train()
    once, step = split(built, ["target", "target_valid"])
    assert built.training and all(module.training for module in built.modules())
    known = once(tensors["source"], tensors["source_valid"])
    assert torch.equal(step(tensors["target"], tensors["target_valid"], *known), expected)
    assert {id(p) for part in (once, step) for p in part.parameters()} == {id(p) for p in built.parameters()}


@torch.no_grad()
def test_padding_before_a_target_changes_nothing_where_a_source_is_read() -> None:
    built, tensors = model("kind: attention, heads: 2"), given(9, 11)
    expected = built(*tensors.values())
    start = torch.tensor([0, 4, 1])
    rows = zip(tensors["target"], start.tolist(), strict=True)
    shifted = torch.stack([torch.cat((row[:before], row[: 11 - before])) for row, before in rows])
    decoding = Decoding(built, start=start, source={name: tensors[name] for name in ("source", "source_valid")})
    found = torch.cat([decoding(piece) for piece in shifted.split([6, 1, 1, 3], dim=1)], dim=1)
    for row, before in enumerate(start.tolist()):
        torch.testing.assert_close(found[row, before:], expected[row, : 11 - before], atol=1e-5, rtol=1e-5)
