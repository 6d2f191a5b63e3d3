"""AlgoFormer. Gao et al. 2024, arXiv 2402.13572."""

import pytest
import torch

from search.cost.price import price
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("algoformer")

NAME = "depth/algoformer"
EXAMPLES = torch.randn(2, 82, 20, generator=torch.Generator().manual_seed(0))


def test_parameters_do_not_depend_on_the_steps_and_operations_grow_by_the_same_for_each() -> None:
    sizes = [parameters(build(NAME, device="meta", dims__steps=steps)) for steps in (1, 2, 8, 30)]
    assert sizes == sizes[:1] * 4
    operations = [price(spec(NAME, dims__steps=steps)).forward for steps in (1, 2, 3, 9)]
    each = operations[1] - operations[0]
    assert each > 0 and operations == [operations[0] + steps * each for steps in (0, 1, 2, 8)]


@torch.no_grad()
def test_steps_are_a_stack_of_equal_layers() -> None:
    model = random(build(NAME, dims__steps=5))
    unrolled = build(NAME, dims__steps=5, graph__iterate__kind="repeat")
    state = model.state_dict()
    for name in unrolled.state_dict():
        if name.startswith("iterate."):
            state[name] = state["iterate.0." + name.split(".", 2)[2]]
    unrolled.load_state_dict(state)
    assert torch.equal(model(EXAMPLES), unrolled(EXAMPLES))


def test_the_three_parts_have_weights_of_their_own() -> None:
    model = build(NAME)
    sizes = {
        part: sum(p.numel() for name, p in model.named_parameters() if name.startswith(part))
        for part in ("prepare", "iterate", "finish")
    }
    assert set(sizes.values()) == {12 * 128**2 + 13 * 128}
    model(EXAMPLES).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
