"""Block-sparse attention against the released one, and against all pairs with a mask."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from archspec.errors import SpecError
from compiler.logical import logical
from compiler.modules.block_sparse_attention import pattern
from tests.compiler.modules.bodies import assert_close, body, by_pairs, under
from tests.models import perturbed


@pytest.mark.parametrize("tokens", [12, 28, 29, 32, 64])
@torch.no_grad()
def test_block_sparse_attention_is_that_of_transformers(tokens: int) -> None:
    transformers: Any = pytest.importorskip("transformers")
    config = transformers.BigBirdConfig(
        vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=64, block_size=4, num_random_blocks=1,
    )  # fmt: skip
    model = perturbed(transformers.BigBirdModel(config)).eval()
    layer, seen = model.encoder.layer[0].attention, {}
    layer.self.register_forward_hook(lambda _, given, out: seen.update(x=given[0], y=out[0]))
    ids, valid = torch.randint(0, 9, (3, tokens)), torch.arange(tokens) < torch.tensor([[tokens], [tokens // 2], [1]])
    whole = tokens <= 28
    if whole:  # the layer is replaced where the sequence is short
        model.set_attention_type("original_full")
        layer.self.register_forward_hook(lambda _, given, out: seen.update(x=given[0], y=out[0]))
    model(ids, attention_mask=valid.long())
    ours = body(
        "{name: a, kind: block_sparse_attention, heads: 2, block: 4, random: 1, evaluation: first, "
        "linears: {out: no_matrix}}",
        interface="padding: true",
    )
    views = logical(ours)
    for name, value in layer.self.state_dict().items():
        views[f"a.{name}"].copy_(value)
    assert_close(ours(seen["x"][:, :tokens], valid)[valid], seen["y"][:, :tokens][valid])


@torch.no_grad()
def test_the_pattern_is_a_mask_of_all_pairs() -> None:
    node = "{name: a, kind: block_sparse_attention, heads: 2, block: 2, random: 2, seed: 3, bias: false}"
    model, x = body(node), torch.randn(2, 23, 16)
    block = torch.arange(23) // 2
    allowed = (block[:, None] - block).abs() <= 1
    allowed |= (block == 0) | (block == 11) | (block[:, None] == 0) | (block[:, None] == 11)
    allowed = allowed.repeat(2, 1, 1)
    for head, rows in enumerate(pattern(10, 2, 2, 3)):
        for number, chosen in enumerate(rows, 1):
            assert len(set(chosen)) == 2 and not set(chosen) & {0, 11, number - 1, number, number + 1}
            allowed[head] |= (block[:, None] == number) & torch.isin(block, torch.tensor(chosen))
    assert_close(model(x), by_pairs(under(model, "a"), x, 2, allowed=allowed))
    assert_close(model.train()(x), model.eval()(x))


def test_blocks_cost_less_than_all_pairs() -> None:
    model = body("{kind: block_sparse_attention, heads: 2, block: 2, random: 1}")
    counts = []
    for tokens in (64, 128, 192):
        with FlopCounterMode(display=False) as counter:
            model(torch.randn(1, tokens, 16))
        counts.append(counter.get_total_flops())
    assert counts[2] - counts[1] == counts[1] - counts[0]


def test_shifted_windows_are_refused() -> None:
    with pytest.raises(SpecError, match="does not keep segments apart"):
        body(
            "{kind: partition, scheme: {kind: windows, size: 4, shift: 2}, "
            "body: {kind: block_sparse_attention, heads: 2}}"
        )
