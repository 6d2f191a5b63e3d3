"""SMoE-Dropout. Chen et al. 2023, arXiv 2303.01610."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import compiler
from archspec.errors import SpecError
from compiler.moving import numbers
from search.cost.operators import FORMULAS
from search.cost.price import price
from search.data.batches import Data
from search.recipe import Recipe
from search.train import Run, train
from tests.zoo.published import build, random, spec

pytestmark = pytest.mark.system("smoe_dropout")
NAME = "mixture/smoe_dropout"
EXPERTS, STEPS = 8, 160
RECIPE = Recipe(steps=STEPS, batch=16, length=32, learning_rate=5e-3, validation_batches=16, freeze=["**.router"])


class Watched(Run):
    """A run that keeps how many experts a token meets in each training step."""

    def loss(self, batch: Any) -> Any:
        if self.model.training:
            self.__dict__.setdefault("seen", {})[self.step] = {one.number for one in numbers(self.model)}
        return super().loss(batch)


@pytest.fixture(scope="module")
def data() -> Any:
    return Data.read("text", "data", None).open(spec(NAME).interface)


@pytest.fixture(scope="module")
def trained(data: Any) -> Any:
    model = compiler.compile(spec(NAME))
    train(model, data, RECIPE)
    return model.eval()


def with_k(k: int) -> Any:
    return spec(NAME, blocks__layer__channel__router__k=k)


def test_the_router_stays_bit_for_bit_and_all_else_learns(trained: Any) -> None:
    fresh = dict(compiler.compile(spec(NAME)).named_parameters())
    same = {name for name, value in trained.named_parameters() if torch.equal(value, fresh[name])}
    assert same == {name for name in fresh if ".router." in name} and len(same) == 4


def test_k_follows_its_schedule(data: Any) -> None:
    recipe = RECIPE.model_copy(update={"steps": 30, "batch": 2, "validation_batches": 1})
    run = Watched(compiler.compile(spec(NAME)), data, recipe, torch.device("cpu"))
    run.through(None, None, 10.0, None, 30)
    assert run.seen == {step: {min(8, int(1 + 7 * step / 21 + 0.5))} for step in range(30)}  # type: ignore[attr-defined]
    assert {one.number for one in numbers(run.model)} == {EXPERTS}


def test_operations_grow_linearly_with_k() -> None:
    costs = [price(with_k(k), length=64).forward for k in range(1, EXPERTS + 1)]
    expert = 2 * (2 * 64 * 32) + 2 * 64  # two matrices and the weighted sum
    assert {after - before for before, after in zip(costs, costs[1:], strict=False)} == {2 * 64 * expert}
    measured = []
    for k in (1, 4, 8):
        with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
            compiler.compile(with_k(k), device="meta").eval()(torch.zeros(1, 64, dtype=torch.int64, device="meta"))
        measured.append(counter.get_total_flops())
    assert measured == [costs[0], costs[3], costs[7]]


def test_the_same_weights_are_the_better_the_more_experts_run(trained: Any, data: Any) -> None:
    losses = []
    for k in range(1, EXPERTS + 1):
        model = compiler.compile(with_k(k))
        model.load_state_dict(trained.state_dict())
        run = Run(model, data, RECIPE, torch.device("cpu"))
        run.validate()
        losses.append(run.result.validations[0][1])
    assert all(after <= before for before, after in zip(losses, losses[1:], strict=False))
    assert losses[0] - losses[-1] > 0.1


@torch.no_grad()
def test_all_experts_equally_weighed_are_the_mlp_that_was_cut() -> None:
    model: Any = random(build(NAME))
    channel = {"kind": "mlp", "hidden": 256, "activation": "relu", "bias": True}
    dense: Any = build(NAME, blocks__layer__channel=channel)
    state, given = model.state_dict(), torch.randint(0, 256, (2, 64), generator=torch.Generator().manual_seed(0))
    whole = {name: value for name, value in state.items() if name in dense.state_dict()}
    for layer in ("layers.0.channel.body.", "layers.1.channel.body."):
        whole[f"{layer}up.weight"] = state[f"{layer}experts.up.weight"].transpose(1, 2).flatten(0, 1)
        whole[f"{layer}up.bias"] = state[f"{layer}experts.up.bias"].flatten()
        whole[f"{layer}down.weight"] = state[f"{layer}experts.down.weight"].flatten(0, 1).T / EXPERTS
        whole[f"{layer}down.bias"] = state[f"{layer}experts.down.bias"].mean(0)
    dense.load_state_dict(whole)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(model(given), dense(given), atol=1e-4, rtol=1e-4)
    for name in state:
        if ".router." in name:
            state[name].zero_()
    torch.testing.assert_close(model(given), dense(given), atol=1e-5, rtol=1e-5)


def test_more_experts_than_there_are_is_refused() -> None:
    with pytest.raises(SpecError, match="9 of 8 experts\n.*at most 8"):
        with_k(9)
