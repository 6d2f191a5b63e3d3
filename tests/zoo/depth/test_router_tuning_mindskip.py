"""Router-Tuning. He et al. 2024, arXiv 2410.13184."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import compiler
from archspec.errors import SpecError
from archspec.spec import load
from compiler.adopt import adopt
from compiler.decoding import Decoding
from compiler.logical import logical
from compiler.modules.threshold import Enter
from search.cost.breakdown import breakdown
from search.cost.operators import FORMULAS
from search.cost.price import price
from search.data.batches import Data
from search.recipe import Recipe
from search.recipes import load_recipe
from search.train import train
from tests.zoo.published import ZOO, random, spec

pytestmark = pytest.mark.system("router_tuning_mindskip")
NAME = "depth/router_tuning_mindskip"
TOKENS = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(0))
EXAMPLES = Path(__file__).parents[3] / "examples"
WRAPPED = ("layers.1", "layers.2")


@pytest.fixture(scope="module")
def base() -> Any:
    return random(compiler.compile(load(EXAMPLES / "tiny.yaml"))).eval()


def wrapped(base: Any, **changes: Any) -> Any:
    return adopt(base, spec(NAME, **changes), zero=["**.router"])


@torch.no_grad()
def scattered(model: Any) -> Any:
    """The model with routers that let about half of the tokens in."""
    generator = torch.Generator().manual_seed(1)
    for name, row in model.named_parameters():
        if ".router." in name:
            row.normal_(generator=generator)
    return model


def gates(model: nn.Module) -> list[Tensor]:
    """Filled in each pass: which of the places of the tokens are of those that enter, layer by layer."""
    seen: list[Tensor] = []
    for part in model.modules():
        if isinstance(part, Enter):
            part.register_forward_hook(lambda part, given, out: seen.append(out[1]))
    return seen


def test_a_wrapped_attention_has_one_row_more(base: Any) -> None:
    model = wrapped(base)
    new = {name: value.shape for name, value in logical(model).items() if ".router." in name}
    assert new == {f"{layer}.mixer.body.router.linear.weight": (1, 128) for layer in WRAPPED}
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in base.parameters()) + 2 * 128


@torch.no_grad()
def test_gates_that_are_forced_open_give_the_logits_of_the_decoder(base: Any) -> None:
    expected = base(TOKENS)
    assert torch.equal(wrapped(base, dims__threshold=0)(TOKENS), expected)
    torch.testing.assert_close(wrapped(base)(TOKENS), expected, atol=2e-5, rtol=1e-5)  # routers of zeros
    assert not torch.allclose(scattered(wrapped(base))(TOKENS), expected, atol=0.1)


@torch.no_grad()
def test_a_layer_is_that_of_the_authors_arithmetic_but_for_what_skips(base: Any) -> None:
    """Sigmoid of one row on the normed input; the attention times 0 or 1, here with no keys of tokens that skip."""
    model = scattered(wrapped(base))
    state = {name.removeprefix("layers.1."): value for name, value in logical(model).items() if "layers.1." in name}
    x = torch.randn(2, 40, 128, generator=torch.Generator().manual_seed(3))
    normed = nn.functional.rms_norm(x, (128,), state["mixer.norm.weight"], 1e-6)
    enter = (normed @ state["mixer.body.router.linear.weight"].T).sigmoid()[..., 0] >= 0.5
    assert 20 < enter.sum() < 60
    q, k, v = (
        (normed @ state[f"mixer.body.attend.body.{part}.weight"].T).unflatten(-1, (-1, 32)).transpose(1, 2)
        for part in ("query", "key", "value")
    )
    angles = torch.arange(40)[:, None] * 10000.0 ** -(torch.arange(0, 32, 2) / 32)

    def turned(y: Tensor) -> Tensor:
        a, b = y.chunk(2, dim=-1)
        return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), dim=-1)

    q, k, v = turned(q), turned(k).repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    seen = torch.ones(40, 40, dtype=torch.bool).tril() & enter[:, None, None]
    scores = (q @ k.transpose(-1, -2) / 32**0.5).masked_fill(~seen, -1e9)
    said = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ state["mixer.body.attend.body.out.weight"].T
    y = x + said * enter[..., None]
    inner = nn.functional.rms_norm(y, (128,), state["channel.norm.weight"], 1e-6)
    gate, up = (inner @ state[f"channel.body.{part}.weight"].T for part in ("gate", "up"))
    expected = y + (nn.functional.silu(gate) * up) @ state["channel.body.down.weight"].T
    torch.testing.assert_close(model.get_submodule("layers.1")(x), expected, atol=1e-3, rtol=1e-4)


def test_only_routers_learn_and_they_learn_to_skip(base: Any) -> None:
    recipe = Recipe.model_validate(load_recipe(EXAMPLES / "recipes" / "router_tuning.yaml").train)
    recipe = recipe.model_copy(update={"steps": 25, "learning_rate": 3e-3, "validation_batches": 1})
    model = wrapped(base, blocks__skippable__graph__attend__take__penalty=20)
    before = {name: value.clone() for name, value in model.named_parameters()}
    train(model, Data.read("text", "data", None).open(model.spec.interface), recipe)
    learnt = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert learnt == {f"{layer}.mixer.body.router.linear.weight" for layer in WRAPPED}
    assert all(value.grad is None for name, value in model.named_parameters() if name not in learnt)
    seen = gates(model.eval().requires_grad_(False))
    model(TOKENS)
    assert all(part.sum() < 0.75 * TOKENS.numel() for part in seen)


@torch.no_grad()
def test_operations_fall_with_the_rate_of_skipping_as_they_are_priced(base: Any) -> None:
    found = []
    for entering in (40, 30, 20, 10, 4):
        model = wrapped(base)
        for part in model.modules():
            if isinstance(part, Enter):
                scores = torch.where(torch.arange(40) < entering, 1.0, -1.0)[None, :, None].expand(2, -1, -1)
                part.register_forward_pre_hook(lambda part, given, scores=scores: (scores, *given[1:]))
        with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
            model(TOKENS)
        found.append(counter.get_total_flops())
        assert found[-1] == price(spec(NAME, dims__capacity=entering / 40), batch=2, length=40).forward
    assert found == sorted(found, reverse=True) and len(set(found)) == 5
    routers = 2 * 2 * TOKENS.numel() * 128
    assert found[0] == price(base.spec, batch=2, length=40).forward + routers


@torch.no_grad()
def test_the_cache_shrinks_with_the_rate_of_skipping(base: Any) -> None:
    whole = price(base.spec, length=40).cache_per_token
    for capacity in (0.5, 0.25):
        cost = price(spec(NAME, dims__capacity=capacity), length=40)
        assert cost.cache_per_token == whole * (2 + 2 * capacity) / 4
    model = scattered(wrapped(base))
    expected, seen = model(TOKENS[:1]), gates(model)
    model(TOKENS[:1])
    entered = [int(part.sum()) for part in seen[:2]]
    decoding = Decoding(model)
    out = torch.cat([decoding(part) for part in TOKENS[:1].split([16, *[1] * 24], dim=1)], dim=1)
    torch.testing.assert_close(out, expected, atol=1e-3, rtol=1e-3)
    keys = [tensor.shape[2] for tensor in decoding.tensors() if tensor.ndim == 4 and tensor.shape[-1] == 32]
    assert sorted(keys[2:6]) == sorted(entered * 2) and max(entered) < 40


def test_a_decoded_token_that_enters_reads_the_share_of_the_context_that_did() -> None:
    read = [
        breakdown(spec(NAME, dims__capacity=capacity), device="l4", length=40, context=39, fitting=False)
        .passes["decode"].bytes
        for capacity in (1.0, 0.5, 0.25)
    ]  # fmt: skip
    keys = 2 * 2 * 32 * 4 * 2  # bytes of a token's keys and values, in two layers
    assert read[0] - read[1] >= 19 * keys and read[1] - read[2] >= 10 * keys


def test_what_is_missing_is_refused(base: Any) -> None:
    with pytest.raises(SpecError, match="no stream is called 'rooter'"):
        spec(NAME, blocks__skippable__graph__attend__take__score="rooter")
    with pytest.raises(SpecError, match=r"the spec has no place for layers\.3"):
        adopt(base, load(ZOO / f"{NAME}.yaml", set={"graph.layers.times": 3}))
