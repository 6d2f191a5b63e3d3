"""Quasi-recurrent layers beside attention. Lindenmaier et al. 2025, arXiv 2502.00617."""

import itertools
import time

import pytest
import torch
from torch import Tensor

from compiler.modules.recurrence import scan
from search.cost.price import price
from tests.compiler.modules.bodies import body
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("hybrid_rnn_transformer_lm")

NAME = "recurrence/hybrid_rnn_transformer_lm"
WIDTH = 96
SIZES = {
    "attend": 4 * WIDTH**2,
    "recur": 3 * WIDTH * (2 * WIDTH + 1),
    "feed": 8 * WIDTH**2,
}


def pooled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A quasi-recurrent layer token by token, as the paper writes it."""
    state, before, found = torch.zeros(x.shape[0], weight.shape[0] // 3), torch.zeros_like(x[:, 0]), []
    for token in x.unbind(1):
        z, f, o = (before @ weight[..., 0].T + token @ weight[..., 1].T + bias).chunk(3, dim=-1)
        state = f.sigmoid() * state + (1 - f.sigmoid()) * z.tanh()
        found.append(o.sigmoid() * state)
        before = token
    return torch.stack(found, dim=1)


@torch.no_grad()
def test_all_tokens_at_once_are_one_after_another() -> None:
    model = random(body("{kind: quasi_recurrent, width: 24}", "token: n", 16, causal="token"))
    x = torch.randn(2, 37, 16, generator=torch.Generator().manual_seed(0))
    weights = model.get_submodule("quasi_recurrent.gates")
    torch.testing.assert_close(model(x), pooled(x, weights.weight, weights.bias), atol=1e-5, rtol=1e-5)


def test_every_pattern_compiles_and_its_layers_add_up() -> None:
    ends = 2 * 256 * WIDTH + 2 * WIDTH
    for pattern in itertools.product(SIZES, repeat=3):
        changed = spec(NAME, graph__layers__rounds=list(pattern))
        assert price(changed).parameters == ends + sum(SIZES[part] + 2 * WIDTH for part in pattern)
    assert (
        parameters(build(NAME)) == ends + 8 * 2 * WIDTH + 4 * SIZES["recur"] + 2 * SIZES["attend"] + 2 * SIZES["feed"]
    )


def test_the_scan_is_faster_than_token_by_token() -> None:
    a, b = torch.rand(4, 1024, 96), torch.randn(4, 1024, 96)

    def seconds(run) -> float:
        taken = []
        for _ in range(3):
            first, second = a.clone().requires_grad_(), b.clone().requires_grad_()
            start = time.process_time()
            run(first, second).sum().backward()
            taken.append(time.process_time() - start)
        return min(taken)

    def one_by_one(a: Tensor, b: Tensor) -> Tensor:
        state, found = torch.zeros_like(b[:, 0]), []
        for place in range(b.shape[1]):
            state = a[:, place] * state + b[:, place]
            found.append(state)
        return torch.stack(found, dim=1)

    assert seconds(scan) < seconds(one_by_one)
