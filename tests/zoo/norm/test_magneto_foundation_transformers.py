"""Magneto. Wang et al. 2022, arXiv 2210.06423."""

from math import log, sqrt
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import compiler
from tests.models import inputs
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("magneto_foundation_transformers")
DECODER = "norm/magneto_foundation_transformers"
ENCODER, TRANSLATION = f"{DECODER}_encoder", f"{DECODER}_translation"
PLAIN: dict[str, Any] = {"blocks__inside": {"kind": "identity"}}
WIDTH = 64


@pytest.mark.parametrize("name", [DECODER, ENCODER, TRANSLATION])
@pytest.mark.parametrize("place", ["pre", "post", "sub"])
def test_norms_stand_before_behind_or_also_inside(name: str, place: str) -> None:
    plain = build(name, device="meta", **PLAIN)
    post = PLAIN | {"blocks__layer__place": "post"}
    if name == TRANSLATION:
        post |= {f"blocks__reader__body__{branch}__place": "post" for branch in ("own", "read", "channel")}
    changes = {"pre": PLAIN, "post": post, "sub": {}}[place]
    model = compiler.compile(spec(name, **changes))
    layers = 5 if name == TRANSLATION else 4
    inside = layers * (2 * WIDTH + 2 * 4 * WIDTH) if place == "sub" else 0  # of attention and of the MLP
    assert parameters(model) - parameters(plain) == inside
    names, usual = ({key for key, _ in one.named_parameters()} for one in (model, plain))
    added = {"pre": 0, "post": sum(".norm." in key for key in usual), "sub": 4 * layers}[place]
    assert len(names - usual) == added
    assert all(".inside." in key if place == "sub" else ".norm_after." in key for key in names - usual)
    found = model(*inputs(model.spec, batch=2, length=8))
    found.square().sum().backward()
    assert found.isfinite().all() and all(p.grad is not None for p in model.parameters())


GAINS = {
    DECODER: {"layers": sqrt(log(2 * 4))},
    ENCODER: {"layers": sqrt(log(2 * 4))},
    TRANSLATION: {"encoder": sqrt(log(3 * 2) * log(2 * 3) / 3), "decoder": sqrt(log(3 * 2))},
}


@pytest.mark.parametrize("name", GAINS)
def test_first_values_are_those_of_xavier_times_a_function_of_the_depth(name: str) -> None:
    stacks = {"encoder", "decoder"} if name == TRANSLATION else {"layers"}
    body = {"layers": "layer", "encoder": "layer", "decoder": "reader"}
    plain = compiler.compile(spec(name, **{f"graph__{stack}__body": body[stack] for stack in stacks}))
    xavier = dict(plain.named_parameters())
    larger = 0
    for key, value in compiler.compile(spec(name)).named_parameters():
        gain = GAINS[name].get(key.split(".")[0], 1.0)
        if key.endswith((".value.weight", ".project.linear.weight", ".project_2.linear.weight")):
            larger += 1
        else:
            gain = 1.0
        torch.testing.assert_close(value, gain * xavier[key])
        if key.endswith(".value.weight"):
            assert value.abs().max().item() == pytest.approx(gain * sqrt(6 / (2 * WIDTH)), rel=1e-3)
    assert larger == 4 * (5 if name == TRANSLATION else 4)


@torch.no_grad()
def test_a_layer_is_that_of_the_paper() -> None:
    model = random(build(ENCODER))
    seen: list[tuple[tuple[Tensor, ...], Tensor]] = []
    model.get_submodule("layers.2").register_forward_hook(lambda part, given, out: seen.append((given, out)))
    tokens = torch.randint(0, 256, (2, 10), generator=torch.Generator().manual_seed(0))
    model(tokens, torch.ones(2, 10, dtype=torch.bool))
    ((x, *_), found) = seen[0]
    state = {key.removeprefix("layers.2."): value for key, value in model.state_dict().items() if "layers.2." in key}

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    body = "mixer.body.body.attention"
    read = norm("mixer.norm", x)
    q, k, v = (linear(f"{body}.{role}", read) for role in ("query", "key", "value"))
    heads = [
        ((q_ @ k_.transpose(1, 2)) / 16**0.5).softmax(-1) @ v_
        for q_, k_, v_ in zip(*(part.split(16, -1) for part in (q, k, v)), strict=True)
    ]
    x = x + linear("mixer.body.body.project.linear", norm("mixer.body.body.inside", torch.cat(heads, -1)))
    hidden = F.gelu(linear("channel.body.body.project.linear", norm("channel.norm", x)))
    x = x + linear("channel.body.body.project_2.linear", norm("channel.body.body.inside", hidden))
    torch.testing.assert_close(found, x, atol=1e-4, rtol=1e-4)


def test_a_stack_of_48_layers_learns_where_one_with_norms_behind_its_branches_does_not() -> None:
    sub = last_losses({})
    post = last_losses(PLAIN | {"blocks__layer__place": "post", "graph__layers__body": "layer"})
    assert sub < 2.5 and post > 0.98 * log(16)  # the loss of one that knows nothing


def last_losses(changes: dict[str, Any]) -> float:
    """The mean of the last losses of a model that learns to count, without warm-up."""
    model: Any = compiler.compile(spec(DECODER, dims__layers=48, dims__width=16, interface__vocab=16, **changes))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(20):
        tokens = torch.randint(0, 16, (16, 8), generator=generator)
        loss = F.cross_entropy(model(tokens).flatten(0, 1), (tokens + 1).remainder(16).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-5:]) / 5
