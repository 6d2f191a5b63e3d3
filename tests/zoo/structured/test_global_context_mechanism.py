"""A global context mechanism for sequence labelling. Xu et al. 2023, arXiv 2305.19928."""

from typing import Any

import pytest
import torch
from torch import nn

from archspec.spec import Spec
from compiler.model import compile
from search.cost.price import price
from tests.models import perturbed
from tests.zoo.published import spec

pytestmark = pytest.mark.system("global_context_mechanism")
NAME = "structured/global_context_mechanism"
TOKENS = torch.arange(20).reshape(2, 10) * 7 % 256
ENCODERS = {
    "bert": ("layer", {"take": "first"}),
    "recurrent": ({"kind": "residual", "norm": "rms_norm", "body": "rg_lru"}, {"take": "last"}),
    "convolutional": ({"kind": "residual", "body": {"kind": "depthwise_convolution", "size": 5}}, {"how": "max"}),
    "fourier": ({"kind": "transformer_layer", "mixer": "fourier"}, {}),
}


def tagger(body: Any = "layer", **changes: Any) -> Spec:
    return spec(NAME, blocks__encoder={"kind": "repeat", "times": 2, "body": body}, **changes)


def plain(body: Any = "layer") -> Spec:
    """The same tagger without the mechanism."""
    without = {"name": "context", "from": "encoded", "kind": "identity"}
    return tagger(body, graph__context=without)


@pytest.mark.parametrize(("body", "pooled"), ENCODERS.values(), ids=ENCODERS)
@torch.no_grad()
def test_an_open_local_gate_and_a_shut_global_one_are_the_plain_tagger(body: Any, pooled: dict[str, str]) -> None:
    sentence = {"name": "sentence", "kind": "pool", **pooled}
    model = perturbed(compile(tagger(body, graph__sentence=sentence))).eval()
    baseline = compile(plain(body)).eval()
    state = model.state_dict()
    baseline.load_state_dict({name: value for name, value in state.items() if not name.startswith("context.")})
    assert not torch.allclose(model(TOKENS), baseline(TOKENS), atol=1e-2)
    for gate, bias in (("local", 1e4), ("global_", -1e4)):
        state[f"context.body.{gate}.linear.bias"].fill_(bias)
    assert torch.equal(model(TOKENS), baseline(TOKENS))


@pytest.mark.parametrize("width", [16, 64])
def test_extra_parameters_are_two_maps_from_token_and_sentence(width: int) -> None:
    with_context, without = (
        price(one, length=8).parameters for one in (tagger(dims__width=width), spec(NAME, dims__width=width,
            graph__context={"name": "context", "from": "encoded", "kind": "identity"}))
    )  # fmt: skip
    assert with_context - without == 2 * (2 * width * width + width)


@torch.no_grad()
def test_gates_mix_token_and_sentence_as_in_a_few_lines_of_torch() -> None:
    sentence = {"name": "sentence", "kind": "pool", "take": "first"}
    entries = {
        "encode": {"from": ["tokens"], "to": ["encoded"]},
        "mix": {"from": ["encoded", "sentence"], "to": ["context"]},
    }
    model: Any = perturbed(compile(tagger(interface__entries=entries, graph__sentence=sentence))).eval()
    encoded = model.entries["encode"](TOKENS)
    whole = encoded[:, 0]
    state = model.state_dict()
    gates = {}
    for gate in ("local", "global_"):
        linear = nn.Linear(128, 64)
        linear.weight.copy_(state[f"context.body.{gate}.linear.weight"])
        linear.bias.copy_(state[f"context.body.{gate}.linear.bias"])
        gates[gate] = torch.sigmoid(linear(torch.cat([encoded, whole[:, None].expand_as(encoded)], dim=-1)))
    expected = gates["local"] * encoded + gates["global_"] * whole[:, None]
    torch.testing.assert_close(model.entries["mix"](encoded, whole), expected, atol=1e-5, rtol=1e-5)


def test_a_tagger_learns_what_only_the_sentence_tells() -> None:
    """A token's tag is that of the first token; without any mixing encoder, only the mechanism can tell it."""

    def trained(chosen: Spec) -> float:
        torch.manual_seed(0)
        model, lately = compile(chosen, seed=0), []
        optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
        for _ in range(150):
            tokens = torch.randint(0, 256, (32, 6))
            logits = model(tokens)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), (tokens[:, :1] % 8).expand(-1, 6).flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            lately.append((logits.argmax(-1)[:, 1:] == tokens[:, :1] % 8).float().mean().item())
        return sum(lately[-10:]) / 10

    alone = {"kind": "residual", "body": {"kind": "mlp", "ratio": 1}}
    assert trained(tagger(alone)) > 0.8
    assert trained(plain(alone)) < 0.3
