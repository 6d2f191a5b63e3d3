"""Mixture of transformers. Liang et al. 2024, arXiv 2411.04996."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.zoo.published import build, macs, parameters, random

pytestmark = pytest.mark.system("mixture_of_transformers")

LENGTH = 40
TOKENS = torch.arange(2 * LENGTH).reshape(2, LENGTH) * 7 % 256
MODALITY = torch.arange(2 * LENGTH).reshape(2, LENGTH) * 5 % 13 % 3
OUTSIDE = ("token_embedding.", "lm_head.")


def tied() -> Any:
    """The same model with one copy of every weight."""
    return build("mixture_of_transformers", defaults={})


def copies(model: nn.Module, name: str) -> list[Tensor]:
    """The copies of a weight of the tied model, each laid out as it."""
    state = model.state_dict()
    parent, _, last = name.rpartition(".")
    if f"{parent}.copies.0.{last}" in state:  # a norm
        return [state[f"{parent}.copies.{number}.{last}"] for number in range(3)]
    return list(state[f"{parent}.linear.{last}"].transpose(1, 2))


def split(name: str, weight: Tensor) -> dict[str, Tensor]:
    """A matrix of the tied model, which joins those of one input, as the matrices of the untied one."""
    joined = {"qkv": ("query", "key", "value"), "gate_up": ("gate", "up")}
    module = name.split(".")[-2]
    parts = joined.get(module, (module,))
    return {name.replace(module, part): piece for part, piece in zip(parts, weight.chunk(len(parts)), strict=True)}


@torch.no_grad()
def test_equals_the_tied_model_when_the_copies_are_equal() -> None:
    untied, plain = build("mixture_of_transformers"), random(tied())
    for name, weight in plain.named_parameters():
        if name.startswith(OUTSIDE):
            untied.get_parameter(name).copy_(weight)
        else:
            for part, piece in split(name, weight).items():
                for copy in copies(untied, part):
                    copy.copy_(piece)
    expected = plain(TOKENS, MODALITY)
    assert expected.std() > 0.1
    for modality in (MODALITY, MODALITY.flip(1), torch.zeros_like(MODALITY)):
        torch.testing.assert_close(untied(TOKENS, modality), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [2, 3])
def test_every_weight_outside_embedding_and_head_has_a_copy_for_each_modality(count: int) -> None:
    outside = sum(p.numel() for name, p in tied().named_parameters() if name.startswith(OUTSIDE))
    model = build("mixture_of_transformers", interface__labels__modality=count)
    assert parameters(model) - outside == count * (parameters(tied()) - outside)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_token_costs_as_much_as_in_the_tied_model(count: int) -> None:
    model = build("mixture_of_transformers", device="meta", interface__labels__modality=count)
    plain = build("mixture_of_transformers", device="meta", defaults={})
    assert macs(model, TOKENS, MODALITY) == macs(plain, TOKENS, MODALITY)


@torch.no_grad()
def test_a_token_uses_its_own_modality_only() -> None:
    """Other weights for modality 2 change nothing before its first token, and do after it."""
    model = random(build("mixture_of_transformers"))
    first = 17
    modality = torch.zeros(1, LENGTH, dtype=torch.int64)
    modality[:, first::2] = 2
    before = model(TOKENS[:1], modality)
    for name, parameter in model.named_parameters():
        if not name.startswith(OUTSIDE):
            stacked = ".copies." not in name
            if stacked:
                parameter[2] += 0.1
            elif ".copies.2." in name:
                parameter += 0.1
    after = model(TOKENS[:1], modality)
    torch.testing.assert_close(after[:, :first], before[:, :first], atol=1e-6, rtol=0)
    assert ((after - before)[:, first:].abs().amax(-1) > 1e-3).all()  # attention hands it on to all later tokens


@torch.no_grad()
def test_modalities_change_projections_alone() -> None:
    """Attention sees one sequence: queries, keys and values are a token's own modality's, the mask is causality's."""
    model = random(build("mixture_of_transformers"))
    seen: list[tuple[Tensor, ...]] = []
    model.get_submodule("layers.0.mixer.body.attend").register_forward_pre_hook(
        lambda module, given: seen.append(given)
    )
    other = (MODALITY + 1) % 3
    model(TOKENS, MODALITY), model(TOKENS, other)
    (q, k, v, *masks), (q2, k2, v2, *masks2) = seen
    assert masks == masks2 == [None] * len(masks)
    for one, two in ((q, q2), (k, k2), (v, v2)):
        assert ((one - two).abs().amax((-1, -2)) > 1e-3).all()
    mixed = torch.where((torch.arange(LENGTH) % 2 == 0)[None], MODALITY, other)
    model(TOKENS, mixed)
    for third, (one, two) in zip(seen[2][:3], ((q, q2), (k, k2), (v, v2)), strict=True):
        torch.testing.assert_close(third[:, ::2], one[:, ::2], atol=1e-6, rtol=0)
        torch.testing.assert_close(third[:, 1::2], two[:, 1::2], atol=1e-6, rtol=0)


@torch.no_grad()
def test_attention_is_over_all_modalities() -> None:
    model = random(build("mixture_of_transformers"))
    modality = (torch.arange(LENGTH) >= 20).long()[None]
    changed = TOKENS[:1].clone()
    changed[:, 5] = (changed[:, 5] + 1) % 256
    difference = (model(changed, modality) - model(TOKENS[:1], modality)).abs().amax(-1)[0]
    assert (difference[:5] < 1e-6).all()
    assert (difference[20:] > 1e-4).all()
