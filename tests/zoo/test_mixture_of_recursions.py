"""Mixture of recursions. Bae et al. 2025, arXiv 2507.10524."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo.published import build, macs, parameters, random

pytestmark = pytest.mark.system("mixture_of_recursions")

LENGTH, WIDTH = 48, 96
TOKENS = torch.arange(2 * LENGTH).reshape(2, LENGTH) * 7 % 256


def model(*capacity: float) -> Any:
    """A model of as many recursions as capacities."""
    return random(build("mixture_of_recursions", graph__recursion__times=len(capacity),
                        graph__recursion__router__capacity__each=list(capacity)))  # fmt: skip


def rounds(built: Any) -> tuple[list[Tensor], list[Tensor]]:
    """What each recursion reads and gives: the features of its active tokens."""
    read: list[Tensor] = []
    given: list[Tensor] = []

    def watch(module: Any, inputs: Any, output: Tensor) -> None:
        read.append(inputs[0])
        given.append(output)

    blocks = [block for name, block in built.recursion.named_children() if name.isdigit()]
    hooks = [block.register_forward_hook(watch) for block in blocks]
    built(TOKENS)
    for hook in hooks:
        hook.remove()
    return read, given


def test_parameters_stay_while_recursions_grow() -> None:
    """A recursion that chooses its tokens adds its router, one weight a feature, and nothing else."""
    plain = parameters(build("mixture_of_recursions", graph__recursion__router=None, graph__recursion__times=1))
    for times in (1, 2, 5):
        assert parameters(model(*[1] * times)) == plain
        assert parameters(model(1, *[0.5] * (times - 1))) == plain + (times - 1) * WIDTH


def test_parameters_are_those_of_the_first_the_last_and_one_shared_stack() -> None:
    unrolled = build("mixture_of_recursions", graph__recursion__router=None, graph__recursion__times=1)
    layer = sum(p.numel() for name, p in unrolled.named_parameters() if name.startswith("first."))
    outside = 2 * 256 * WIDTH + WIDTH  # embedding, head, norm
    assert parameters(unrolled) == outside + (1 + 2 + 1) * layer


@pytest.mark.parametrize("capacity", [(1, 2 / 3, 1 / 3), (0.5, 0.5, 0.25), (1, 0.25)])
@torch.no_grad()
def test_tokens_of_a_depth_are_those_that_the_router_lets_on(capacity: tuple[float, ...]) -> None:
    built = model(*capacity)
    assert [seen.shape[1] for seen in rounds(built)[0]] == [int(LENGTH * share) for share in capacity]


@torch.no_grad()
def test_a_recursion_takes_the_highest_scores_of_those_before_in_their_order() -> None:
    built = model(1, 2 / 3, 1 / 3)
    read, given = rounds(built)
    assert len(read) == 3
    active = given[0]
    for number in (1, 2):
        router = dict(built.named_parameters())[f"recursion.routers.{number}.weight"]
        scores = (active @ router.T)[..., 0]
        places = scores.topk(read[number].shape[1]).indices.sort().values
        expected = active.gather(1, places[..., None].expand(-1, -1, WIDTH))
        torch.testing.assert_close(read[number], expected, atol=1e-6, rtol=0)
        active = weighed(expected, given[number], scores.gather(1, places))


def weighed(before: Tensor, after: Tensor, score: Tensor) -> Tensor:
    """What a token that went on has become."""
    return before + 0.1 * score.sigmoid()[..., None] * after  # as in the authors' code


@torch.no_grad()
def test_tokens_that_do_not_go_on_stay_bit_identical() -> None:
    built = model(1, 0.5)
    normed: list[Tensor] = []
    built.get_submodule("last.body.mixer.body.qkv").register_forward_pre_hook(
        lambda module, given: normed.append(given[0])
    )
    read, given = rounds(built)
    gain = dict(built.named_parameters())["last.body.mixer.norm.weight"]
    passed = torch.nn.functional.rms_norm(given[0], (WIDTH,), gain, 1e-6)
    same = (normed[0] == passed).all(-1)
    assert same.sum(1).tolist() == [LENGTH - read[1].shape[1]] * 2


@torch.no_grad()
def test_full_capacity_is_a_plain_loop() -> None:
    built = model(1, 1, 1)
    plain = random(build("mixture_of_recursions", graph__recursion__router=None))
    assert torch.equal(built(TOKENS), plain(TOKENS))


@torch.no_grad()
def test_a_loop_is_a_stack_of_equal_layers() -> None:
    plain = random(build("mixture_of_recursions", graph__recursion__router=None))
    stack = build("mixture_of_recursions", graph__recursion__router=None, graph__recursion__kind="repeat")
    state = plain.state_dict()
    shared = {f"recursion.{n}.": "recursion.0." for n in range(3)}
    stack.load_state_dict({name: state[shared.get(name[:12], name[:12]) + name[12:]] for name in stack.state_dict()})
    assert parameters(stack) > parameters(plain)
    assert torch.equal(stack(TOKENS), plain(TOKENS))


def test_flops_follow_the_active_tokens() -> None:
    """Matrix products with weights: a recursion costs its share of the full one."""
    tokens = torch.zeros(1, 96, dtype=torch.int64)

    def cost(*capacity: float) -> float:
        changes = {"graph__recursion__times": len(capacity), "graph__recursion__router__capacity__each": list(capacity)}
        return macs(build("mixture_of_recursions", device="meta", **changes), tokens)

    one = cost(1)
    full = cost(1, 1) - one
    scores = 2 * 96 * 96 * 96  # of two layers, and as much again for values: these shrink with the square
    routed = cost(1, 1 / 3) - one
    assert routed == pytest.approx((full - 2 * scores) / 3 + 2 * scores / 9 + 96 * WIDTH, rel=0.01)
