"""EvoMoE. Nie et al. 2021, arXiv 2112.14397."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import compiler
from archspec.errors import SpecError
from compiler.modules.router import Choose
from compiler.moving import move
from search.data.batches import Data
from search.recipe import Recipe
from search.train import train
from tests.zoo.published import parameters, random, spec

pytestmark = pytest.mark.system("evomoe")
NAME = "mixture/evomoe"
EXPERTS = 8
MLP = 64 * 128 + 128 + 128 * 64 + 64
GIVEN = torch.randint(0, 256, (4, 64), generator=torch.Generator().manual_seed(0))


@contextmanager
def gates(model: Any) -> Iterator[list[Tensor]]:
    """What each token's experts weigh, of every call of the router."""
    seen: list[Tensor] = []
    (router,) = (part for part in model.modules() if isinstance(part, Choose))
    hook = router.register_forward_hook(lambda part, given, out: seen.append(out[0]))
    yield seen
    hook.remove()


@pytest.fixture(scope="module")
def evolved() -> Any:
    """Both phases: one expert, then copies of it."""
    base, whole = spec(NAME, dims__experts=1), spec(NAME)
    data = Data.read("text", "data", None).open(whole.interface)
    model = compiler.compile(base)
    recipe = Recipe(steps=60, batch=8, length=32, learning_rate=1e-2, validation_batches=2)
    train(model, data, recipe)
    sparse = compiler.upcycle(model, whole, masked=0.5)
    train(sparse, data, recipe)
    return sparse.eval()


@torch.no_grad()
def test_spawning_multiplies_the_experts_and_says_the_same_until_they_are_masked() -> None:
    base: Any = random(compiler.compile(spec(NAME, dims__experts=1)))
    spawned: Any = compiler.upcycle(base, spec(NAME))
    assert parameters(spawned) - parameters(base) == (EXPERTS - 1) * (MLP + 64)  # with the rows of the router
    move(spawned, 0)
    torch.testing.assert_close(spawned(GIVEN), base(GIVEN), atol=1e-5, rtol=1e-5)
    masked: Any = compiler.upcycle(base, spec(NAME), masked=0.5)
    move(masked, 0)
    assert (masked(GIVEN) - base(GIVEN)).abs().max() > 0.1


@torch.no_grad()
def test_one_expert_is_a_plain_mlp() -> None:
    base: Any = random(compiler.compile(spec(NAME, dims__experts=1)))
    plain: Any = compiler.compile(spec(NAME, graph__layers__body=["layer", "layer"])).eval()
    state = {name.replace(".sparse.", ".layer_2."): value for name, value in base.state_dict().items()}
    for name in [name for name in state if ".experts." in name]:
        value = state.pop(name)[0]
        state[name.replace(".experts.", ".")] = value.T if value.ndim == 2 else value
    state = {name: value for name, value in state.items() if ".router." not in name}
    plain.load_state_dict(state)
    torch.testing.assert_close(base(GIVEN), plain(GIVEN), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_gate_goes_from_all_experts_to_about_one(evolved: Any) -> None:
    experts, entropies = [], []
    for progress in (0, 0.2, 0.4, 0.6, 0.8, 0.99, 1):
        move(evolved, progress)
        with gates(evolved) as seen:
            evolved(GIVEN)
        shares = seen[0]
        experts.append((shares > 0).sum(-1).float().mean().item())
        entropies.append(torch.special.entr(shares).sum(-1).mean().item())
    assert experts[0] == EXPERTS and experts == sorted(experts, reverse=True)
    assert experts[-2] < 3 and experts[-1] == 1
    assert entropies == sorted(entropies, reverse=True) and entropies[0] > 0.8 * math.log(EXPERTS)


@torch.no_grad()
@pytest.mark.parametrize("progress", [0, 0.5, 0.9])
def test_the_gate_is_a_softmax_that_drops_what_is_at_most_the_threshold(evolved: Any, progress: float) -> None:
    move(evolved, progress)
    inside: list[Tensor] = []
    (router,) = (part for part in evolved.modules() if isinstance(part, Choose))
    hook = router.register_forward_hook(lambda part, given, out: inside.extend((given[0], *out[:2])))
    evolved(GIVEN)
    hook.remove()
    logits, weights, chosen = inside
    temperature = 2 * (0.1 / 2) ** progress
    expected = (logits.flatten(0, 1) / temperature).softmax(-1)
    expected[expected <= 0.02] = 0
    found = torch.zeros_like(expected).scatter(1, chosen, weights)
    torch.testing.assert_close(found, expected)


def test_noise_is_drawn_in_training_alone(evolved: Any) -> None:
    move(evolved, 0.5)
    with gates(evolved) as seen:
        for training in (True, True, False, False):
            evolved.train(training)(GIVEN)
    assert not torch.equal(seen[0], seen[1]) and torch.equal(seen[2], seen[3])


def test_a_temperature_of_zero_is_refused() -> None:
    frozen = {"bind": "step", "from": 2, "to": 0}
    with pytest.raises(SpecError, match="temperature"):
        spec(NAME, blocks__sparse__channel__router__temperature=frozen)
