"""DevFormer. Kim et al. 2022, arXiv 2205.13225."""

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import loads
from compiler.model import compile
from tests.zoo.published import random, spec

pytestmark = pytest.mark.system("devformer")
NAME = "structured/devformer"
CELLS = 25
GRID = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0)) / 5


def boards(count: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates, the port and which cells are open, on boards of five by five."""
    generator = torch.Generator().manual_seed(0)
    port, closed = torch.zeros(count, CELLS, 1), torch.zeros(count, CELLS, 1)
    for board in range(count):
        order = torch.randperm(CELLS, generator=generator)
        port[board, order[0]] = 1
        closed[board, order[1:5]] = 1
    return GRID.expand(count, -1, -1), port, 1 - closed - port


def before(actions: Tensor) -> Tensor:
    """What was chosen before each of the actions."""
    return torch.cat([torch.full_like(actions[:, :1], CELLS), actions[:, :-1]], dim=1)


@torch.no_grad()
def policy() -> Any:
    """A policy with large weights whose batch norms have seen boards."""
    model = random(compile(spec(NAME))).train()
    for _ in range(40):
        model(*boards(8), torch.full((8, 1), CELLS))
    return model.eval()


def logits(model: Any, board: tuple[Tensor, ...], actions: Tensor) -> Tensor:
    """``[batch, steps, cells]``"""
    choice: Tensor = model(*board, before(actions))["choice"]
    return choice.reshape(*actions.shape, CELLS)


@torch.no_grad()
def test_moving_the_board_leaves_relative_features_as_they_are() -> None:
    model, (coordinates, port, is_open) = policy(), boards()
    chosen = torch.full((2, 1), CELLS)
    here = model(coordinates, port, is_open, chosen)
    there = model(coordinates + torch.tensor([3.0, -2.0]), port, is_open, chosen)
    torch.testing.assert_close(there["relative"], here["relative"], atol=1e-5, rtol=1e-5)
    probed = (coordinates * port).sum(1, keepdim=True)
    torch.testing.assert_close(here["relative"][..., 0], (coordinates - probed).square().sum(-1).sqrt())
    assert not torch.allclose(there["choice"], here["choice"], atol=1e-2)  # a cell's own coordinates are read as well


@torch.no_grad()
def test_used_and_closed_cells_are_never_pointed_at() -> None:
    model, board = policy(), boards()
    actions = torch.empty(2, 0, dtype=torch.int64)
    for _ in range(16):
        padded = torch.cat([actions, torch.zeros(2, 1, dtype=torch.int64)], dim=1)
        chance = logits(model, board, padded)[:, -1].softmax(-1)
        allowed = board[2][..., 0].bool().scatter(1, actions, False)
        assert torch.equal(chance > 0, allowed)
        actions = torch.cat([actions, chance.argmax(-1, keepdim=True)], dim=1)
    assert all(len(set(row)) == 16 for row in actions.tolist())
    whole = logits(model, board, actions)  # all steps at once give what they gave one by one
    for step in range(16):
        assert torch.equal(whole[:, step].argmax(-1), actions[:, step])


@torch.no_grad()
def test_the_pointer_is_clipped_and_unlike_cells_are_reached() -> None:
    model, board = policy(), boards()
    actions = torch.tensor([[board_.nonzero()[0, 0].item()] for board_ in board[2]])
    found = logits(model, board, actions)[:, 0]
    real = found[board[2][..., 0] > 0]
    assert real.abs().max() <= 10 and real.std() > 0.1


def log_likelihood(model: Any, board: tuple[Tensor, ...], actions: Tensor) -> Tensor:
    chance = logits(model, board, actions).log_softmax(-1)
    return chance.gather(-1, actions[..., None]).squeeze(-1).sum(-1)


def symmetric_loss(model: Any, board: tuple[Tensor, ...], actions: Tensor) -> Tensor:
    """The mean over all orders of the recorded actions of what each step's choice costs, in nats."""
    orders = [actions[:, list(order)] for order in permutations(range(actions.shape[1]))]
    return -torch.stack([log_likelihood(model, board, one) for one in orders]).mean()


RECORDED = torch.tensor([[11, 7, 23], [20, 15, 8]])


@torch.no_grad()
def test_the_symmetric_loss_has_no_order() -> None:
    model, board = policy(), boards()
    board[2].scatter_(1, RECORDED[..., None], 1.0)
    losses = torch.stack([symmetric_loss(model, board, RECORDED[:, list(o)]) for o in permutations(range(3))])
    torch.testing.assert_close(losses, losses[:1].expand(6))
    orders = torch.stack([log_likelihood(model, board, RECORDED[:, list(o)]) for o in permutations(range(3))])
    assert (orders.std(0) > 0.01).all()  # the decoder knows what came last


def test_training_on_it_makes_the_set_likely_in_every_order() -> None:
    torch.manual_seed(0)
    model, board = compile(spec(NAME), seed=0), boards()
    board[2].scatter_(1, RECORDED[..., None], 1.0)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    first = symmetric_loss(model, board, RECORDED).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = symmetric_loss(model, board, RECORDED)
        loss.backward()
        optimizer.step()
    assert first > 8 and loss.item() < 2.0  # at best log(6), each order as likely as the others


HEAD = """
archspec: 1
interface:
  kind: backbone
  inputs:
    x: {axes: {cell: 5}, width: 2}
    y: {axes: {cell: 5}, width: 1}
    v: {width: 3}
    i: {axes: {step: n}, vocab: 6}
graph:
"""


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("{from: [x, v], kind: euclidean_distance}", "features of one width"),
        ("{from: [i, y], kind: euclidean_distance}", "features of one width"),
        ("{from: [y, y], kind: unused}", "choices are ids"),
        ("{from: [i, x], kind: unused}", "open or not by one feature"),
    ],
)
def test_what_cannot_be_is_refused(node: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        loads(f"{HEAD}  - {node}\n")
