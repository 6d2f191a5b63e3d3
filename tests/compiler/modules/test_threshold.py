"""Tokens that enter by their own score: who does, what the others leave behind, what it learns, what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import compiler
from archspec.errors import SpecError
from archspec.spec import Spec, loads
from compiler.decoding import Decoding, refusals
from compiler.modules.threshold import Enter
from search.cost.cache import kept_per_token
from search.cost.price import price
from tests.compiler.modules.bodies import assert_close, by_pairs, under
from tests.models import perturbed

X = torch.randn(3, 12, 16, generator=torch.Generator().manual_seed(0))
ATTENTION = "{kind: attention, heads: 2, position: rope}"
WHOLE = "{kind: attention, heads: 2, memory: all}"
MLP = "{kind: mlp, ratio: 2}"


def spec_of(inside: str, take: str = "", more: str = "", causal: str = "causal: token, ") -> Spec:
    return loads(
        f"""
archspec: 1
interface: {{kind: backbone, inputs: {{all: {{axes: {{token: length}}, limit: 64, {causal}width: 16}}}}}}
graph:
  - {{name: go, from: all, kind: project, width: 1}}
  - {{from: all, kind: route, take: {{kind: threshold, score: go{take}}}, body: {inside}{more}}}
"""
    )


def made(*said: str, **of: str) -> Any:
    model: Any = perturbed(compiler.compile(spec_of(*said, **of), seed=1))
    with torch.no_grad():
        model.get_parameter("go.linear.weight").normal_(generator=torch.Generator().manual_seed(2))
    return model.eval()


def entering(model: Any, threshold: float = 0.5) -> Tensor:
    return (X @ model.get_parameter("go.linear.weight").T).sigmoid()[..., 0] >= threshold


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
@torch.no_grad()
def test_tokens_above_it_see_each_other_and_the_others_stay(threshold: float) -> None:
    model = made("{kind: attention, heads: 2}", f", threshold: {threshold}")
    enter = entering(model, threshold)
    assert 3 < enter.sum() < 33
    past = torch.ones(12, 12, dtype=torch.bool).tril()
    expected = by_pairs(under(model, "route.body"), X, 2, allowed=(past & enter[:, None])[:, None])
    y = model(X)
    assert_close(y[enter], expected[enter])
    assert torch.equal(y[~enter], X[~enter])


@torch.no_grad()
def test_a_body_that_names_all_tokens_sees_the_others_as_they_are() -> None:
    model = made(WHOLE)
    enter = entering(model)
    past = torch.ones(12, 12, dtype=torch.bool).tril()
    state = under(model, "route.body")
    state["qkv.weight"] = torch.cat((state["query.weight"], state["kv.weight"]))
    expected = by_pairs(state, X, 2, allowed=past[None, None])
    assert_close(model(X), torch.where(enter[..., None], expected, X))


@pytest.mark.parametrize("inside", [ATTENTION, WHOLE, MLP])
@torch.no_grad()
def test_none_may_enter_and_all_may(inside: str) -> None:
    model = made(inside)
    model.get_parameter("go.linear.weight").zero_()
    all_in, plain = model(X), made(inside, ", threshold: 0")
    plain.load_state_dict(model.state_dict())
    assert_close(all_in, plain(X))
    out = made(inside, ", threshold: 0.999")
    out.get_parameter("go.linear.weight").zero_()
    assert torch.equal(out(X), X)


def test_the_gradient_is_that_of_a_straight_through_gate() -> None:
    model = made(MLP, ", penalty: 0.7, capacity: 0.2").train()
    row = model.get_parameter("go.linear.weight")
    out = model(X)
    (out["route"].pow(3).sum() + out["loss"]).backward()
    found, row = row.grad, row.detach().requires_grad_()
    state = {name: value.detach() for name, value in under(model, "route.body").items()}
    share = (X @ row.T).sigmoid()
    gate = (share >= 0.5).float() + share - share.detach()
    body = torch.nn.functional.gelu(X @ state["up.weight"].T) @ state["down.weight"].T
    loss = 0.7 * torch.relu(gate.mean() - 0.2)
    assert float(out["loss"].detach()) == pytest.approx(float(loss.detach())) and loss > 0.05
    ((X + gate * (body - X)).pow(3).sum() + loss).backward()
    assert_close(found, row.grad, 1e-4)


@pytest.mark.parametrize("inside", [ATTENTION, WHOLE])
@torch.no_grad()
def test_token_by_token_equals_the_full_pass(inside: str) -> None:
    model = made(f"[{{kind: residual, body: {inside}}}, {{kind: residual, body: {MLP}}}]")
    expected = model(X)
    for sizes in ([1] * 12, [5, 1, 1, 3, 2]):
        decoding = Decoding(model)
        assert_close(torch.cat([decoding(part) for part in X.split(sizes, dim=1)], dim=1), expected)
    if inside == ATTENTION:  # tokens that stay out leave no key
        keys = next(tensor for tensor in decoding.tensors() if tensor.shape[-1] == 8)
        assert keys.shape[2] == entering(model).sum(1).max() < 12


@torch.no_grad()
def test_one_token_that_stays_out_costs_its_key_and_value_alone() -> None:
    model = made(f"[{{kind: residual, body: {WHOLE}}}, {{kind: residual, body: {MLP}}}]")
    enter = entering(model)[0]
    decoding, costs = Decoding(model), []
    for token in X[:1].split(1, dim=1):
        with FlopCounterMode(display=False) as counter:
            decoding(token)
        costs.append(counter.get_total_flops())
    out = {cost for cost, inside in zip(costs, enter, strict=True) if not inside}
    assert out == {2 * (16 + 2 * 16 * 16)} and min(cost for cost, i in zip(costs, enter, strict=True) if i) > 2 * max(
        out
    )


@torch.no_grad()
def test_cost_is_that_of_the_share_that_is_meant() -> None:
    model = made(MLP)
    row = model.get_parameter("go.linear.weight")
    for capacity in (0.25, 0.5, 1.0):
        x = X[:1].clone()
        x[:, int(12 * capacity) :] -= row * (100 + x[:, int(12 * capacity) :] @ row.T) / row.square().sum()
        x[:, : int(12 * capacity)] += row * (100 - x[:, : int(12 * capacity)] @ row.T) / row.square().sum()
        with FlopCounterMode(display=False) as counter:
            model(x)
        assert counter.get_total_flops() == price(spec_of(MLP, f", capacity: {capacity}"), length=12).forward


def test_what_is_kept_is_that_of_the_share_that_is_meant() -> None:
    sizes = [kept_per_token(spec_of(inside, ", capacity: 0.25").graph) for inside in (ATTENTION, WHOLE)]
    assert sizes == [8, 32]


@torch.no_grad()
def test_all_places_or_those_needed_are_the_same() -> None:
    model = made(ATTENTION, more=f", rest: {MLP}")
    expected = model(X)
    for part in model.modules():
        if isinstance(part, Enter):
            part.register_forward_hook(lambda part, given, out: widths.append(out[0].shape[1]))
    widths: list[int] = []
    compiler.static_routing(model)
    assert_close(model(X), expected)
    assert widths == [12]


def refused(node: str, said: str) -> None:
    """A node beside a score ``go`` of the tokens ``all`` is refused in these words."""
    with pytest.raises(SpecError, match=said):
        loads(
            f"""
archspec: 1
interface: {{kind: backbone, inputs: {{all: {{axes: {{token: length}}, limit: 64, width: 16}}}}}}
graph:
  - {{name: go, from: all, kind: project, width: 1}}
  - {{from: all, {node}}}
"""
        )


@pytest.mark.parametrize(
    ("inside", "score", "said"),
    [
        (MLP, "nothing", "no stream is called 'nothing'"),
        (MLP, "all", "one feature for each token"),
        ("{kind: project, width: 8}", "go", "tokens must come back as"),
    ],
)
def test_what_cannot_be_chosen_is_refused(inside: str, score: str, said: str) -> None:
    refused(f"kind: route, take: {{kind: threshold, score: {score}}}, body: {inside}", said)


def test_a_mixer_that_cannot_go_on_from_chosen_tokens_is_named() -> None:
    (problem,) = refusals(spec_of("{kind: linear_attention, heads: 2}"))
    assert "linear_attention cannot be decoded token by token: it does not go on from tokens that were chosen" in str(
        problem.cause
    )


def test_rounds_refuse_a_selector_that_chooses_for_a_route() -> None:
    node = f"kind: repeat, times: 2, body: {MLP}, router: {{kind: threshold, score: go}}"
    refused(node, "threshold chooses for a route, not for rounds")
