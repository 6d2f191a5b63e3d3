"""FIT. Chen and Li 2023, arXiv 2305.12689."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from archspec.errors import SpecError
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("fit")

GROUPS = 8


def test_types_tell_the_length_of_each_stream() -> None:
    turns = spec("fit").graph.node("turns")
    assert str(turns.outputs["data"]) == "tokens[token=length] × 64"
    assert str(turns.outputs["latents"]) == "queries[query=32] × 96"
    more = spec("fit", graph__latents__count="16 * groups").graph.node("turns")
    assert more.outputs["data"] == turns.outputs["data"]
    assert str(more.outputs["latents"]) == "queries[query=128] × 96"


@pytest.mark.parametrize("latents", [8, 32, 128])
@torch.no_grad()
def test_stream_lengths_are_independent(latents: int) -> None:
    model = build("fit", graph__latents__count=latents)
    seen: list[tuple[Tensor, Tensor]] = []
    model.get_submodule("turns.1").register_forward_hook(lambda module, given, out: seen.append(out))
    for length in (8, 64, 512):
        model(torch.zeros(2, length, dtype=torch.int64))
    assert [(data.shape, others.shape) for data, others in seen] == [
        ((2, length, 64), (2, latents, 96)) for length in (8, 64, 512)
    ]
    assert parameters(model) == parameters(build("fit")) + (latents - 32) * 96


@torch.no_grad()
def test_groups_meet_only_through_the_latents() -> None:
    """With the layers between latents closed, a token tells its own group and nothing else."""
    model = random(build("fit"))
    seen: list[tuple[Tensor, Tensor]] = []
    model.get_submodule("turns.1").register_forward_hook(lambda module, given, out: seen.append(out))
    tokens = torch.arange(2 * 64).reshape(2, 64) % 256
    other = tokens.clone()
    other[0, 3 * 8 + 5] += 1  # in group 3 of 8 tokens
    model(tokens), model(other)
    assert [((a - b).abs().amax(-1) > 1e-6).sum(1).tolist() for a, b in zip(*seen, strict=True)] == [[64, 0], [32, 0]]

    closed = [
        p
        for name, p in model.named_parameters()
        if ".thought." in name and name.endswith(("out.weight", "down.weight"))
    ]
    assert len(closed) == 2 * 2 * 2
    for parameter in closed:
        parameter.zero_()
    seen.clear()
    model(tokens), model(other)
    data, latents = ((a - b).abs().amax(-1)[0] > 1e-6 for a, b in zip(*seen, strict=True))
    assert data.nonzero().flatten().tolist() == list(range(24, 32))
    assert latents.nonzero().flatten().tolist() == list(range(12, 16))


@pytest.mark.parametrize("kind", ["reading", "writing"])
def test_streams_must_be_cut_into_as_many_groups(kind: str) -> None:
    names = {"reading": ("data", "latents"), "writing": ("data", "thought")}[kind]
    scheme = {name: {"kind": "chunks", "count": count} for name, count in zip(names, (8, 4), strict=True)}
    with pytest.raises(SpecError, match=f"cuts {names[0]} into 8 groups and {names[1]} into 4"):
        spec("fit", **{f"blocks__turn__graph__{kind}__scheme": scheme})


def test_a_count_that_does_not_divide_is_refused_with_those_that_do() -> None:
    with pytest.raises(SpecError) as error:
        spec("fit", graph__latents__count=30)
    assert "query 30 does not divide into 8 chunks" in str(error.value)
    assert "1, 2, 3, 5, 6" in str(error.value)


def attention(length: int, groups: int) -> float:
    """Multiply-adds of the products of attention: scores and values."""
    model = build("fit", device="meta", dims__groups=groups, interface__length=length)
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, length, dtype=torch.int64, device="meta"))
    return counter.get_flop_counts()["Global"][torch.ops.aten.bmm] / 2


def test_attention_grows_with_the_four_thirds_power_of_the_length() -> None:
    """Groups of L^(1/3) tokens, of which there are L^(2/3): both kinds of layers grow alike.

    A turn has two local layers, in which each token reads the n of its group; reading and writing between these and
    the group's 4 latents; and two layers over all 4 L / n latents.
    """
    for size in (16, 32, 40):  # 4,096 to 64,000 tokens
        length, groups = size**3, size**2
        local = 2 * length * size * 64
        between = length * 4 * 96 + length * 4 * 64
        over_all = 2 * (4 * groups) ** 2 * 96
        assert attention(length, groups) == 2 * 2 * (local + between + over_all)


def test_attention_grows_linearly_but_for_the_latents_where_groups_keep_their_size() -> None:
    first, second, third = (
        attention(64 * groups, groups) - 2 * 2 * 2 * (4 * groups) ** 2 * 96 for groups in (16, 32, 64)
    )
    assert (second, third) == (2 * first, 4 * first)
