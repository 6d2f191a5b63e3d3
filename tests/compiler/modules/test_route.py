"""Routed depth: who enters, what their work counts, and that the others pass."""

from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from tests.compiler.modules.bodies import assert_close, body, by_pairs, under
from tests.zoo.published import macs

X = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
ATTENTION = "{kind: attention, heads: 2, position: rope}"
LABELS = torch.randint(0, 3, (2, 12), generator=torch.Generator().manual_seed(0))


def route(take: str, inside: str = ATTENTION, more: str = "", **of: Any) -> Any:
    return body(f"{{kind: route, take: {take}, body: {inside}{more}}}", **{"axes": "token: length", **of})


def highest(model: Any, count: int) -> tuple[Tensor, Tensor]:
    """The places of the highest scores in their order, and these scores."""
    scores = (X @ model.get_parameter("route.take.weight").T)[..., 0]
    places = scores.topk(count, dim=1).indices.sort(dim=1).values
    return places, scores.gather(1, places)


WEIGHTS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "none": torch.ones_like}


@pytest.mark.parametrize("score", WEIGHTS)
@pytest.mark.parametrize("weigh", ["delta", "output", "none"])
@pytest.mark.parametrize("causal", ["", "token"])
@torch.no_grad()
def test_the_body_chooses_and_keeps_the_places(weigh: str, score: str, causal: str) -> None:
    """Attention over the chosen, rotated by their places in the whole sequence, is attention of all under a mask."""
    model = route(f"{{kind: expert_choice, capacity: 0.5, score: {score}}}", more=f", weigh: {weigh}", causal=causal)
    whole = body(ATTENTION, "token: length", causal=causal)
    state = under(model, "route.body")
    places, scores = highest(model, 6)
    weights = WEIGHTS[score](scores)[..., None]
    expected = X.clone()
    for number in range(2):
        at = places[number]
        chosen = X[number, at]
        turned = rotated(whole, state, X[number : number + 1], at, bool(causal))
        new = {"delta": chosen + weights[number] * (turned - chosen), "output": chosen + weights[number] * turned,
               "none": turned}[weigh]  # fmt: skip
        expected[number, at] = new
    assert_close(model(X), expected)
    others = torch.ones(2, 12, dtype=torch.bool).scatter(1, places, False)
    assert torch.equal(model(X)[others], X[others])  # bit by bit


def rotated(whole: Any, state: dict[str, Tensor], x: Tensor, at: Tensor, causal: bool) -> Tensor:
    """The attention of all tokens, of which only those at some places are read, at these places."""
    q, k, v = (part.unflatten(-1, (2, 8)) for part in (x @ state["qkv.weight"].T).chunk(3, dim=-1))
    q, k = whole.get_submodule("attention.position")(q, k, None, None)
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    allowed = torch.zeros(12, dtype=torch.bool)
    allowed[at] = True
    seen = allowed[None, :] & (torch.ones(12, 12).tril().bool() if causal else torch.ones(12, 12, dtype=torch.bool))
    scores = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(~seen, float("-inf"))
    return ((scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ state["out.weight"].T)[0, at]


@torch.no_grad()
def test_positions_reach_the_end_of_an_axis_of_fixed_size() -> None:
    model = route("{kind: expert_choice, capacity: 0.5}", axes="token: 12")
    same = route("{kind: expert_choice, capacity: 0.5}")
    same.load_state_dict(model.state_dict())
    assert_close(model(X), same(X))


@torch.no_grad()
def test_full_capacity_is_the_body() -> None:
    model, plain = route("{kind: expert_choice, capacity: 1}"), body(ATTENTION, "token: length")
    plain.load_state_dict({f"attention.{name}": value for name, value in under(model, "route.body").items()})
    assert torch.equal(model(X), plain(X))


def test_the_router_learns_from_what_its_weight_multiplies() -> None:
    model = route("{kind: expert_choice, capacity: 0.5}")
    model(X).square().sum().backward()
    assert model.get_parameter("route.take.weight").grad.abs().max() > 1e-4


@torch.no_grad()
def test_padding_never_enters() -> None:
    model = route("{kind: expert_choice, capacity: 0.5}", "{kind: mlp, ratio: 2}", interface="padding: true")
    valid = torch.arange(12)[None] < torch.tensor([[12], [6]])
    y = model(X, valid)
    assert (y[1, :6] != X[1, :6]).any(-1).all()
    assert torch.equal(y[1, 6:], X[1, 6:])


@torch.no_grad()
def test_the_others_go_through_the_rest() -> None:
    model = route("{kind: expert_choice, capacity: 0.25}", more=", weigh: none, rest: {kind: mlp, ratio: 2}")
    state = under(model, "route.rest")
    places, _ = highest(model, 3)
    others = torch.ones(2, 12, dtype=torch.bool).scatter(1, places, False)
    expected = torch.nn.functional.gelu(X @ state["up.weight"].T) @ state["down.weight"].T
    assert_close(model(X)[others], expected[others])


@torch.no_grad()
def test_tokens_of_a_label_enter_and_see_each_other_alone() -> None:
    model = route("{kind: label_selector, label: speaker, values: [0, 2]}", "{kind: attention, heads: 2}",
                  interface="labels: {speaker: 3}")  # fmt: skip
    inside = LABELS != 1
    expected = by_pairs(under(model, "route.body"), X, 2, allowed=inside[:, None, None])
    y = model(X, LABELS)
    assert_close(y[inside], expected[inside])
    assert torch.equal(y[~inside], X[~inside])


@torch.no_grad()
def test_labels_choose_between_body_and_rest() -> None:
    model = route("{kind: label_selector, label: speaker, values: [1]}", "{kind: project, width: 16}",
                  ", rest: {kind: project, width: 16}", interface="labels: {speaker: 3}")  # fmt: skip
    one, other = (X @ under(model, f"route.{part}")["linear.weight"].T for part in ("body", "rest"))
    assert_close(model(X, LABELS), torch.where((LABELS == 1)[..., None], one, other))


def test_a_sample_of_which_no_token_enters_passes_and_has_gradients() -> None:
    for more in ("", ", softcap: 5"):
        model = route("{kind: label_selector, label: speaker, values: [1]}", f"{{kind: attention, heads: 2{more}}}",
                      interface="labels: {speaker: 3}")  # fmt: skip
        labels = LABELS.clone()
        labels[0] = 0
        y = model(X, labels)
        assert torch.equal(y[0], X[0])
        y.square().sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_costs_follow_the_share_that_enters() -> None:
    whole = macs(route("{kind: expert_choice, capacity: 1}", "{kind: mlp, ratio: 2}").to("meta"), X)
    half = macs(route("{kind: expert_choice, capacity: 0.5}", "{kind: mlp, ratio: 2}").to("meta"), X)
    assert half == whole / 2 + 24 * 16  # scores


def test_a_body_that_changes_the_width_is_refused() -> None:
    with pytest.raises(SpecError, match="tokens must come back as"):
        route("{kind: expert_choice, capacity: 0.5}", "{kind: project, width: 8}")
