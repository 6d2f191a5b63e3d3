"""Simplified transformer blocks. He and Hofmann 2023, arXiv 2311.01906."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import compiler
from archspec.errors import SpecError
from archspec.spec import loads
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("simplified_transformer_blocks")
NAME = "norm/simplified_transformer_blocks"
WIDTH, HEADS, LAYERS = 64, 4, 6
TOKENS = torch.randint(0, 256, (2, 12), generator=torch.Generator().manual_seed(0))
ATTENTION = {"kind": "shaped_attention", "heads": HEADS, "biases": {"query": True, "key": True}}
QUERY = {"query": {"kind": "matrix", "gain": 0}}


def rounds(model: Any) -> list[tuple[Tensor, Tensor]]:
    """What the layers after the first read and give."""
    seen: list[tuple[Tensor, Tensor]] = []
    for number in range(LAYERS - 1):
        part = model.get_submodule(f"layers.{number}")
        part.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    with torch.no_grad():
        model(TOKENS)
    return seen


def of_layer(model: Any, number: int) -> dict[str, Tensor]:
    """The weights of a layer by the ends of their names."""
    prefix = f"layers.{number}."
    found = {name: value for name, value in model.state_dict().items() if name.startswith(prefix)}
    for gain in ("branch_gain", "layer_scale"):
        (name,) = (name for name in found if f".{gain}." in name)
        found[gain] = found.pop(name)
    return {".".join(name.split(".")[-2:]): value for name, value in found.items()}


def naive(x: Tensor, state: dict[str, Tensor], *, causal: bool = True) -> Tensor:
    """The attention matrix written out: ``skip I + mix softmax - centre C``, for ``[tokens, width]``."""
    tokens = len(x)
    seen = torch.ones(tokens, tokens).tril() if causal else torch.ones(tokens, tokens)
    q, k = (F.linear(x, state[f"{role}.weight"], state[f"{role}.bias"]) for role in ("query", "key"))
    outputs = []
    for head in range(HEADS):
        at = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
        scores = (q[:, at] @ k[:, at].T / (WIDTH // HEADS) ** 0.5).masked_fill(seen == 0, float("-inf"))
        shaped = state["skip"][head] * torch.eye(tokens) + state["mix"][head] * scores.softmax(-1)
        outputs.append((shaped - state["centre"][head] * seen / seen.sum(-1, keepdim=True)) @ x[:, at])
    return torch.cat(outputs, -1)


def test_at_first_attention_is_the_identity() -> None:
    model = build(NAME)
    small = 1 / (16 * LAYERS) ** 0.5
    for number, (given, found) in enumerate(rounds(model)):
        state = of_layer(model, number)
        read = F.rms_norm(given, (WIDTH,), eps=1e-6)
        mlp = F.linear(F.linear(read, state["up.weight"]).relu(), state["down.weight"])
        torch.testing.assert_close(found, read + small * mlp, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("interface", ["causal_lm", "masked_lm"])
def test_a_layer_is_shaped_attention_beside_an_mlp_on_one_norm(interface: str) -> None:
    model = random(build(NAME, interface__kind=interface))
    for number, (given, found) in enumerate(rounds(model)):
        state = of_layer(model, number)
        shaped = {
            name.split(".")[-1]: value for name, value in state.items() if name.endswith(("skip", "mix", "centre"))
        }
        read = F.rms_norm(given, (WIDTH,), state["norm.weight"], eps=1e-6)
        attention = torch.stack([naive(x, state | shaped, causal=interface == "causal_lm") for x in read])
        mlp = F.linear(F.linear(read, state["up.weight"]).relu(), state["down.weight"])
        expected = state["branch_gain"] * attention + state["layer_scale"] * mlp
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


REMOVALS: dict[str, tuple[dict[str, Any], int]] = {
    "skips": ({"blocks__layer": {"kind": "residual", "norm": "norm", "body": [
        {"kind": "parallel", "branches": [["read", "branch_gain"], "think"]}]}}, 0),
    "values": ({"blocks__read": {**ATTENTION, "linears": {**QUERY, "out": "no_matrix"}}}, WIDTH**2),
    "the way out": ({"blocks__read": {**ATTENTION, "linears": {**QUERY, "value": "no_matrix"}}}, WIDTH**2),
    "one after the other": ({"blocks__layer": {"kind": "sequence", "body": [
        "norm", "read", "branch_gain", "norm", "think"]}}, WIDTH),
    "norms": ({"blocks__norm": {"kind": "identity"}}, -WIDTH),
}  # fmt: skip


@pytest.mark.parametrize("removed", REMOVALS)
def test_each_part_goes_or_stays_by_itself(removed: str) -> None:
    changes, more = REMOVALS[removed]
    model: Any = compiler.compile(spec(NAME, **changes))
    layers = LAYERS if removed == "norms" else LAYERS - 1
    assert parameters(model) - parameters(build(NAME, device="meta")) == layers * more
    F.cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.flatten()).backward()
    still = {name.rsplit(".", 2)[-2] for name, p in model.named_parameters() if p.grad is None}
    assert not still and model(TOKENS).isfinite().all()


def test_blocks_have_about_15_percent_fewer_parameters_than_the_usual_ones() -> None:
    usual = {"kind": "transformer_layer", "norm": "rms_norm", "mixer": {"kind": "attention", "heads": 12},
             "channel": {"kind": "mlp", "ratio": 4}}  # fmt: skip
    simple = parameters(build(f"{NAME}_18_layers", device="meta"))
    default = parameters(build(f"{NAME}_18_layers", device="meta", blocks__first=usual, blocks__layer=usual))
    width, embeddings = 768, (50_000 + 1024) * 768 + 768
    layer = 2 * (width**2 + width) + 8 * width**2 + width + 3 * 12 + 2  # gains of heads and branches
    assert simple == embeddings + 18 * layer + width**2  # the values of the first layer
    assert default == embeddings + 18 * (12 * width**2 + 2 * width)
    assert 1 - (simple - embeddings) / (default - embeddings) == pytest.approx(0.162, abs=0.001)
    assert 1 - simple / default == pytest.approx(0.124, abs=0.001)


def test_it_trains_without_skips() -> None:
    model: Any = compiler.compile(spec(NAME, interface__vocab=16))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(60):
        tokens = torch.randint(0, 16, (16, 12), generator=generator)
        losses.append(F.cross_entropy(model(tokens)[:, 1:].flatten(0, 1), tokens[:, :-1].flatten()))  # the one before
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[0] > 2.5 and losses[-1] < 0.5


def test_grids_are_refused() -> None:
    with pytest.raises(SpecError, match="along one axis"):
        loads("archspec: 1\ninterface: {kind: image_classification, image: [8, 8, 3], classes: 5}\ngraph: "
              "[{kind: shaped_attention, heads: 3}, pool, classifier]\n")  # fmt: skip
