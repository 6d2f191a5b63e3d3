"""SLAB. Guo et al. 2024, arXiv 2405.11582."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import compiler
from archspec.errors import SpecError
from compiler.modules.batch_norm import Statistics
from compiler.moving import move
from search.data.digits import Digits
from search.recipe import Recipe
from search.train import train
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("slab")
NAME = "norm/slab"
WIDTH, HEADS = 32, 4
IMAGES = torch.randn(8, 8, 8, 1, generator=torch.Generator().manual_seed(0))


def norms(graph: fx.Graph, model: Any) -> list[fx.Node]:
    """The norms that a graph computes."""
    return [
        node
        for node in graph.nodes
        if (node.op == "call_module" and isinstance(model.get_submodule(node.target), Statistics))
        or node.target in (F.layer_norm, F.rms_norm)
    ]


def test_at_the_end_of_the_schedule_norms_fold_and_the_outputs_stay() -> None:
    model: Any = compiler.compile(spec(NAME))
    data = Digits().open(model.spec.interface)
    train(model, data, Recipe(steps=60, batch=32, learning_rate=5e-3))
    folded: Any = compiler.fold(model.eval())
    final: Any = compiler.flatten(compiler.settle(model))
    assert len(norms(final.graph, final)) == 5
    (last,) = norms(folded.graph, folded)
    assert [reader.target for reader in last.users] == ["mean"]  # the pool, not a matrix
    (batch,) = (one.inputs for one in data.validation(size=128, length=None, batches=1))
    with torch.no_grad():
        expected, found = model(**batch), folded(**batch)
    assert (expected - found).abs().max() < 1e-5 < 0.1 < expected.abs().max()


@torch.no_grad()
def test_before_the_first_step_it_is_the_model_with_layer_norms() -> None:
    model: Any = random(build(NAME)).train()
    move(model, 0)
    plain: Any = build(NAME, blocks__norm={"kind": "layer_norm"}).train()
    state = model.state_dict()
    for name, value in plain.state_dict().items():
        norm, _, last = name.rpartition(".")
        value.copy_(state[name] if name in state else state[f"{norm}.first.{last}"])
    assert torch.equal(model(IMAGES), plain(IMAGES))


@torch.no_grad()
@pytest.mark.parametrize("progress", [0.2, 0.6, 1.0])
def test_the_norm_is_a_blend_of_a_layer_norm_and_a_batch_norm_with_its_input(progress: float) -> None:
    model: Any = random(build(NAME)).train()
    move(model, progress)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    read: list[Tensor] = []
    model.last.second.norm.register_forward_hook(lambda part, given, out: read.append(given[0]))
    found = model(IMAGES)
    share = max(0.0, 1 - progress / 0.8)
    batch_norm = nn.BatchNorm1d(WIDTH)
    for name in ("weight", "bias"):
        getattr(batch_norm, name).copy_(state[f"last.second.norm.{name}"])
    first = F.layer_norm(read[0], (WIDTH,), state["last.first.weight"], state["last.first.bias"])
    second = batch_norm(read[0].transpose(1, 2)).transpose(1, 2) + state["last.second.norm.gain"] * read[0]
    blended = share * first + (1 - share) * second
    torch.testing.assert_close(found, F.linear(blended.mean(1), state["classifier.weight"], state["classifier.bias"]))


@torch.no_grad()
def test_attention_is_relu_of_queries_and_placed_keys_and_a_convolution_of_the_values() -> None:
    layer = {"kind": "sequence", "body": "simplified_attention"}
    model: Any = random(build(NAME, blocks__layer=layer))
    seen: list[Tensor] = []
    for number in range(2):
        model.get_submodule(f"layers.{number}").register_forward_hook(
            lambda part, given, out: seen.extend((given[0], out))
        )
    model(IMAGES)
    state = model.state_dict()
    for number in range(2):
        x, found = seen[2 * number : 2 * number + 2]
        prefix = f"layers.{number}.sequence.body."
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        torch.testing.assert_close(found, naive(x, weights), atol=1e-4, rtol=1e-4)


def naive(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    """The paper's equations, all pairs of places one by one."""
    q, k, v = F.linear(x, state["qkv.weight"], state["qkv.bias"]).split(WIDTH, -1)
    k = k + state["key_position.weight"]
    outputs = []
    for q_, k_, v_ in zip(*(part.split(WIDTH // HEADS, -1) for part in (q.relu(), k.relu(), v)), strict=True):
        weights = q_ @ k_.transpose(1, 2)
        outputs.append(weights @ v_ / (weights.sum(-1, keepdim=True) + 1e-6))
    grid = v.transpose(1, 2).unflatten(-1, (4, 4))
    kernel = state["local.convolution.weight"].reshape(WIDTH, 1, 5, 5)
    beside = F.conv2d(grid, kernel, state["local.convolution.bias"], padding=2, groups=WIDTH)
    return F.linear(torch.cat(outputs, -1) + beside.flatten(2).transpose(1, 2), state["out.weight"], state["out.bias"])


def test_the_tiny_one_has_the_parameters_of_the_authors_code() -> None:
    width, patches, hidden, filters = 192, 14 * 14, 768, 192 // 3  # filters of 5 by 5, shared by three heads
    norm = 4 * width + 1
    attention = 4 * (width**2 + width) + filters * 26 + patches * width
    layer = 2 * norm + attention + 2 * width * hidden + hidden + width
    theirs = (16 * 16 * 3 + 1) * width + patches * width + width + 12 * layer + norm + 1000 * (width + 1)
    own = 12 * (width - filters) * 26  # a filter for each feature
    assert parameters(build("norm/slab_deit_t", device="meta")) == theirs + own - width == 6_238_145


@pytest.mark.parametrize(("field", "body"), [("local", {"kind": "project", "width": 5}), ("key_position", "pool")])
def test_bodies_that_change_the_shape_are_refused(field: str, body: Any) -> None:
    with pytest.raises(SpecError, match=f"{field}\n.*gives .*, not "):
        spec(NAME, **{f"blocks__simplified_attention__{field}": body})
