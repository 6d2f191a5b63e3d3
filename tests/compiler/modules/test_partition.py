"""Partition: groups, what their tokens see, and the way back, against attention over all pairs."""

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from archspec.kinds.partition import Cut
from archspec.streams import Axis, single
from compiler.modules.partition import Grid
from tests.compiler.modules.bodies import assert_close, body, by_pairs, under

ATTENTION = "{kind: attention, heads: 2}"
# A scheme on a grid, and which group a token at (row, column) belongs to.
SCHEMES = {
    "windows": ("scheme: {kind: windows, size: 2}", (4, 6), lambda r, c: (r // 2, c // 2)),
    "windows of two sizes": ("scheme: {kind: windows, size: [4, 3]}", (4, 6), lambda r, c: (r // 4, c // 3)),
    "padded windows": ("scheme: {kind: windows, size: 4, pad: true}", (5, 6), lambda r, c: (r // 4, c // 4)),
    "strided": ("scheme: {kind: strided, size: 2}", (4, 6), lambda r, c: (r % 2, c % 3)),
    "padded strided": ("scheme: {kind: strided, size: 2, pad: true}", (3, 5), lambda r, c: (r % 2, c % 3)),
    "rows": ("within: [column]", (4, 6), lambda r, c: (r, 0 * c)),
    "columns": ("within: [row]", (4, 6), lambda r, c: (0 * r, c)),
    "all": ("within: [row, column]", (4, 6), lambda r, c: (0 * r, 0 * c)),
    # After a shift, tokens of both ends of an axis share a window and do not see each other: as if the windows were
    # moved and the outer ones cut off.
    "shifted": ("scheme: {kind: windows, size: 4, shift: 2}", (8, 8), lambda r, c: ((r + 2) // 4, (c + 2) // 4)),
    "shifted by one": ("scheme: {kind: windows, size: 3, shift: 1}", (6, 9), lambda r, c: ((r + 2) // 3, (c + 2) // 3)),
    "shifted along the axis of more windows": (
        "scheme: {kind: windows, size: 4, shift: 2}", (4, 8), lambda r, c: (0 * r, (c + 2) // 4)),
    "padded and shifted": (
        "scheme: {kind: windows, size: 4, shift: 2, pad: true}", (6, 7), lambda r, c: ((r + 2) // 4, (c + 2) // 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMES)
@torch.no_grad()
def test_attention_in_groups_is_attention_under_a_mask(name: str) -> None:
    scheme, (rows, columns), group = SCHEMES[name]
    model = body(f"{{kind: partition, {scheme}, body: {ATTENTION}}}", f"row: {rows}, column: {columns}")
    x = torch.randn(3, rows, columns, 16)
    row, column = torch.arange(rows * columns) // columns, torch.arange(rows * columns) % columns
    of = torch.stack(group(row, column), dim=-1)
    allowed = (of[:, None] == of[None, :]).all(-1)
    assert_close(model(x), by_pairs(under(model, "partition.body"), x.flatten(1, 2), 2, allowed=allowed))


@pytest.mark.parametrize("causal", ["", "token"])
@pytest.mark.parametrize("scheme", ["size: 4", "count: 3"])
@torch.no_grad()
def test_chunks_of_a_sequence_keep_its_causality(scheme: str, causal: str) -> None:
    model = body(f"{{kind: partition, scheme: {{kind: chunks, {scheme}}}, body: {ATTENTION}}}", causal=causal)
    x = torch.randn(2, 12, 16)
    place = torch.arange(12)
    allowed = place[:, None] // 4 == place[None, :] // 4
    if causal:
        allowed &= place[:, None] >= place[None, :]
    assert_close(model(x), by_pairs(under(model, "partition.body"), x, 2, allowed=allowed))


@pytest.mark.parametrize("causal", ["", "token"])
@torch.no_grad()
def test_the_last_chunk_may_be_filled_up(causal: str) -> None:
    model = body(
        f"{{kind: partition, scheme: {{kind: chunks, size: 4, pad: true}}, body: {ATTENTION}}}",
        "token: 10",
        causal=causal,
    )
    x = torch.randn(2, 10, 16)
    place = torch.arange(10)
    allowed = place[:, None] // 4 == place[None, :] // 4
    if causal:
        allowed &= place[:, None] >= place[None, :]
    assert_close(model(x), by_pairs(under(model, "partition.body"), x, 2, allowed=allowed))


@torch.no_grad()
def test_strided_groups_of_a_causal_sequence_stay_causal() -> None:
    model = body(f"{{kind: partition, scheme: {{kind: strided, size: 4}}, body: {ATTENTION}}}", causal="token")
    x = torch.randn(2, 12, 16)
    place = torch.arange(12)
    allowed = (place[:, None] % 3 == place[None, :] % 3) & (place[:, None] >= place[None, :])
    assert_close(model(x), by_pairs(under(model, "partition.body"), x, 2, allowed=allowed))


@torch.no_grad()
def test_chunks_of_a_length_known_only_at_run_time() -> None:
    model = body(f"{{kind: partition, scheme: {{kind: chunks, size: 4}}, body: {ATTENTION}}}", "token: length")
    for length in (4, 12, 20):
        x = torch.randn(2, length, 16)
        place = torch.arange(length)
        allowed = place[:, None] // 4 == place[None, :] // 4
        assert_close(model(x), by_pairs(under(model, "partition.body"), x, 2, allowed=allowed))


@torch.no_grad()
def test_volumes_are_cut_along_three_axes() -> None:
    model = body(f"{{kind: partition, scheme: {{kind: windows, size: [2, 3, 2], shift: 1}}, body: {ATTENTION}}}",
                 "slice: 4, row: 6, column: 4")  # fmt: skip
    x = torch.randn(2, 4, 6, 4, 16)
    s, r, c = torch.meshgrid(torch.arange(4), torch.arange(6), torch.arange(4), indexing="ij")
    of = torch.stack(((s + 1) // 2, (r + 2) // 3, (c + 1) // 2), dim=-1).flatten(0, 2)
    allowed = (of[:, None] == of[None, :]).all(-1)
    assert_close(model(x), by_pairs(under(model, "partition.body"), x.flatten(1, 3), 2, allowed=allowed))


@torch.no_grad()
def test_padding_of_the_input_and_of_the_windows_are_both_unseen() -> None:
    model = body(f"{{kind: partition, scheme: {{kind: windows, size: 4, pad: true}}, body: {ATTENTION}}}",
                 "token: 10", interface="padding: true")  # fmt: skip
    x = torch.randn(2, 10, 16)
    valid = torch.ones(2, 10, dtype=torch.bool)
    valid[0, [1, 9]] = False
    place = torch.arange(10)
    allowed = (place[:, None] // 4 == place[None, :] // 4) & valid[:, None, None]
    assert_close(model(x, valid), by_pairs(under(model, "partition.body"), x, 2, allowed=allowed))


def test_gradients_are_finite_where_a_window_holds_padding_alone() -> None:
    """Shifted and padded, the last window's seam separates its padding from its tokens; scores changed by hand."""
    for more in ("", ", softcap: 5", ", talking_heads: true"):
        attention = f"{{kind: attention, heads: 2{more}}}"
        model = body(f"{{kind: partition, scheme: {{kind: windows, size: 4, shift: 2, pad: true}}, body: {attention}}}",
                     "row: 6, column: 6")  # fmt: skip
        y = model(torch.randn(1, 6, 6, 16))
        y.square().sum().backward()
        assert y.isfinite().all()
        assert all(p.grad.isfinite().all() for p in model.parameters()), more


SIZES = {
    "windows": [Cut(Axis("row", 6), 3, 2), Cut(Axis("column", 8), 2, 4)],
    "shifted": [Cut(Axis("row", 6), 3, 2, shift=1), Cut(Axis("column", 8), 2, 4, shift=3)],
    "strided": [Cut(Axis("row", 6), 3, 2, strided=True), Cut(Axis("column", 8), 2, 4, strided=True)],
    "padded": [Cut(Axis("row", 6), 2, 4, padded=8), Cut(Axis("column", 8), 3, 3, padded=9)],
    "padded, shifted": [Cut(Axis("row", 6), 2, 4, shift=2, padded=8), Cut(Axis("column", 8), 3, 3, shift=1, padded=9)],
    "within": [Cut(Axis("row", 6), 1, 6), Cut(Axis("column", 8), 8, 1)],
}


@pytest.mark.parametrize("name", SIZES)
def test_joining_undoes_splitting(name: str) -> None:
    cuts = SIZES[name]
    grid = Grid(single(5, "image", Axis("row", 6), Axis("column", 8)), cuts)
    x = torch.randn(3, 48, 5)
    groups = grid.split(x)
    count = cuts[0].groups * cuts[1].groups  # type: ignore[operator]
    size = cuts[0].size * cuts[1].size  # type: ignore[operator]
    assert groups.shape == (3 * count, size, 5)
    assert torch.equal(grid.join(groups, 3), x)


@torch.no_grad()
def test_a_group_may_change_its_length() -> None:
    """Pooling each window gives one token a window, in their order."""
    model = body("{kind: partition, scheme: {kind: windows, size: 2}, body: pool}", "row: 4, column: 6")
    x = torch.randn(2, 4, 6, 16)
    expected = x.unflatten(1, (2, 2)).unflatten(3, (3, 2)).mean((2, 4)).flatten(1, 2)
    assert_close(model(x), expected)
    assert str(model.spec.graph.output) == "x[row=2, column=3] × 16"


@torch.no_grad()
def test_streams_of_other_names_reach_every_group_whole() -> None:
    model = body(
        "[{name: words, from: x, kind: layer_norm}, {from: x, kind: partition, scheme: {kind: windows, size: 2}, "
        "body: {kind: attention, heads: 2, memory: words}}]", "row: 4, column: 6")  # fmt: skip
    state = under(model, "partition.body")
    whole = body("[{name: words, from: x, kind: layer_norm}, {from: x, kind: attention, heads: 2, memory: words}]",
                 "row: 4, column: 6")  # fmt: skip
    whole.load_state_dict({"words.weight": model.words.weight, "words.bias": model.words.bias}
                          | {f"attention.{name}": value for name, value in state.items()})  # fmt: skip
    x = torch.randn(2, 4, 6, 16)
    assert_close(model(x), whole(x))


def test_labels_go_along_with_their_tokens() -> None:
    node = (
        "{kind: partition, scheme: {kind: windows, size: 2, shift: 1}, body: {kind: label_embedding, label: speaker}}"
    )
    model = body(node, "row: 4, column: 4", interface="labels: {speaker: 3}")
    x, labels = torch.randn(2, 4, 4, 16), torch.randint(0, 3, (2, 16))
    rows: Tensor = model.get_parameter("partition.body.weight")
    assert_close(model(x, labels), x.flatten(1, 2) + rows[labels])


@pytest.mark.parametrize(
    ("fields", "axes", "cause"),
    [
        ("scheme: {kind: windows, size: 4}, ", "row: 6, column: 8", "row 6 does not divide"),
        ("scheme: {kind: windows, size: [2, 2, 2]}, ", "row: 6, column: 8", "3 sizes for 2 axes"),
        ("scheme: {kind: chunks, size: 2}, ", "row: 6, column: 8", "chunks are cut from one axis"),
        ("scheme: {kind: chunks, size: 2, count: 3}, ", "token: 6", "say either size or count"),
        ("within: [time], ", "row: 6, column: 8", "there is no axis 'time'"),
        ("within: [row], scheme: windows, ", "row: 6", "say either scheme or within"),
        ("", "row: 6", "say either scheme or within"),
        ("scheme: {kind: windows, size: 2, pad: true}, ", "token: length", "no fixed size"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused(fields: str, axes: str, cause: str) -> None:
    with pytest.raises(SpecError) as error:
        body(f"{{kind: partition, {fields}body: layer}}", axes)
    assert cause in str(error.value)
    assert len(error.value.problems) == 1
