"""Deep Interest Network. Zhou et al. 2017, arXiv 1706.06978."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.spec import loads
from compiler.model import compile
from tests.models import inputs, perturbed
from tests.zoo.published import spec

pytestmark = pytest.mark.system("deep_interest_network")
NAME = "structured/deep_interest_network"
ENTRIES = {"read": {"from": ["behaviours", "items"], "to": ["wanted"]}}


def network() -> Any:
    return perturbed(compile(spec(NAME, interface__entries=ENTRIES))).eval()


def weights(model: Any, history: Tensor, candidate: Tensor) -> Tensor:
    """``[batch, behaviours]`` by the formulas of the paper."""
    state = model.state_dict()
    there = candidate[:, None].expand_as(history)
    x = torch.cat([history, there, history - there, history * there], dim=-1)
    for layer in ("", "_2"):
        path = "wanted.body."
        x = F.linear(x, state[f"{path}project{layer}.linear.weight"], state[f"{path}project{layer}.linear.bias"])
        alpha, mean, var = (
            state[f"{path}dice{layer}.{name}"] for name in ("alpha", "norm.running_mean", "norm.running_var")
        )
        p = torch.sigmoid((x - mean) / torch.sqrt(var + 1e-8))
        x = p * x + (1 - p) * alpha * x
    return F.linear(x, state[f"{path}weights_.linear.weight"], state[f"{path}weights_.linear.bias"])[..., 0]


@torch.no_grad()
def test_interest_is_the_weighted_sum_of_behaviours() -> None:
    model = network()
    history, candidate, valid = (
        torch.randn(3, 8, 32),
        torch.randn(3, 32),
        torch.arange(8) < torch.tensor([[8], [5], [1]]),
    )
    found = model.entries["read"](history, valid, candidate)
    share = weights(model, history, candidate) * valid
    torch.testing.assert_close(found, (share[..., None] * history).sum(1), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(share.sum(1), torch.ones(3), atol=0.05)  # they are no shares of one


@torch.no_grad()
def test_padding_gives_exactly_zero() -> None:
    model = network()
    history, candidate, user, valid = inputs(model.spec, batch=3, length=9)
    assert not valid.all()
    expected = model(history, candidate, user, valid)
    history[~valid] = 7
    assert torch.equal(model(history, candidate, user, valid), expected)
    longer = torch.cat([history, torch.full((3, 4), 5)], dim=1)
    more = torch.cat([valid, torch.zeros(3, 4, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(model(longer, candidate, user, more), expected, atol=1e-6, rtol=1e-5)
    nobody = torch.zeros(3, 8, dtype=torch.bool)
    read = model.entries["read"](torch.randn(3, 8, 32), nobody, torch.randn(3, 32))
    assert torch.equal(read, torch.zeros(3, 32))


@torch.no_grad()
def test_interest_depends_on_the_candidate_and_not_on_the_order() -> None:
    model = network()
    history, valid = torch.randn(1, 6, 32), torch.ones(1, 6, dtype=torch.bool)
    one, other = (model.entries["read"](history, valid, torch.randn(1, 32)) for _ in range(2))
    assert not torch.allclose(one, other, atol=1e-2)
    candidate = torch.randn(1, 32)
    there, back = (model.entries["read"](order, valid, candidate) for order in (history, history.flip(1)))
    torch.testing.assert_close(there, back, atol=1e-5, rtol=1e-4)


DICE = """
archspec: 1
interface: {{kind: backbone, padding: true, inputs: {{x: {{axes: {{token: n}}, width: 4}}}}}}
graph: [{body}]
"""


def test_dice_follows_the_batch_and_is_a_prelu_with_a_smooth_bend() -> None:
    model: Any = compile(loads(DICE.format(body="dice")))
    x = torch.randn(16, 50, 4) * torch.tensor([1.0, 2, 3, 4]) + torch.tensor([0.0, 1, -2, 3])
    valid = torch.ones(16, 50, dtype=torch.bool)
    valid[:, 40:] = False
    model(x.masked_fill(~valid[..., None], 1e4), valid)
    norm = model.dice.norm
    real = x[:, :40].flatten(0, 1)
    torch.testing.assert_close(norm.running_mean, 0.1 * real.mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * real.var(0))

    model.eval()
    with torch.no_grad():
        model.dice.alpha.fill_(0.25)
        norm.running_mean.zero_()
        norm.running_var.fill_(1e-12)  # so sharp that the bend is a corner
        smooth = model.dice.norm.eps
        torch.testing.assert_close(model(x, valid), F.prelu(x, torch.tensor(0.25)), atol=10 * smooth**0.5, rtol=0)
        norm.running_mean.copy_(torch.tensor([0.5, 0.0, -1.0, 2.0]))
        norm.running_var.fill_(4.0)
        p = torch.sigmoid((x - norm.running_mean) / 2.0)
        torch.testing.assert_close(model(x, valid), p * x + (1 - p) * 0.25 * x, atol=1e-5, rtol=1e-5)


def test_a_click_that_depends_on_past_and_candidate_is_learned() -> None:
    """Somebody clicks what is in the history; neither the candidate nor the history alone tells that."""
    torch.manual_seed(0)
    model: Any = compile(spec(NAME), seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    right = []
    for _ in range(250):
        history = torch.randint(0, 20, (64, 5))
        inside = torch.rand(64) < 0.5
        candidate = torch.where(inside, history[:, 2], torch.randint(0, 20, (64,)))
        click = (history == candidate[:, None]).any(1).long()
        logits = model(history, candidate, torch.zeros(64, dtype=torch.int64), torch.ones(64, 5, dtype=torch.bool))
        optimizer.zero_grad()
        F.cross_entropy(logits, click).backward()
        optimizer.step()
        right.append((logits.argmax(-1) == click).float().mean().item())
    assert sum(right[-20:]) / 20 > 0.85
