"""Small-E. Lemerle, Obin and Roebel 2024, arXiv 2406.04467."""

import time
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.canonical import text
from archspec.errors import SpecError
from archspec.source import read
from archspec.spec import loads
from compiler.decoding import Decoding
from compiler.generate import generate
from compiler.model import compile
from compiler.modules import gated_linear_attention as fading
from search.cost.price import price
from tests.compiler.modules.bodies import body, under
from tests.models import inputs
from tests.zoo.published import ZOO, build, random, spec

pytestmark = pytest.mark.system("small_e")
NAME = "recurrence/small_e"


def given(tokens: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries, keys, values and logarithms of decays of three heads, from hardly any decay to the fastest."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, g = (torch.randn(2, tokens, 3, w, generator=generator, dtype=dtype) for w in (6, 6, 8, 6))
    return [x.requires_grad_() for x in (q, k, v, -(g**4))]


@pytest.mark.parametrize("tokens", [1, 15, 16, 90])
def test_chunks_are_token_by_token(tokens: int) -> None:
    tensors, found = given(tokens), []
    for form in (fading.chunked, fading.one_by_one):
        read, state = form(*tensors)
        loss = (read * torch.linspace(-1, 1, read.numel(), dtype=read.dtype).view_as(read)).sum() + state.square().sum()
        found.append([read, state, *torch.autograd.grad(loss, tensors)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_the_fastest_decays_stay_numbers() -> None:
    q, k, v, g = (x.detach() for x in given(100, torch.float32))
    read, _ = fading.chunked(q, k, v, torch.full_like(g, -60.0))
    torch.testing.assert_close(read, (q * k).sum(-1, keepdim=True) * v, atol=1e-5, rtol=1e-5)


def test_chunks_are_faster() -> None:
    def seconds(form: Any) -> float:
        taken = []
        for _ in range(2):
            tensors = given(1024, torch.float32)
            start = time.process_time()
            form(*tensors)[0].sum().backward()
            taken.append(time.process_time() - start)
        return min(taken)

    assert seconds(fading.chunked) < seconds(fading.one_by_one)


@torch.no_grad()
def test_without_decay_it_is_linear_attention() -> None:
    options = "heads: 2, head_width: 8, feature_map: identity, normalize: false"
    plain = body(f"{{kind: linear_attention, {options}}}", "token: n", causal="token")
    gated = body("{kind: gated_linear_attention, heads: 2, norm: absent, gate: none}", "token: n", causal="token")
    weights = under(plain, "linear_attention")
    weights = {"inputs.weight": weights["qkv.weight"], "out.weight": weights["out.weight"]}
    weights |= {"decay.weight": torch.zeros(16, 16), "decay.bias": torch.full((16,), 1e3)}
    gated.get_submodule("gated_linear_attention").load_state_dict(weights)
    x = torch.randn(2, 40, 16)
    torch.testing.assert_close(gated(x), plain(x) / 8**0.5, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_token_by_token_it_says_what_it_says_at_once() -> None:
    model = random(build(NAME))
    codes, second, letters, *valid = inputs(model.spec, batch=3, length={"frames": 40, "letters": 17})
    at_once = model(codes, second, letters, torch.ones_like(codes).bool(), torch.ones_like(codes).bool(), valid[2])
    decoding = Decoding(model, source={"text": letters, "text_valid": valid[2]})
    steps = [decoding(codes[:, at : at + 1], codes_2=second[:, at : at + 1]) for at in range(40)]
    for name, expected in at_once.items():
        assert expected.std() > 0.1
        torch.testing.assert_close(torch.cat([step[name] for step in steps], 1), expected, atol=1e-4, rtol=1e-4)


def test_a_further_token_costs_the_same_after_any_others() -> None:
    def costs(**changes: Any) -> list[Any]:
        changed, under = spec(NAME, **changes), {"phase": "decode", "batch": 512, "device": "l4"}
        return [price(changed, context=context, **under) for context in (10, 255)]

    early, late = costs()
    assert early.latency_ms == late.latency_ms and early.cache_per_token == 0
    early, late = costs(blocks__fading={"kind": "attention", "heads": 2})
    assert early.latency_ms < late.latency_ms and early.cache_per_token > 0


@torch.no_grad()
def test_places_are_sines_and_cosines() -> None:
    model = random(build(NAME, outputs__places="places"))
    found = model(*inputs(model.spec, batch=2, length=20))["places"]
    turns = torch.arange(20)[:, None] * 10000.0 ** (-torch.arange(32) / 32)
    expected = torch.stack((turns.sin(), turns.cos()), -1).flatten(1)
    torch.testing.assert_close(found, expected.expand_as(found), atol=1e-5, rtol=0)


PLACES = {"name": "places", "from": "letters", "kind": "project", "width": 64}


def reading(nodes: list[Any], outputs: dict[str, str]) -> Any:
    """The example's blocks in a model of features: audio ``x`` reads ``letters`` and some ``places`` of them."""
    stream = {"axes": {"letter": 7}, "width": 64}
    sound = {"axes": {"frame": 9}, "width": 64, "causal": "frame"}
    interface = {"kind": "backbone", "inputs": {"x": sound, "letters": stream}}
    return random(compile(loads(text(read(ZOO / f"{NAME}.yaml") | {"interface": interface, "graph": [PLACES, *nodes],
                                                                    "outputs": outputs}))))  # fmt: skip


def linear(of: dict[str, Tensor], role: str, x: Tensor) -> Tensor:
    return F.linear(x, of[f"{role}.weight"], of.get(f"{role}.bias"))


@torch.no_grad()
def test_it_reads_where_and_then_what() -> None:
    """Both attentions written out: text tokens give places, places give text tokens."""
    model = reading(
        [{"name": "where", "from": "x"} | {"kind": "where"}, {"name": "what", "kind": "what"}], {"y": "what"}
    )
    x, letters = torch.randn(2, 9, 64), torch.randn(2, 7, 64)
    places = linear(under(model, "places"), "linear", letters)
    where, what = under(model, "where"), under(model, "what")

    def norm(of: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], of[f"{name}.weight"], of[f"{name}.bias"])

    q, k = norm(where, "query_norm", linear(where, "query", x)), norm(where, "key_norm", linear(where, "key", letters))
    at = (q @ k.mT / 8).softmax(-1) @ places
    expected = (at @ places.mT / 8).softmax(-1) @ norm(what, "value_norm", linear(what, "value", letters))
    torch.testing.assert_close(model(x, letters), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_cross_attention_takes_a_bias_that_places_give() -> None:
    """An attention to the text to whose scores those to the places are added."""
    ask = {"name": "ask", "from": "x", "kind": "attention", "heads": 1, "memory": "places"}
    told = {
        "name": "told",
        "from": "x",
        "kind": "attention",
        "heads": 1,
        "memory": "letters",
        "score_bias": "ask.scores",
    }
    model = reading([ask, told], {"ask": "ask", "told": "told"})
    x, letters = torch.randn(2, 9, 64), torch.randn(2, 7, 64)
    places = linear(under(model, "places"), "linear", letters)
    one, two = under(model, "ask"), under(model, "told")
    query, (key, value) = linear(two, "query", x), linear(two, "kv", letters).chunk(2, -1)
    bias = linear(one, "query", x) @ linear(one, "kv", places).chunk(2, -1)[0].mT / 8
    expected = linear(two, "out", (query @ key.mT / 8 + bias).softmax(-1) @ value)
    torch.testing.assert_close(model(x, letters)["told"], expected, atol=1e-4, rtol=1e-4)


def test_one_codebook_is_not_generated_alone() -> None:
    with pytest.raises(SpecError, match="a token is read as codes, codes_2"):
        generate(build(NAME), [[1, 2]], tokens=2, source={"text": torch.zeros(1, 3, dtype=torch.int64)})


def test_what_has_no_order_is_refused() -> None:
    source = (ZOO / f"{NAME}.yaml").read_text()
    with pytest.raises(SpecError, match="a recurrence reads features along one axis"):
        loads(source.replace("{frame: frames}", "{frame: frames, channel: 2}"))
