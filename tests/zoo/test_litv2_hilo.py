"""HiLo attention. Pan, Cai and Zhuang 2022, arXiv 2205.13213."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.zoo.published import build, macs, parameters, random, spec

pytestmark = pytest.mark.system("litv2_hilo")

IMAGE = torch.randn(2, 32, 32, 3, generator=torch.Generator().manual_seed(0))
ALONE = {  # the group that is left, as a plain mixer of all heads
    0: {"kind": "partition", "scheme": {"kind": "windows", "size": 2},
        "body": {"kind": "attention", "heads": 6, "head_width": 16, "bias": True}},
    1: {"kind": "attention", "heads": 6, "head_width": 16, "bias": True, "memory": {"kind": "pool", "window": 2}},
}  # fmt: skip


def branches(alpha: float) -> dict[str, Any]:
    """The example with a share of heads; a group without heads is left out."""
    if alpha not in ALONE:
        return {"dims__alpha": alpha}
    kept = spec("litv2_hilo").tree["blocks"]["hilo"]["branches"][alpha]
    return {"blocks__hilo__branches": [kept], "dims__alpha": alpha}


@pytest.mark.parametrize("alpha", [0, 1])
@torch.no_grad()
def test_one_group_alone_is_its_plain_form(alpha: int) -> None:
    model = random(build("litv2_hilo", **branches(alpha)))
    plain = build("litv2_hilo", blocks__late__mixer=ALONE[alpha])
    names = [name.replace("mixer.body.branches.0", "mixer.body") for name in model.state_dict()]
    plain.load_state_dict(dict(zip(names, model.state_dict().values(), strict=True)))
    assert torch.equal(model(IMAGE), plain(IMAGE))


def heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(-1, (count, 16)).transpose(-2, -3)


@torch.no_grad()
def test_groups_attend_inside_windows_and_to_their_means() -> None:
    """Against a computation over all pairs of tokens of the 8 × 8 grid."""
    model = random(build("litv2_hilo"))
    seen: list[tuple[Tensor, Tensor]] = []
    model.get_submodule("stage2.0").register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    model(IMAGE)
    read, gave = seen[0]
    state = {name.removeprefix("stage2.0."): value for name, value in model.state_dict().items()}
    x = F.layer_norm(read, (96,), state["mixer.norm.weight"], state["mixer.norm.bias"])
    row, column = torch.arange(64) // 8 // 2, torch.arange(64) % 8 // 2
    window = row * 4 + column
    together = window[:, None] == window[None, :]
    high, low = "mixer.body.branches.0.body.", "mixer.body.branches.1."

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    q, k, v = (heads(part, 3) for part in linear(x, f"{high}qkv").chunk(3, -1))
    scores = (q @ k.transpose(-1, -2) / 4).masked_fill(~together, float("-inf"))
    near = linear((scores.softmax(-1) @ v).transpose(-2, -3).flatten(-2), f"{high}out")

    means = torch.stack([x[:, window == number].mean(1) for number in range(16)], dim=1)
    q = heads(linear(x, f"{low}query"), 3)
    k, v = (heads(part, 3) for part in linear(means, f"{low}kv").chunk(2, -1))
    far = linear(((q @ k.transpose(-1, -2) / 4).softmax(-1) @ v).transpose(-2, -3).flatten(-2), f"{low}out")

    mixed = read + torch.cat((near, far), -1)
    y = F.layer_norm(mixed, (96,), state["channel.norm.weight"], state["channel.norm.bias"])
    inner = linear(y, "channel.body.up").transpose(1, 2).unflatten(2, (8, 8))
    kernel, bias = state["channel.body.depthwise.weight"], state["channel.body.depthwise.bias"]
    inner = F.conv2d(inner, kernel, bias, padding=1, groups=kernel.shape[0]).flatten(2).transpose(1, 2)
    expected = mixed + linear(F.gelu(inner), "channel.body.down")
    torch.testing.assert_close(gave, expected, atol=1e-5, rtol=0)


def test_parameters_do_not_depend_on_the_share_of_heads() -> None:
    """Queries, keys, values and the ways out of all heads; each way out only as wide as its group."""
    wide, narrow = (parameters(build("litv2_hilo", device="meta", dims__alpha=alpha)) for alpha in (1 / 6, 5 / 6))
    assert wide == narrow


def test_low_frequencies_cost_a_quarter_of_the_pairs() -> None:
    """Products of scores and values: full attention of a head reads 64 tokens, low frequencies 16, high 4."""
    full = build("litv2_hilo", device="meta", blocks__late__mixer={"kind": "attention", "heads": 6, "bias": True})
    pairs = 2 * 6 * 64 * 64 * 16 * 2  # both products, heads, pairs, width, layers
    keys = 2 * 96 * 96 * 64 * 2  # keys and values of all tokens, layers
    low = build("litv2_hilo", device="meta", **branches(1))
    high = build("litv2_hilo", device="meta", **branches(0))
    assert macs(full, IMAGE[:1]) - macs(low, IMAGE[:1]) == 0.75 * (pairs + keys)
    assert macs(full, IMAGE[:1]) - macs(high, IMAGE[:1]) == 15 / 16 * pairs
