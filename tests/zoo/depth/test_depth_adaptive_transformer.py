"""Depth-Adaptive Transformer. Elbayad et al. 2020, arXiv 1910.10073."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import compiler
from archspec.errors import SpecError
from compiler.decoding import Decoding
from compiler.logical import logical
from compiler.modules.threshold import Enter
from compiler.moving import move
from search.cost.operators import FORMULAS
from search.cost.price import price
from search.data.batches import Batch, Data
from search.losses import loss
from search.recipe import Recipe
from search.train import train
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("depth_adaptive_transformer")
NAME = "depth/depth_adaptive_transformer"
WIDTH, LAYERS, LENGTH = 48, 4, 24
SOURCE, TARGET, ANSWER = (
    torch.randint(0, 256, (1, n), generator=torch.Generator().manual_seed(n)) for n in (20, 24, 25)
)
ANSWER = ANSWER[:, 1:]


@torch.no_grad()
def made() -> Any:
    """A model whose tokens differ in how far they go."""
    model = random(build(NAME))
    weights = logical(model)
    row = weights["decoder.0.go_on.linear.weight"]
    row.copy_(0.3 * torch.randn(row.shape, generator=torch.Generator().manual_seed(15)))
    weights["decoder.0.go_on.linear.bias"].fill_(1.2)
    return model


def exits(model: Any, *given: Tensor) -> Tensor:
    """``[batch, target]``: how many layers each token ran, one sample at a time."""
    found = []
    for sample in range(given[0].shape[0]):
        depth = torch.ones(given[1].shape[1], dtype=torch.int64)

        def count(part: Any, given: Any, out: Any, depth: Tensor = depth) -> None:
            depth.scatter_add_(0, out[0][0], out[1][0].long())

        hooks = [part.register_forward_hook(count) for part in model.modules() if isinstance(part, Enter)]
        model(*(part[sample : sample + 1] for part in given))
        for hook in hooks:
            hook.remove()
        found.append(depth)
    return torch.stack(found)


def forced(model: Any, depth: Tensor | int) -> list[Any]:
    """Makes tokens stop after so many layers; remove the hooks it gives to undo it."""
    parts = [part for part in model.modules() if isinstance(part, Enter)]
    return [
        part.register_forward_pre_hook(
            lambda part, given, layer=layer: (
                torch.where(torch.as_tensor(depth).expand(given[0].shape[:2]) > layer, 9.0, -9.0)[..., None],
                *given[1:],
            )
        )
        for layer, part in enumerate(parts, 1)
    ]


class Reference(nn.Module):
    """The layers of torch, with every state written out: a token that stopped keeps its state, and others read it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        of = {"d_model": WIDTH, "nhead": 4, "dim_feedforward": 96, "dropout": 0.0, "batch_first": True}
        self.encoder = nn.ModuleList(nn.TransformerEncoderLayer(**of) for _ in range(LAYERS))
        self.decoder = nn.ModuleList(nn.TransformerDecoderLayer(**of) for _ in range(LAYERS))
        self.ours = logical(model)
        for number in range(LAYERS):
            ours, layer = f"encoder.{number}", self.encoder[number]
            self.attention(layer.self_attn, f"{ours}.mixer.body")
            self.feed(layer, f"{ours}.channel.body")
            self.norm(layer.norm1, f"{ours}.mixer.norm_after")
            self.norm(layer.norm2, f"{ours}.channel.norm_after")
            ours, layer = f"decoder.{number}.step.body", self.decoder[number]
            self.attention(layer.self_attn, f"{ours}.self.body")
            self.attention(layer.multihead_attn, f"{ours}.cross.body")
            self.feed(layer, f"{ours}.channel.body")
            for norm, part in zip((layer.norm1, layer.norm2, layer.norm3), ("self", "cross", "channel"), strict=True):
                self.norm(norm, f"{ours}.{part}.norm_after")

    @torch.no_grad()
    def attention(self, theirs: Any, ours: str) -> None:
        for name, end in (("weight", "in_proj_weight"), ("bias", "in_proj_bias")):
            parts = [self.ours[f"{ours}.{part}.{name}"] for part in ("query", "key", "value")]
            getattr(theirs, end).copy_(torch.cat(parts))
            getattr(theirs.out_proj, name).copy_(self.ours[f"{ours}.out.{name}"])

    @torch.no_grad()
    def feed(self, theirs: Any, ours: str) -> None:
        for name in ("weight", "bias"):
            getattr(theirs.linear1, name).copy_(self.ours[f"{ours}.up.{name}"])
            getattr(theirs.linear2, name).copy_(self.ours[f"{ours}.down.{name}"])

    @torch.no_grad()
    def norm(self, theirs: Any, ours: str) -> None:
        for name in ("weight", "bias"):
            getattr(theirs, name).copy_(self.ours[f"{ours}.{name}"])

    def embed(self, table: str, ids: Tensor) -> Tensor:
        rates = torch.exp(-torch.arange(WIDTH // 2) * math.log(10000) / (WIDTH // 2 - 1))
        angles = torch.arange(ids.shape[1])[:, None] * rates
        return self.ours[f"{table}.weight"][ids] * WIDTH**0.5 + torch.cat((angles.sin(), angles.cos()), dim=1)

    def forward(self, source: Tensor, target: Tensor, threshold: float) -> tuple[list[Tensor], Tensor]:
        """The logits of each exit, and how many layers each token ran."""
        memory = self.embed("words", source)
        for layer in self.encoder:
            memory = layer(memory)
        states = self.embed("prefix", target)
        future = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1)
        on, depth, found = torch.ones_like(target, dtype=torch.bool), torch.zeros_like(target), []
        row, bias = (self.ours[f"decoder.0.go_on.linear.{name}"] for name in ("weight", "bias"))
        for number, layer in enumerate(self.decoder):
            if number:
                on = on & ((states @ row.T + bias).sigmoid()[..., 0] >= threshold)
            states = torch.where(on[..., None], layer(states, memory, tgt_mask=future), states)
            depth += on
            found.append(states @ self.ours["prefix.weight"].T)
        return found, depth


@torch.no_grad()
def test_tokens_stop_and_the_others_read_copies_of_their_states() -> None:
    model = made()
    reference = Reference(model).eval()
    source, target = (torch.cat([part, part.flip(1)]) for part in (SOURCE, TARGET))
    expected, depth = reference(source, target, 0.5)
    torch.testing.assert_close(model(source, target), expected[-1], atol=1e-3, rtol=1e-4)
    assert set(depth.flatten().tolist()) == {1, 2, 3, 4}
    assert torch.equal(exits(model, source, target), depth)


@torch.no_grad()
def test_forced_full_depth_is_the_plain_model() -> None:
    model = made()
    plain, depth = Reference(model).eval()(SOURCE, TARGET, 0.0)
    assert (depth == LAYERS).all() and not torch.allclose(model(SOURCE, TARGET), plain[-1], atol=0.1)
    forced(model, LAYERS)
    torch.testing.assert_close(model(SOURCE, TARGET), plain[-1], atol=1e-3, rtol=1e-4)
    open_ = build(NAME, blocks__decoder_layer__graph__step__take__threshold=0)
    open_.load_state_dict(model.state_dict())
    torch.testing.assert_close(open_(SOURCE, TARGET), plain[-1], atol=1e-3, rtol=1e-4)


def test_all_exits_are_trained_at_once_on_the_mean_of_their_losses() -> None:
    model = made().train()
    move(model, 0.0)  # nobody stops
    outputs = model(SOURCE, TARGET)
    found = loss("seq2seq_lm", outputs, Batch({}, ANSWER)).task
    logits, _ = Reference(model).eval()(SOURCE, TARGET, 0.0)
    each = [F.cross_entropy(one.flatten(0, 1), ANSWER.flatten()) for one in logits]
    assert float(found.detach()) == pytest.approx(float(sum(each).detach()) / LAYERS, rel=1e-4)  # type: ignore[union-attr]
    for number, exit_ in enumerate(outputs["exits"].chunk(LAYERS, dim=1)):
        torch.testing.assert_close(exit_, logits[number], atol=1e-3, rtol=1e-4)
    found.backward(retain_graph=True)
    whole = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert all(value.abs().max() > 0 for name, value in whole.items() if not name.startswith("decoder.0.go_on"))
    model.zero_grad()
    for exit_ in outputs["exits"].chunk(LAYERS, dim=1):
        (F.cross_entropy(exit_.flatten(0, 1), ANSWER.flatten()) / LAYERS).backward(retain_graph=True)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, whole[name], atol=1e-4, rtol=1e-4)
    together = compiler.with_loss(model)(SOURCE, TARGET, ANSWER)
    torch.testing.assert_close(together, found + outputs["loss"])


@torch.no_grad()
def test_the_first_exit_learns_from_the_first_layer_alone() -> None:
    model = made().train()
    move(model, 0.0)
    before = model(SOURCE, TARGET)["exits"].chunk(LAYERS, dim=1)
    logical(model)["decoder.2.step.body.channel.body.up.weight"].add_(0.5)
    after = model(SOURCE, TARGET)["exits"].chunk(LAYERS, dim=1)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False, False]


def flops(model: Any) -> int:
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        model(SOURCE, TARGET)
    return counter.get_total_flops()


@torch.no_grad()
def test_expected_operations_are_the_mean_over_realised_exits() -> None:
    model = made()
    depth = exits(model, SOURCE, TARGET)[0]
    assert len(set(depth.tolist())) == LAYERS
    realised = flops(model)
    of_depth = []
    for layers in range(1, LAYERS + 1):
        hooks = forced(model, layers)
        of_depth.append(flops(model))
        for hook in hooks:
            hook.remove()
    assert of_depth == sorted(set(of_depth))
    shares = [float((depth > layer).sum()) / LENGTH for layer in range(LAYERS)]
    expected = price(
        spec(NAME, blocks__decoder_layer__graph__step__take__capacity={"each": shares},
             interface__length=LENGTH, interface__source_length=20)
    ).forward  # fmt: skip
    assert expected == realised == sum(of_depth[layers - 1] for layers in depth.tolist()) / LENGTH
    copied = 2 * LENGTH * WIDTH * 2 * WIDTH  # keys and values of copied states, in each layer
    cross = 2 * 20 * WIDTH * 2 * WIDTH  # and those of the source, which a layer makes for whoever comes
    assert of_depth[1] - of_depth[0] == of_depth[3] - of_depth[2]
    layer = 2 * LENGTH * (2 * WIDTH * 96 + 4 * WIDTH * WIDTH) + 4 * LENGTH * (LENGTH + 20) * WIDTH
    assert of_depth[1] - of_depth[0] == layer
    encoder = LAYERS * (2 * 20 * (4 * WIDTH**2 + 2 * WIDTH * 96) + 4 * 20 * 20 * WIDTH)
    others = encoder + 2 * LENGTH * (LAYERS * WIDTH + WIDTH * 256)  # the predictor, and the classifier
    assert of_depth[-1] == LAYERS * (layer + copied + cross) + others


@torch.no_grad()
def test_token_by_token_equals_the_full_pass_and_stops_as_early() -> None:
    model = made()
    expected, depth = model(SOURCE, TARGET), exits(model, SOURCE, TARGET)[0]
    decoding, costs, found = Decoding(model, source={"source": SOURCE}), [], []
    for token in TARGET.split(1, dim=1):
        with FlopCounterMode(display=False) as counter:
            found.append(decoding(token))
        costs.append(counter.get_total_flops())
    torch.testing.assert_close(torch.cat(found, dim=1), expected, atol=1e-3, rtol=1e-4)
    mean = [sum(c for c, d in zip(costs, depth, strict=True) if d == n) / int((depth == n).sum()) for n in (1, 2, 3, 4)]
    assert mean == sorted(mean) and mean[0] < 0.6 * mean[-1]


def test_exits_learn_and_tokens_stop_once_they_may() -> None:
    recipe = Recipe(steps=60, batch=16, length=32, learning_rate=5e-3, validation_batches=1)
    model = compiler.compile(spec(NAME, blocks__decoder_layer__graph__step__take__penalty=0.5))
    data = Data.read("text", "data", None).open(model.spec.interface)
    batch = data.batch(10_000, seed=0, size=8, length=32)

    def each() -> list[float]:
        model.train()
        move(model, 0.0)
        with torch.no_grad():
            logits = model(**batch.inputs)["exits"].chunk(LAYERS, dim=1)
        return [float(F.cross_entropy(one.flatten(0, 1), batch.targets.flatten())) for one in logits]

    before = each()
    train(model, data, recipe)
    assert all(now < then - 1.5 for now, then in zip(each(), before, strict=True))
    move(model.eval(), 1.0)
    depth = exits(model, *batch.inputs.values()).float().mean()
    assert 1 <= depth < 3.5


def test_the_size_of_iwslt() -> None:
    theirs = nn.Transformer(512, 4, 6, 6, 1024, batch_first=True, device="meta")
    plain = parameters(theirs) - 2 * 2 * 512 + (8848 + 6632) * 512  # its two last norms, and the tables
    assert plain == 39_469_056
    assert parameters(build(f"{NAME}_iwslt", device="meta")) == plain + 513


def test_a_predictor_of_more_than_one_number_is_refused() -> None:
    with pytest.raises(SpecError, match="one feature for each token"):
        spec(NAME, blocks__decoder_layer__graph__go_on__width=2)
