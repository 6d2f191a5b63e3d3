"""Key-driven grouped queries. Khan et al. 2024, arXiv 2408.08454."""

from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from compiler.adopt import adopt
from compiler.modules.sharing import allocation
from tests.compiler.modules.bodies import body
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("key_driven_gqa")

NAME = "attention/key_driven_gqa"
KINDS = ["by_key_norm", "by_tracked_key_norm"]
IMAGES = torch.randn(3, 32, 32, 3, generator=torch.Generator().manual_seed(0))
MIXER = "blocks__layer__mixer"


def sharing(kind: str | None, heads: int = 4) -> dict[str, Any]:
    return {f"{MIXER}__sharing": kind, f"{MIXER}__kv_heads": heads}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_equal_norms_are_plain_grouped_queries(kind: str) -> None:
    model, plain = random(build(NAME, **sharing(kind))), build(NAME, **sharing(None))
    for number in range(2):
        layer = model.get_submodule(f"layers.{number}.mixer.body.qkv")
        for part in (layer.weight, layer.bias):
            keys = part[64:96].unflatten(0, (4, 8))
            keys[1:] = keys[:1]
    plain.load_state_dict({name: v for name, v in model.state_dict().items() if ".sharing." not in name})
    assert torch.equal(model.train()(IMAGES), plain.train()(IMAGES))


@pytest.mark.parametrize(
    ("shares", "counts"),
    [([1, 1, 1, 1], [3, 3, 3, 3]), ([0, 0, 0, 0], [3, 3, 3, 3]), ([6, 3, 2, 1], [6, 3, 2, 1]),
     ([5, 5, 2, 0], [5, 5, 2, 0]), ([1, 0, 0, 0], [12, 0, 0, 0]), ([0.4, 0.35, 0.15, 0.1], [5, 4, 2, 1])],
)  # fmt: skip
def test_whole_numbers_follow_the_ratio(shares: list[float], counts: list[int]) -> None:
    assert allocation(torch.tensor(shares, dtype=torch.float32), 12).tolist() == counts


def test_whole_numbers_sum_to_the_heads() -> None:
    generator = torch.Generator().manual_seed(0)
    for heads in (1, 5, 12, 16):
        shares = torch.rand(7, generator=generator) ** 4
        counts = allocation(shares, heads)
        assert counts.sum() == heads
        assert ((counts - shares / shares.sum() * heads).abs() < 1).all()


def by_groups(model: Any, x: Tensor, counts: list[int]) -> Tensor:
    """Runs of query heads, each with its own key head."""
    part = model.attention
    q, k, v = part.qkv(x).split((32, 16, 16), -1)
    q, k, v = (y.unflatten(-1, (-1, 4)).transpose(1, 2) for y in (q, k, v))
    outs = [
        (asked @ k[:, n, None].mT / 2).softmax(-1) @ v[:, n, None] for n, asked in enumerate(q.split(counts, dim=1))
    ]
    return part.out(torch.cat(outs, 1).transpose(1, 2).flatten(2))


@torch.no_grad()
def test_norms_of_a_pass_say_who_reads_what() -> None:
    model = body("{kind: attention, heads: 8, head_width: 4, kv_heads: 4, sharing: by_key_norm}")
    x = torch.randn(3, 12, 16)
    norms = model.attention.qkv(x)[..., 32:48].unflatten(-1, (4, 4)).norm(dim=(1, 3)).sum(0)
    above = norms - norms.min()
    counts = allocation(above / above.sum(), 8).tolist()
    assert len(set(counts)) > 1
    torch.testing.assert_close(model(x), by_groups(model, x, counts), atol=1e-5, rtol=0)


@torch.no_grad()
def test_tracked_norms_change_who_reads_what_after_a_window() -> None:
    node = "{kind: attention, heads: 8, head_width: 4, kv_heads: 4, sharing: {kind: by_tracked_key_norm, window: 3}}"
    model = body(node)
    part, state = model.attention.sharing, model.attention.qkv
    model.attention.sharing.fill()
    x = torch.randn(3, 12, 16)
    assert part.read.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    torch.testing.assert_close(model(x), by_groups(model, x, [2, 2, 2, 2]), atol=1e-5, rtol=0)
    model.train()(x)
    first, running = part.read.clone(), part.running.clone()
    torch.testing.assert_close(running, state(x)[..., 32:48].unflatten(-1, (4, 4)).norm(dim=(1, 3)).sum(0))
    state.weight[32:36] *= 20
    for passes in (2, 3):
        model(x)
        assert int(part.passes) == passes
        assert part.read.equal(first)
    new = state(x)[..., 32:48].unflatten(-1, (4, 4)).norm(dim=(1, 3)).sum(0)
    for _ in range(3):
        running = 0.1 * running + 0.9 * new
    model(x)
    torch.testing.assert_close(part.running, running)
    counts = allocation(running, 8)
    assert counts[0] > 4
    assert part.read.bincount(minlength=4).equal(counts)
    torch.testing.assert_close(model.eval()(x), by_groups(model, x, counts.tolist()), atol=1e-5, rtol=0)
    assert int(part.passes) == 4


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 12])
def test_parameters_of_a_converted_vit(heads: int) -> None:
    """Of each of 12 layers, the matrices and biases of key and value lose those rows."""
    plain, grouped = (build("vit_base", device="meta", **{f"{MIXER}__kv_heads": n}) for n in (12, heads))
    assert parameters(plain) - parameters(grouped) == 12 * 2 * (12 - heads) * 64 * (768 + 1)


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
@torch.no_grad()
def test_checkpoints_are_converted_by_means(heads: int) -> None:
    model = random(build(NAME, **sharing(None, 8)))
    made = adopt(model, spec(NAME, **sharing("by_key_norm", heads)))
    assert parameters(model) - parameters(made) == 2 * 2 * (8 - heads) * 8 * (64 + 1)
    old, new = (m.get_submodule("layers.1.mixer.body.qkv").weight for m in (model, made))
    assert torch.equal(old[:64], new[:64])
    for part, start in ((old[64:128], 64), (old[128:], 64 + 8 * heads)):
        mean = torch.stack(part.view(8, 8, 64).split(8 // heads)).mean(1).flatten(0, 1)
        torch.testing.assert_close(new[start : start + 8 * heads], mean)
    if heads == 8:
        same = adopt(model, spec(NAME, **sharing(None, heads)))
        assert torch.equal(same(IMAGES), model(IMAGES))


def test_a_checkpoint_that_does_not_fit_is_refused() -> None:
    model = build(NAME, **sharing(None, 8))
    with pytest.raises(SpecError, match=r"channel\.body\.up\.weight is \[256, 64\]; in the spec it is \[128, 64\]"):
        adopt(model, spec(NAME, **sharing(None, 8), blocks__layer__channel__ratio=2))
    with pytest.raises(SpecError, match=r"the spec has no place for layers\.1\."):
        adopt(model, spec(NAME, **sharing(None, 8), graph__layers__times=1))


@pytest.mark.parametrize("kind", KINDS)
def test_keys_to_come_cannot_be_counted(kind: str) -> None:
    with pytest.raises(SpecError, match="still to come"):
        body(f"{{kind: attention, heads: 4, kv_heads: 2, sharing: {kind}}}", causal="token")
