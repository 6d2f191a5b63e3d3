"""Selective S4. Wang et al. 2023, arXiv 2303.14526."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from compiler.build import main
from compiler.model import compile
from compiler.tokens import pack
from search.cost.price import price
from tests.compiler.modules.bodies import assert_close, body
from tests.zoo.published import build, random, spec

pytestmark = pytest.mark.system("selective_s4")

NAME = "recurrence/selective_s4"
S4 = "{kind: long_convolution, filter: {kind: diagonal_state_space, state: 4}}"
STACK = f"{{kind: repeat, times: 2, body: {{kind: residual, norm: layer_norm, body: [{S4}, {{kind: mlp, ratio: 1}}]}}}}"
SCORE = "[layer_norm, {kind: project, width: 1, bias: true}]"


def selecting(ratio: float, momentum: float = 0.99, axes: str = "token: n", **more: Any) -> Any:
    node = f"{{name: s, kind: guided_selection, ratio: {ratio}, momentum: {momentum}, body: {STACK}, score: {SCORE}}}"
    return body(node, axes, **more)


def tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randn(2, count, 16, generator=torch.Generator().manual_seed(seed))


def plain(weights: dict[str, Tensor]) -> Any:
    """The stack alone, with these weights."""
    model = body(STACK.replace("{kind", "{name: s, kind", 1), "token: n")
    model.load_state_dict({f"s.{name}": value for name, value in weights.items()})
    return model


def copied(model: Any) -> dict[str, Tensor]:
    guided = model.s.guided
    return {name: guided.copy.get_buffer(name).clone() for name, _ in guided.body.named_parameters()}


@pytest.mark.parametrize(("ratio", "count"), [(0.1, 30), (0.3, 10), (0.3, 11), (0.5, 13), (0.01, 20), (1, 7)])
@torch.no_grad()
def test_the_state_spaces_read_a_share_of_the_tokens_rounded_up(ratio: float, count: int) -> None:
    model, lengths = selecting(ratio), list[int]()
    for name, part in model.s.guided.body.named_modules():
        if name.endswith("convolve"):
            part.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    kept = math.ceil(round(ratio * count, 6))
    assert model(tokens(count)).shape[1] == kept
    assert lengths == [kept, kept]
    fixed = selecting(ratio, axes=f"token: {count}")
    assert fixed.spec.graph.output.count == kept


@torch.no_grad()
def test_the_tokens_that_are_read_are_those_of_the_highest_scores() -> None:
    """Of what the stack with the copy's weights gives for all tokens."""
    model, x = selecting(0.4), tokens(20)
    seen = plain(copied(model))(x)
    norm, project = model.s.guided.score.layer_norm, model.s.guided.score.project.linear
    scores = torch.nn.functional.layer_norm(seen, (16,), norm.weight, norm.bias) @ project.weight[0]
    places = torch.stack([row.argsort(descending=True)[:8].sort().values for row in scores])
    assert len({tuple(row.tolist()) for row in places}) == 2
    stack = plain(dict(model.s.guided.body.named_parameters()))
    read = torch.stack([sample[row] for sample, row in zip(x, places, strict=True)])
    assert_close(model(x), stack(read), 1e-6)


@torch.no_grad()
def test_all_tokens_give_the_plain_stack_bit_for_bit() -> None:
    model, x = selecting(1.0), tokens(20)
    stack = plain(dict(model.s.guided.body.named_parameters()))
    for training in (False, True):
        assert torch.equal(model.train(training)(x), stack.train(training)(x))


def test_the_copy_follows_the_running_mean_and_has_no_gradient() -> None:
    model, momentum = selecting(0.5, momentum=0.9), 0.9
    model.s.guided.fill()
    names = [name for name, _ in model.s.guided.body.named_parameters()]
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = {name: p.detach().clone() for name, p in model.s.guided.body.named_parameters()}
    for step in range(4):
        for _ in range(2):  # gradients that add up are one step
            model(tokens(12, step)).square().mean().backward()
        now = copied(model)
        for name in names:
            torch.testing.assert_close(now[name], expected[name], msg=name)
        optimizer.step()
        optimizer.zero_grad()
        for name, parameter in model.s.guided.body.named_parameters():
            expected[name] = momentum * expected[name] + (1 - momentum) * parameter.detach()
    before = copied(model)
    model.eval()(tokens(12))
    assert all(torch.equal(before[name], value) for name, value in copied(model).items())
    assert int(model.s.guided.steps) == 3
    assert not any(name.startswith("s.guided.copy") for name, _ in model.named_parameters())
    assert not any(value.requires_grad for value in model.s.guided.copy.buffers())
    assert any((before[name] - p).abs().max() > 1e-4 for name, p in model.s.guided.body.named_parameters())


def test_a_new_model_s_copy_is_its_body() -> None:
    guided = compile(spec(NAME)).read.guided
    for name, parameter in guided.body.named_parameters():
        assert torch.equal(guided.copy.get_buffer(name), parameter)


def test_cost_is_linear_in_the_tokens_that_are_read() -> None:
    """But for the logarithm of the transforms, which is 12 at its most and 10 at its least."""
    video = {"kind": "backbone", "inputs": {"video": {"axes": {"time": 64, "row": 64, "column": 64}, "width": 3}}}
    costs = [
        price(spec(NAME, interface=video, graph__read__ratio=r), device="l4").forward for r in (0.25, 0.5, 0.75, 1)
    ]
    steps = [dear - cheap for cheap, dear in zip(costs, costs[1:], strict=False)]
    assert max(steps) < 1.08 * min(steps)
    assert costs[0] < 0.75 * costs[-1]


@torch.no_grad()
def test_the_filter_is_the_answer_of_the_recurrence() -> None:
    """``h[t] = exp(dt a) h[t-1] + b x[t]``, ``y[t] = 2 Re(c h[t])``, token by token."""
    model = body(f"{{name: c, {S4[1:]}", causal="token")
    f, x = model.c.convolve.past, tokens(12)
    a = torch.complex(-f.log_decay.exp(), f.turn)
    step = torch.exp(f.log_step * a.new_ones(1).real)
    decay, b = torch.exp(step * a), (torch.exp(step * a) - 1) / a
    h, out = torch.zeros(2, *a.shape, dtype=a.dtype), []
    for t in range(12):
        h = decay * h + b * x[:, t, :, None]
        out.append(2 * (torch.complex(f.c_real, f.c_imaginary) * h).sum(-1).real)
    assert_close(model(x), torch.stack(out, dim=1) + model.c.skip * x, 1e-4)


def marked(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sixteen tokens of noise, among them two with a mark that have the sign to tell."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 16, 16, generator=generator)
    x[..., 0] = 0
    sign = torch.randint(2, (count,), generator=generator) * 2.0 - 1
    rows = torch.arange(count)[:, None]
    places = torch.rand(count, 16, generator=generator).argsort(1)[:, :2]
    x[rows, places, 0] = 3
    x[rows, places, 1] = 3 * sign[:, None]
    return x, sign


def test_it_learns_which_tokens_tell() -> None:
    """A quarter of the tokens is read; at first those with a mark are fewer than by chance."""
    torch.manual_seed(0)
    model, head = selecting(0.25, momentum=0.9), torch.nn.Linear(16, 1)
    model.s.guided.fill()
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=1e-2)
    x, sign = marked(256, 10**6)
    shares = [share_of_marks(model, x)]
    for step in range(200):
        given, wanted = marked(64, step)
        loss = torch.nn.functional.softplus(-wanted * head(model.train()(given).mean(1))[:, 0]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shares.append(share_of_marks(model, x))
    right = (head(model.eval()(x).mean(1))[:, 0] * sign > 0).float().mean()
    assert right > 0.97
    assert shares[0] < 0.25
    assert shares[1] > 0.7


@torch.no_grad()
def share_of_marks(model: Any, x: Tensor) -> float:
    """How many of the tokens with a mark are read."""
    guided = model.eval().s.guided
    scores = main(guided.score, guided.look(pack(guided.stream, [x])), outer={}).features[..., 0]
    read = x[..., 0].gather(1, scores.topk(4, dim=1).indices)
    return float((read == 3).sum() / (x[..., 0] == 3).sum())


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("{kind: guided_selection, body: layer, score: {kind: mlp, ratio: 1}}", "each token of .* needs one number"),
        ("{kind: guided_selection, body: pool, score: {kind: project, width: 1}}", "each token needs a score"),
        ("{name: y, kind: mlp, ratio: 1}, {kind: guided_selection, body: [{kind: attention, heads: 2, memory: y}], "
         "score: {kind: project, width: 1}}", "reads y from outside, which has no place beside a copy"),
        ("{kind: guided_selection, ratio: 1.5, body: layer, score: {kind: project, width: 1}}", "at most 1"),
        ("{kind: guided_selection, ratio: 0, body: layer, score: {kind: project, width: 1}}", "more than 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_from_is_refused(node: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        body(f"[{node}]")


def test_a_causal_axis_is_refused() -> None:
    with pytest.raises(SpecError, match="which tokens are read depends on all"):
        selecting(0.5, causal="token")


@torch.no_grad()
def test_the_example_reads_half_of_its_tokens() -> None:
    model = random(build(NAME))
    assert model(torch.randn(2, 16, 16, 16, 3)).shape == (2, 9)
    assert model.read.guided.kept.count == 32
