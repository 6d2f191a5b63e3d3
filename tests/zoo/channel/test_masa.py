"""Matrix atom sharing in attention. Zhussip et al. 2025, arXiv 2508.04581."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo.published import build, parameters, random

pytestmark = pytest.mark.system("masa")

NAME = "channel/masa"
LAYERS, ATOMS, ROLES = 6, 2, ("query", "key", "value", "out")
DENSE = {"blocks__layer__graph__attend__linear": None, "graph__layers__share": None}
TOKENS = torch.randint(0, 256, (2, 12), generator=torch.Generator().manual_seed(0))


def of_attention(model: Any) -> int:
    return sum(parameter.numel() for name, parameter in model.named_parameters() if ".attend." in name)


def pair() -> tuple[Any, Any]:
    """The model and a dense one whose matrices are the stated mixtures."""
    model, dense = random(build(NAME)), build(NAME, **DENSE)
    state = {name: value for name, value in model.state_dict().items() if ".attend." not in name}
    for layer in range(LAYERS):
        mixed = [mixture(model, layer, role) for role in ROLES]
        state[f"layers.{layer}.attend.qkv.weight"] = torch.cat(mixed[:3])
        state[f"layers.{layer}.attend.out.weight"] = mixed[3]
    dense.load_state_dict(state)
    return model, dense


@torch.no_grad()
def mixture(model: Any, layer: int, role: str) -> Tensor:
    """``[outputs, inputs]``: the sum of the first layer's atoms by the numbers of this one."""
    atoms = model.get_parameter(f"layers.0.attend.{role}.weight")
    numbers = model.get_parameter(f"layers.{layer}.attend.{role}.mine.mixture")
    return sum(number * atom.T for number, atom in zip(numbers, atoms, strict=True))  # type: ignore[return-value]


def test_attention_has_a_third_of_the_parameters() -> None:
    shared, dense = build(NAME), build(NAME, **DENSE)
    mixtures = LAYERS * len(ROLES) * ATOMS
    assert 3 * (of_attention(shared) - mixtures) == of_attention(dense)
    assert parameters(dense) - parameters(shared) == of_attention(dense) - of_attention(shared)


def test_published_sizes() -> None:
    """226.5 M become 75 M in a model of 700 M: 24 layers, 8 atoms."""
    shared, dense = (build("channel/masa_700m", device="meta", **changes) for changes in ({}, DENSE))
    assert round(of_attention(dense) / 1e6, 1) == 226.5
    assert int(of_attention(shared) / 1e6) == 75
    assert 3 * (of_attention(shared) - 24 * len(ROLES) * 8) == of_attention(dense)
    assert 0.65e9 < parameters(dense) < 0.75e9


@torch.no_grad()
def test_matrices_are_the_stated_mixtures() -> None:
    model, dense = pair()
    expected = dense(TOKENS)
    assert expected.std() > 0.1
    torch.testing.assert_close(model(TOKENS), expected, atol=1e-3, rtol=1e-3)


def test_gradients_of_atoms_are_sums_over_all_layers() -> None:
    model, dense = pair()
    for one in (model, dense):
        one(TOKENS).square().mean().backward()
    for role in ROLES:
        expected = torch.zeros(ATOMS, 64, 64)
        for layer in range(LAYERS):
            part = ROLES.index(role)
            fused = dense.get_parameter(f"layers.{layer}.attend.{'out' if part == 3 else 'qkv'}.weight").grad
            grad = fused if part == 3 else fused[64 * part : 64 * part + 64]
            numbers = model.get_parameter(f"layers.{layer}.attend.{role}.mine.mixture").detach()
            assert (numbers.abs() * grad.abs().max() > 0).all()
            expected += numbers[:, None, None] * grad.T
        found = model.get_parameter(f"layers.0.attend.{role}.weight").grad
        torch.testing.assert_close(found, expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-3)


@torch.no_grad()
def test_one_hot_mixtures_share_whole_matrices() -> None:
    """With as many atoms as layers, each its own, it is the dense model."""
    model = random(build(NAME, graph__layers__times=ATOMS))
    for layer in range(ATOMS):
        for role in ROLES:
            numbers = model.get_parameter(f"layers.{layer}.attend.{role}.mine.mixture")
            numbers.copy_(torch.eye(ATOMS)[layer])
            atoms = model.get_parameter(f"layers.{layer}.attend.{role}.weight")
            assert torch.equal(mixture(model, layer, role), atoms[layer].T)
