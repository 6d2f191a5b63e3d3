"""A model whose numbers move is at each moment the model in which they are fixed."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compiler
from archspec.spec import Spec, load, loads
from compiler.loss import with_loss
from compiler.modules.grouped import GroupedLinear
from compiler.modules.router import Choose
from compiler.moving import move, numbers, settle
from tests.models import inputs, perturbed, runs
from tests.specs import EXAMPLES

TEXT = """archspec: 1
name: moves
interface: {{kind: causal_lm, vocab: 32, length: 16}}
graph:
  - {{kind: token_embedding, width: 16}}
  - {{kind: repeat, times: 2, body: {body}}}
  - lm_head
"""
BRANCH = "{{kind: residual, norm: rms_norm, body: {{kind: attention, heads: 2}}, {}: {}}}"
MIXTURE = (
    "{{kind: residual, body: {{kind: mixture, experts: {{count: 4, body: {{kind: glu, hidden: 8}}}}, router: {{{}}}}}}}"
)
UNLIKE = (
    "{{kind: residual, body: {{kind: mixture, experts: [{{kind: glu, hidden: 8}}, {{kind: mlp, ratio: 1}}, "
    "{{kind: attention, heads: 2}}], router: {{{}}}}}}}"
)
MOVES = {
    "factor": BRANCH.format("factor", "{bind: step, from: 2, to: 1}"),
    "skip": BRANCH.format("skip", "{bind: step, from: 0.5, to: 1, shape: cosine}"),
    "input again": "{kind: loop, times: 3, body: {kind: glu, hidden: 8}, "
    "history: {kind: add_input, factor: {bind: step, from: 1, to: 0.5}}}",
    "k": MIXTURE.format("kind: top_k, k: {bind: step, from: 1, to: 4}, normalize: true"),
    "k that falls": MIXTURE.format("kind: top_k, k: {bind: step, from: 4, to: 1}, normalize: true, z_loss: 0.1"),
    "k with capacity": MIXTURE.format("kind: top_k, k: {bind: step, values: {0: 3, 0.5: 2}}, capacity: 1.0"),
    "k with room": MIXTURE.format("kind: top_k, k: {bind: step, values: {0: 3, 0.5: 2}}, room: 3"),
    "k of unlike experts": UNLIKE.format("kind: top_k, k: {bind: step, from: 1, to: 3}, normalize: true"),
    "k drawn one by one": MIXTURE.format("kind: sparse_mixer, k: {bind: step, from: 3, to: 2}, noise: 0"),
    "weights": MIXTURE.format(
        "kind: top_k, k: 4, scale: {bind: step, from: 2, to: 1}, temperature: {bind: step, from: 2, to: 0.3, "
        "shape: exponential}, threshold: {bind: step, from: 0, to: 0.2}"
    ),
    "losses": MIXTURE.format(
        "kind: top_k, balance_weight: {bind: step, from: 0.1, to: 0}, z_loss: {bind: step, from: 0, to: 0.1}"
    ),
}  # fmt: skip


@cache
def spec_of(case: str) -> Spec:
    return loads(TEXT.format(body=MOVES[case]))


def pair(case: str, progress: float) -> tuple[Any, Any, list[Tensor]]:
    """A model at a progress, the model of the spec in which its numbers are fixed, and what both are given."""
    spec = spec_of(case)
    model, plain = perturbed(compiler.compile(spec)), perturbed(compiler.compile(spec.at(progress)))
    move(model, progress)
    return model, plain, inputs(spec, batch=3, length=8)


@pytest.mark.parametrize("progress", [0, 0.3, 0.5, 0.99, 1])
@pytest.mark.parametrize("case", MOVES)
def test_it_is_the_fixed_model_bit_for_bit(case: str, progress: float) -> None:
    model, plain, given = pair(case, progress)
    assert not list(numbers(plain)) and model.state_dict().keys() == plain.state_dict().keys()
    for training in (True, False):
        found, expected = runs(model.train(training), given), runs(plain.train(training), given)
        assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    sum(out.square().sum() for out in runs(model.train(), given).values()).backward()
    sum(out.square().sum() for out in runs(plain.train(), given).values()).backward()
    for (name, one), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad) if one.grad is not None else other.grad is None, name


@pytest.mark.parametrize("progress", [0, 0.3, 1])
@pytest.mark.parametrize("case", [case for case in MOVES if case.startswith("k")])
def test_the_static_form_of_a_k_that_moves_says_the_same(case: str, progress: float) -> None:
    model, _, given = pair(case, progress)
    expected = runs(model.train(), given)
    compiler.static_routing(model)
    for name, found in runs(model, given).items():
        torch.testing.assert_close(found, expected[name], atol=2e-6, rtol=1e-5)


def test_no_more_experts_are_computed_than_there_are_now() -> None:
    model, _, given = pair("k", 0)
    rows: list[int] = []
    for part in model.modules():
        if isinstance(part, GroupedLinear):
            part.register_forward_hook(lambda part, seen, out: rows.append(seen[0].shape[0]))
    for progress, k in ((0, 1), (1 / 3, 2), (2 / 3, 3), (1, 4)):
        move(model, progress)
        rows.clear()
        model(*given)
        assert rows == [3 * 8 * k] * 4  # tokens of three samples, two matrices in two rounds


def test_a_rate_that_moves_drops_as_often_as_it_says() -> None:
    torch.manual_seed(0)
    for field in ("dropout", "drop_path"):
        spec = loads(TEXT.format(body=BRANCH.format(field, "{bind: step, from: 0, to: 0.5}")))
        model = perturbed(compiler.compile(spec)).train()
        given = inputs(spec, batch=400, length=4)
        (out,) = {type(module).__name__ for module in model.modules()} & {"MovingDropout", "SampleDrop"}
        drop = next(module for module in model.modules() if type(module).__name__ == out)
        ones = torch.ones(4000, 3, 2)
        for progress, rate in ((0, 0.0), (0.5, 0.25), (1, 0.5)):
            move(model, progress)
            kept = drop(ones)
            assert abs((kept == 0).float().mean().item() - rate) < 0.03
            assert abs(kept.mean().item() - 1) < 0.03
        move(model, 0)
        plain = perturbed(compiler.compile(spec.at(0)))
        assert torch.equal(model(*given), plain.train()(*given)) and torch.equal(drop.eval()(ones), ones)


def test_a_model_that_nobody_moves_is_the_final_one_and_no_number_is_stored() -> None:
    model, plain, given = pair("weights", 1)
    fresh = perturbed(compiler.compile(spec_of("weights")))
    expected, found = runs(plain, given), runs(fresh, given)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert not any("moving" in name or "value" in name for name in model.state_dict())


def test_settled_it_has_no_numbers_and_the_same_weights() -> None:
    model, plain, given = pair("weights", 1)
    settled = settle(model)
    assert not list(numbers(settled)) and settle(plain) is plain
    expected, found = runs(model, given), runs(settled, given)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert all(one is other for one, other in zip(model.parameters(), settled.parameters(), strict=True))


def test_copies_flat_forms_and_losses_move_too() -> None:
    model, plain, given = pair("factor", 0)
    copy = deepcopy(model)
    move(copy, 1)
    assert torch.equal(model(*given), plain(*given)) and not torch.equal(copy(*given), plain(*given))
    flat, trained = compiler.flatten(model), with_loss(model)
    targets = torch.randint(0, 32, (3, 8))
    before = trained(*given, targets)
    for one in (flat, trained):
        move(one, 1)
    assert torch.equal(flat(*given), copy(*given)) and trained(*given, targets) != before


@pytest.mark.parametrize("case", ["factor", "k", "weights"])
def test_nothing_is_compiled_anew_when_a_number_moves(case: str) -> None:
    compiled: list[int] = []

    def backend(graph: Any, example: Any) -> Any:
        compiled.append(1)
        return graph.forward

    model, _, given = pair(case, 0)
    compiler.static_routing(model.eval())
    torch._dynamo.reset()
    fast = torch.compile(model, backend=backend)
    found = []
    for progress in (0, 0.123, 0.3, 0.6, 1):
        move(model, progress)
        found.append(fast(*given))
        torch.testing.assert_close(found[-1], model(*given))
    assert len(compiled) == 1 and not torch.equal(found[0], found[-1])


def test_a_gate_goes_from_dense_to_sparse() -> None:
    cooling = "{bind: step, from: 4, to: 0.001, shape: exponential}"
    gate = f"kind: top_k, k: 4, normalize: false, threshold: 0.02, temperature: {cooling}"
    spec = loads(TEXT.format(body=MIXTURE.format(gate)))
    model = perturbed(compiler.compile(spec)).eval()
    weights: list[Tensor] = []
    for part in model.modules():
        if isinstance(part, Choose):
            part.register_forward_hook(lambda part, seen, out: weights.append(out[0]))
    experts, entropies = [], []
    for progress in (0, 0.25, 0.5, 0.75, 1):
        move(model, progress)
        weights.clear()
        model(*inputs(spec, batch=4, length=16))
        shares = torch.cat(weights)
        experts.append((shares > 0).sum(-1).float().mean().item())
        entropies.append(torch.special.entr(shares).sum(-1).mean().item())
    assert experts[0] == 4 and experts[-1] < 1.1 and experts == sorted(experts, reverse=True)
    assert entropies == sorted(entropies, reverse=True) and entropies[0] > 1.35 and entropies[-1] < 0.1


def test_it_is_saved_and_loaded_as_what_it_ends_at(tmp_path: Any) -> None:
    model, plain, given = pair("k", 1)
    move(model, 0)
    compiler.save(model, tmp_path)
    loaded = compiler.load(tmp_path)
    assert loaded.spec.full == spec_of("k").full
    expected, found = runs(plain.eval(), given), runs(loaded.eval(), given)
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_the_example_is_priced_at_its_end_and_at_any_time() -> None:
    from search.cost.price import price

    spec = load(EXAMPLES / "growing_mixture.yaml")
    costs = [price(spec.at(0.8 * k / 7), length=128).forward for k in range(8)]
    assert costs[-1] == price(spec, length=128).forward
    assert {after - before for before, after in zip(costs, costs[1:], strict=False)} == {
        4 * 128 * 2 * (3 * 64 * 32 + 64)
    }
    assert isinstance(compiler.compile(spec, device="meta"), nn.Module)
