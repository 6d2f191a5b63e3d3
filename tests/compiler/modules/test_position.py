"""Positions against published values and tables written out."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from compiler.modules.position import slopes
from tests.compiler.modules.bodies import assert_close, body, by_pairs, under


def attention(position: str, axes: str, width: int = 16, **of: Any) -> Any:
    return body(f"{{kind: attention, heads: 2, position: {position}}}", axes, width, **of)


# Slopes of the paper's own code for 8 heads, for 16, and for 12, a number that is no power of two.
SLOPES = {
    8: [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256],
    16: [2 ** (-0.5 * number) for number in range(1, 17)],
    12: [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256, 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5],
    1: [1 / 256],
    2: [1 / 16, 1 / 256],
    3: [1 / 16, 1 / 256, 1 / 4],
}


@pytest.mark.parametrize("heads", SLOPES)
def test_alibi_slopes_are_the_published_ones(heads: int) -> None:
    assert slopes(heads) == pytest.approx(SLOPES[heads])


@pytest.mark.parametrize("heads", [4, 6, 8, 12, 20, 25])
def test_alibi_slopes_are_those_of_transformers(heads: int) -> None:
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    alibi = bloom.build_alibi_tensor(torch.ones(1, 2), heads, torch.float64)  # slope times place
    assert slopes(heads) == pytest.approx(alibi[:, 0, 1].tolist(), rel=1e-6)


@pytest.mark.parametrize("steepest", [4, 8])
@pytest.mark.parametrize("heads", [4, 6, 8, 12, 20, 25])
def test_alibi_slopes_are_those_of_mpt(heads: int, steepest: int) -> None:
    mpt = pytest.importorskip("transformers.models.mpt.modeling_mpt")
    alibi = mpt.build_mpt_alibi_tensor(heads, 2, steepest)
    assert slopes(heads, steepest) == pytest.approx((-alibi[:, 0, 0]).tolist(), rel=1e-6)


@pytest.mark.parametrize("heads", [4, 6, 20])
@torch.no_grad()
def test_rounded_alibi_is_that_of_falcon(heads: int) -> None:
    falcon = pytest.importorskip("transformers.models.falcon.modeling_falcon")
    model = body(f"{{kind: attention, heads: {heads}, position: {{kind: alibi, rounded: true, factor: 0.25}}}}",
                 "token: n", 16 * heads, causal="token")  # fmt: skip
    alibi = falcon.build_alibi_tensor(torch.ones(1, 600).long(), heads, torch.float32)
    x = torch.zeros(1, 600, 1, 1)
    assert torch.equal(model.get_submodule("attention.position")(x, x, None, None)[0], alibi / 4)


@pytest.mark.parametrize("causal", ["", "token"])
@torch.no_grad()
def test_alibi_adds_a_penalty_that_grows_with_the_distance(causal: str) -> None:
    model = attention("alibi", "token: 12", causal=causal)
    x = torch.randn(2, 12, 16)
    place = torch.arange(12)
    bias = -torch.tensor(SLOPES[2])[:, None, None] * (place[:, None] - place[None, :]).abs()
    allowed = place[:, None] >= place[None, :] if causal else None
    assert_close(model(x), by_pairs(under(model, "attention"), x, 2, bias=bias, allowed=allowed))


def turned(x: Tensor, places: Tensor, theta: float, pairs: bool) -> Tensor:
    """``[tokens, width]`` as complex numbers, each turned by its place times its frequency."""
    half = x.shape[-1] // 2
    rates = torch.tensor([theta ** (-2 * number / x.shape[-1]) for number in range(half)])
    angles = places[:, None] * rates
    z = (
        torch.view_as_complex(x.unflatten(-1, (half, 2)).contiguous())
        if pairs
        else torch.complex(x[..., :half], x[..., half:])
    )
    z = z * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(z).flatten(-2) if pairs else torch.cat((z.real, z.imag), dim=-1)


@pytest.mark.parametrize("layout", ["pairs", "halves"])
@pytest.mark.parametrize("share", [1.0, 0.5])
@torch.no_grad()
def test_rope_turns_complex_numbers(layout: str, share: float) -> None:
    model = attention(f"{{kind: rope, theta: 100, layout: {layout}, share: {share}}}", "token: 12")
    q, k = torch.randn(1, 12, 2, 8), torch.randn(1, 12, 2, 8)
    cut = int(8 * share)
    for given, found in zip((q, k), model.get_submodule("attention.position")(q, k, None, None), strict=True):
        for head in range(2):
            x = given[0, :, head]
            expected = torch.cat((turned(x[:, :cut], torch.arange(12), 100, layout == "pairs"), x[:, cut:]), dim=-1)
            torch.testing.assert_close(found[0, :, head], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["pairs", "halves"])
@torch.no_grad()
def test_rope_over_a_grid_gives_each_axis_its_share(layout: str) -> None:
    """Along each axis its part of the frequencies turns by that axis's index."""
    model = attention(f"{{kind: rope, theta: 100, layout: {layout}}}", "row: 3, column: 4")
    rope = model.get_submodule("attention.position")
    q = torch.randn(1, 12, 2, 8)
    found = rope(q, q, None, None)[0]
    row, column = torch.arange(12) // 4, torch.arange(12) % 4
    for head in range(2):
        x = q[0, :, head]
        if layout == "pairs":
            parts = [(x[:, :4], row), (x[:, 4:], column)]
            expected = torch.cat([turned(part, place, 100, True) for part, place in parts], dim=-1)
        else:  # the first half of the numbers' real and of their imaginary parts belongs to the rows
            rows = turned(x[:, [0, 1, 4, 5]], row, 100, False)
            columns = turned(x[:, [2, 3, 6, 7]], column, 100, False)
            expected = torch.cat((rows[:, :2], columns[:, :2], rows[:, 2:], columns[:, 2:]), dim=-1)
        torch.testing.assert_close(found[0, :, head], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_rope_over_a_grid_depends_on_offsets_alone() -> None:
    """The score of two tokens is that of any two at the same offset along both axes."""
    model = attention("rope", "row: 5, column: 6")
    one = torch.randn(2, 2, 8)
    q, k = (part.expand(1, 30, 2, 8) for part in one)
    q, k = model.get_submodule("attention.position")(q, k, None, None)
    scores = (q.transpose(1, 2) @ k.transpose(1, 2).transpose(-1, -2))[0]
    found: dict[tuple[int, int], Tensor] = {}
    for a, b in product(range(30), repeat=2):
        offset = (a // 6 - b // 6, a % 6 - b % 6)
        torch.testing.assert_close(scores[:, a, b], found.setdefault(offset, scores[:, a, b]), atol=1e-4, rtol=0)
    assert len(found) == 9 * 11
    assert not torch.allclose(found[1, 0], found[0, 1], atol=1e-3)


@pytest.mark.parametrize(
    ("axes", "sizes"), [("token: 5", (5,)), ("row: 3, column: 4", (3, 4)), ("t: 2, r: 3, c: 2", (2, 3, 2))]
)
@torch.no_grad()
def test_relative_bias_table_has_a_row_for_each_offset(axes: str, sizes: tuple[int, ...]) -> None:
    model = attention("relative_bias_table", axes)
    state = under(model, "attention")
    table = state["position.weight"]
    rows = {offset: n for n, offset in enumerate(product(*(range(-size + 1, size) for size in sizes)))}
    assert table.shape == (len(rows), 2)
    places = list(product(*map(range, sizes)))
    bias = torch.stack([
        torch.stack([table[rows[tuple(i - j for i, j in zip(a, b, strict=True))]] for b in places]) for a in places
    ]).permute(2, 0, 1)  # fmt: skip
    x = torch.randn(2, *sizes, 16)
    assert_close(model(x), by_pairs(state, x.flatten(1, len(sizes)), 2, bias=bias))


@torch.no_grad()
def test_sinusoidal_positions_are_those_of_the_paper() -> None:
    model = body("sinusoidal_position", "token: 20")
    found = model(torch.zeros(1, 20, 16))[0]
    for place, pair in product(range(20), range(8)):
        angle = place / 10000 ** (2 * pair / 16)
        assert found[place, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-6)
        assert found[place, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


@torch.no_grad()
def test_sines_before_cosines_are_those_of_pegasus() -> None:
    pegasus = pytest.importorskip("transformers.models.pegasus.modeling_pegasus")
    table = pegasus.PegasusSinusoidalPositionalEmbedding(60, 16).create_weight()
    found = body("{kind: sinusoidal_position, layout: halves}", "token: 60")(torch.zeros(1, 60, 16))[0]
    torch.testing.assert_close(found, table, atol=1e-6, rtol=0)


def padded(position: str) -> Any:
    """A model that adds a position to padded tokens of zeros."""
    return body(f"{{name: places, {position}}}", "token: n", interface="padding: true")


VALID = torch.tensor([[True] * 7, [True] * 4 + [False] * 3, [False] * 2 + [True] * 5, [False, True, True] * 2 + [True]])
ZEROS = torch.zeros(4, 7, 16)


@torch.no_grad()
def test_closed_sines_that_count_real_tokens_are_those_of_m2m_100() -> None:
    m2m = pytest.importorskip("transformers.models.m2m_100.modeling_m2m_100")
    theirs = m2m.M2M100SinusoidalPositionalEmbedding(60, 16, padding_idx=1)
    ids = torch.where(VALID, 5, 1)
    model = padded("kind: sinusoidal_position, layout: halves, closed: true, offset: 2, counted: true")
    torch.testing.assert_close(model(ZEROS, VALID)[VALID], theirs(ids)[VALID], atol=1e-6, rtol=0)


@torch.no_grad()
def test_learned_places_that_count_real_tokens_are_those_of_opt() -> None:
    opt = pytest.importorskip("transformers.models.opt.modeling_opt")
    model = padded("kind: learned_position, offset: 2, counted: true")
    theirs = opt.OPTLearnedPositionalEmbedding(64, 16)
    theirs.weight.copy_(model.get_parameter("places.weight"))
    assert torch.equal(model(ZEROS, VALID), theirs(VALID.long()))


@torch.no_grad()
def test_learned_places_that_count_real_tokens_are_those_of_roberta() -> None:
    roberta = pytest.importorskip("transformers.models.roberta.modeling_roberta")
    model = padded("kind: learned_position, offset: 2, counted: true")
    ids = torch.where(VALID, 5, 1)
    places = roberta.RobertaEmbeddings.create_position_ids_from_input_ids(ids, 1)
    assert torch.equal(model(ZEROS, VALID), model.get_parameter("places.weight")[places])


@torch.no_grad()
def test_learned_positions_over_some_axes_are_shared_along_the_others() -> None:
    model = body("{kind: learned_position, over: [column]}", "row: 3, column: 4")
    x = torch.randn(2, 3, 4, 16)
    table = model.get_parameter("learned_position.weight")
    assert table.shape == (4, 16)
    assert_close(model(x), (x + table).flatten(1, 2))


@torch.no_grad()
def test_linear_scaling_divides_places() -> None:
    scaled = attention("{kind: rope, scaling: {kind: linear, factor: 4}}", "token: 12")
    plain = attention("rope", "token: 12")
    q = torch.randn(1, 3, 2, 8)
    there = torch.tensor([[0, 4, 8]])
    found = scaled.get_submodule("attention.position")(q, q, there, there)[0]
    expected = plain.get_submodule("attention.position")(q, q, torch.tensor([[0, 1, 2]]), None)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
