"""Looped transformers as programmable computers. Giannou et al. 2023, arXiv 2301.13196."""

import pytest
import torch

from tests.zoo.published import build, parameters, random

pytestmark = pytest.mark.system("looped_programmable_computer")

NAME = "depth/looped_programmable_computer"
COLUMNS = torch.randn(2, 32, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_rounds_of_thirteen_layers_are_a_stack_with_tied_weights() -> None:
    model = random(build(NAME, dims__rounds=3))
    stack = build(NAME, dims__rounds=1, dims__layers=39)
    state = model.state_dict()
    tied = {name: state[_in_the_loop(name)] for name in stack.state_dict()}
    stack.load_state_dict(tied)
    assert torch.equal(model(COLUMNS), stack(COLUMNS))


def _in_the_loop(name: str) -> str:
    loop, first, repeat, layer, rest = name.split(".", 4)
    return ".".join([loop, first, repeat, str(int(layer) % 13), rest])


def test_parameters_do_not_depend_on_the_rounds() -> None:
    sizes = {parameters(build(NAME, device="meta", dims__rounds=rounds)) for rounds in (1, 4, 50)}
    assert sizes == {13 * (4 * 64**2 + 4 * 64 + 2 * 2 * 64**2 + 3 * 64)}


@torch.no_grad()
def test_weights_by_construction_copy_what_a_pointer_names() -> None:
    """A round in which one layer reads, for each column, the content of the column that its pointer names."""
    model = build(NAME, dims__rounds=1, dims__layers=1)
    for parameter in model.parameters():
        parameter.zero_()
    place, pointer, content = slice(0, 5), slice(5, 10), slice(10, 20)
    attention = model.computer.get_submodule("0.repeat.0.mixer.body")
    query, key, value = attention.qkv.weight.view(3, 64, 64)
    query[place, pointer] = 10 * torch.eye(5)  # the first head asks with the pointer …
    key[place, place] = torch.eye(5)  # … for the place that it names, in signs of its bits,
    value[0:10, content] = torch.eye(10)
    attention.out.weight[20:30, 0:10] = torch.eye(10)  # and writes what is there beside
    columns = torch.zeros(1, 32, 64)
    bits = (torch.arange(32)[:, None] >> torch.arange(5) & 1) * 2.0 - 1
    named = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    columns[0, :, place], columns[0, :, pointer] = bits, bits[named]
    columns[0, :, content] = torch.randn(32, 10, generator=torch.Generator().manual_seed(2))
    found = model(columns)
    torch.testing.assert_close(found[0, :, 20:30], columns[0, named, content])
    assert torch.equal(found[..., :20], columns[..., :20])
