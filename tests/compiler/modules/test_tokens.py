"""Joined streams: what their tokens carry stands one after another too."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from archspec.errors import SpecError
from archspec.spec import Spec, loads
from compiler.model import compile
from search.cost import price
from tests.compiler.modules.bodies import assert_close, body
from tests.models import perturbed

READER = """
archspec: 1
interface: {kind: seq2seq_lm, vocab: 40, length: 12, source_length: 12, padding: %s}
graph:
  - {name: read, from: source, kind: token_embedding, width: 16}
  - {name: encoded, kind: residual, body: {kind: attention, heads: 2}}
  - {name: early, from: read, kind: rename, span: early}
  - {name: memory, from: [%s], kind: join}
  - {name: wrote, from: target, kind: token_embedding, width: 16}
  - {kind: residual, body: {kind: attention, heads: 2, memory: memory}}
  - lm_head
"""


def reader(streams: str, padding: str = "true") -> Spec:
    text = READER % (padding, streams)
    queries = "  - {name: queries, kind: learned_queries, count: 3, width: 16}\n"
    return loads(text.replace("  - {name: memory", queries + "  - {name: memory") if "queries" in streams else text)


@pytest.mark.parametrize("streams", ["encoded, early", "early, queries", "queries, encoded"])
def test_padded_tokens_of_a_joined_memory_are_not_read(streams: str) -> None:
    model = perturbed(compile(reader(streams))).eval()
    source, target = torch.randint(0, 40, (2, 12)), torch.randint(0, 40, (2, 9))
    seen, all_ = torch.arange(12)[None] < torch.tensor([[8], [12]]), torch.ones(2, 9, dtype=torch.bool)
    before = model(source, target, source_valid=seen, target_valid=all_)
    assert torch.equal(before, model(source.masked_fill(~seen, 7), target, source_valid=seen, target_valid=all_))
    assert not torch.allclose(before, model(source, target, source_valid=seen | True, target_valid=all_))
    alone = model(source[:1, :8], target[:1], source_valid=seen[:1, :8], target_valid=all_[:1])
    assert_close(before[:1], alone)


@pytest.mark.parametrize("streams", ["encoded, early", "queries, encoded"])
def test_a_joined_memory_is_priced_with_and_without_padding(streams: str) -> None:
    padded, plain = (price(reader(streams, padding), device="l4") for padding in ("true", "false"))
    assert padded.parameters == plain.parameters
    assert padded.forward == plain.forward


def joined(streams: str, interface: str = "", **of: Any) -> nn.Module:
    nodes = "{name: b, from: x, kind: rename, span: b}, {name: q, kind: learned_queries, count: 3, width: 16}"
    found: nn.Module = body(f"[{nodes}, {{name: j, from: [{streams}], kind: join}}, %s]" % of.pop("then"),
                            interface=interface, **of)  # fmt: skip
    return found


def test_labels_stand_one_after_another() -> None:
    model = joined("x, b", "labels: {speaker: 3}", then="{kind: label_embedding, label: speaker}")
    x, speaker = torch.randn(2, 12, 16), torch.randint(0, 3, (2, 12))
    (table,) = (one for one in model.parameters() if one.dim() == 2)
    expected: Tensor = torch.cat((x, x), dim=1) + table[torch.cat((speaker, speaker), dim=1)]
    assert_close(model(x, speaker), expected)


def test_labels_that_some_tokens_lack_are_gone() -> None:
    with pytest.raises(SpecError, match="label"):
        joined("x, q", "labels: {speaker: 3}", then="{kind: label_embedding, label: speaker}")


def test_the_mean_of_joined_tokens_is_that_of_the_real_ones() -> None:
    model = joined("q, x", "padding: true", then="{kind: pool}")
    x, valid = torch.randn(2, 12, 16), torch.arange(12)[None] < torch.tensor([[5], [12]])
    (queries,) = model.parameters()
    rows = [torch.cat((queries[0], x[n, valid[n]])).mean(0) for n in range(2)]
    assert_close(model(x, valid), torch.stack(rows))


def test_only_some_streams_in_segments_are_refused() -> None:
    windows = "{kind: partition, scheme: {kind: windows, size: 4, shift: 2}, body: [{name: w, kind: identity}, " \
              "{name: q, kind: learned_queries, count: 3, width: 16}, {from: [w, q], kind: join}, " \
              "{kind: attention, heads: 2}]}"  # fmt: skip
    with pytest.raises(SpecError, match="segments"):
        body(windows, axes="row: 8, column: 8")
