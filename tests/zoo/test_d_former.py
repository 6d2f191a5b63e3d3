"""D-Former. Wu et al. 2022, arXiv 2201.00462."""

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from tests.zoo.published import build, macs, random, spec

pytestmark = pytest.mark.system("d_former")

GROUP = (2, 4, 4)
WIDTH, HEADS = 24, 2


def volume(*sizes: int, width: int = 1) -> dict[str, Any]:
    axes = dict(zip(("slice", "row", "column"), sizes, strict=True))
    return {"interface__inputs__volume": {"axes": axes, "width": width}}


def one_layer(name: str, sizes: tuple[int, ...], pad: bool) -> Any:
    """A model of one attention layer of the example, its channel mixer closed."""
    model = random(build("d_former", graph=[name], **volume(*sizes, width=WIDTH),
                         **{f"blocks__{name}__mixer__scheme__pad": pad}))  # fmt: skip
    for parameter in model.get_submodule(f"{name}.body.channel.body.down").parameters():
        parameter.zero_()
    return model


def by_masks(name: str, state: dict[str, Tensor], x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The same layer as attention over all pairs of voxels, of which those in different groups are masked."""
    places = torch.tensor(list(product(*map(range, sizes))))
    counts = torch.tensor([-(-size // part) for size, part in zip(sizes, GROUP, strict=True)])
    if name == "local":
        group, inside = places // torch.tensor(GROUP), places % torch.tensor(GROUP)
    else:  # units as far apart as there are groups
        group, inside = places % counts, places // counts
    together = (group[:, None] == group[None, :]).all(-1)
    span = [2 * part - 1 for part in GROUP]
    offset = (inside[:, None] - inside[None, :] + torch.tensor(GROUP) - 1).clamp(min=0)
    row = (offset[..., 0] * span[1] + offset[..., 1]) * span[2] + offset[..., 2]
    table = state["mixer.body.body.position.weight"]
    bias = table[row.clamp(max=len(table) - 1)].permute(2, 0, 1)

    normed = F.layer_norm(x, (WIDTH,), state["mixer.norm.weight"], state["mixer.norm.bias"])
    qkv = F.linear(normed, state["mixer.body.body.qkv.weight"], state["mixer.body.body.qkv.bias"])
    q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
    scores = q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5 + bias
    mixed = scores.masked_fill(~together, float("-inf")).softmax(-1) @ v
    out = F.linear(
        mixed.transpose(1, 2).flatten(2), state["mixer.body.body.out.weight"], state["mixer.body.body.out.bias"]
    )
    return x + out


@pytest.mark.parametrize("name", ["local", "dilated"])
@pytest.mark.parametrize(
    ("sizes", "pad"), [((4, 8, 12), False), ((2, 4, 4), False), ((5, 7, 9), True), ((1, 3, 6), True)]
)
@torch.no_grad()
def test_layer_is_attention_under_a_mask(name: str, sizes: tuple[int, ...], pad: bool) -> None:
    model = one_layer(name, sizes, pad)
    state = {key.removeprefix(f"{name}.body."): value for key, value in model.state_dict().items()}
    x = torch.randn(2, *sizes, WIDTH)
    torch.testing.assert_close(model(x), by_masks(name, state, x.flatten(1, 3), sizes), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scheme", ["local", "dilated"])
def test_odd_sizes_are_refused_unless_they_are_padded(scheme: str) -> None:
    odd = volume(16, 36, 32)  # 18 rows of patches, in groups of 4
    with pytest.raises(SpecError) as error:
        spec("d_former", **odd)
    assert "row 18 does not divide into groups of 4" in str(error.value)
    assert "try size: 1, 2, 3, 6, 9 or 18, or pad: true" in str(error.value)
    other = {"local": "dilated", "dilated": "local"}[scheme]
    with pytest.raises(SpecError, match="row 18 does not divide"):
        spec("d_former", **odd, **{f"blocks__{other}__mixer__scheme__pad": True})


@torch.no_grad()
def test_padded_model_runs_on_odd_sizes() -> None:
    pads = {f"blocks__{name}__mixer__scheme__pad": True for name in ("local", "dilated")}
    model = build("d_former", **volume(8, 24, 40), **pads)  # at the bottom 1 × 3 × 5 voxels
    assert model(torch.randn(1, 8, 24, 40, 1)).shape == (1, 8 * 24 * 40, 3)


def test_what_does_not_merge_is_refused() -> None:
    with pytest.raises(SpecError, match="slice 17 does not divide into patches of 2"):
        spec("d_former", **volume(17, 32, 32))


def test_flops_grow_linearly_with_the_voxels() -> None:
    first = macs(build("d_former", device="meta", **volume(16, 32, 32)), torch.empty(1, 16, 32, 32, 1))
    for sizes in ((32, 32, 32), (32, 64, 64), (48, 96, 96)):
        cost = macs(build("d_former", device="meta", **volume(*sizes)), torch.empty(1, *sizes, 1))
        voxels = sizes[0] * sizes[1] * sizes[2]
        assert cost * 16 * 32 * 32 == first * voxels


@torch.no_grad()
def test_skips_join_the_grids_of_one_size() -> None:
    """The finest layers of the way up read what the way down gave there."""
    model = random(build("d_former"))
    x = torch.randn(1, 16, 32, 32, 1)
    y = model(x)
    name = "up1.body.project.linear.weight"
    joined = model.get_parameter(name)
    assert joined.shape == (WIDTH, 2 * WIDTH)
    joined[:, WIDTH:] = 0
    assert not torch.allclose(model(x), y, atol=1e-2)
