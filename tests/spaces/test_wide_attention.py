"""Wide or deep, with as many heads. Brown et al. 2022, arXiv 2210.00640."""

import time

import pytest
import torch

from archspec.spec import Spec
from compiler.model import compile
from search.cost.price import price
from spaces.space import load
from tests.models import nodes

pytestmark = pytest.mark.system("wide_attention")

DEEP, WIDE = 6, 1


def members(kind: str) -> dict[int, Spec]:
    """The members of a kind of attention by their layers."""
    space = load("wide_attention").freeze({"blocks.mixer": kind})
    return {dict(one.values)["dims.layers"]: one.spec for one in space.members()}


def heads(spec: Spec, kind: str) -> list[int]:
    return [node.kind.heads for node in nodes(spec.graph) if node.kind.name_ == kind]  # type: ignore[attr-defined]


KINDS = ["attention", "sliding_window_attention", "block_sparse_attention", "linear_attention", "nystrom_attention"]


@pytest.mark.parametrize("kind", KINDS)
def test_all_divisor_pairs_are_there_and_fewer_layers_have_fewer_parameters(kind: str) -> None:
    found = members(kind)
    assert {layers: heads(spec, kind) for layers, spec in found.items()} == {
        layers: [48 // layers] * layers for layers in (1, 2, 3, 4, 6, 8)
    }
    sizes = [price(found[layers]).parameters for layers in sorted(found)]
    assert sizes == sorted(sizes) and len(set(sizes)) == len(sizes)
    layer = 2 * 4 * 256**2 + 4 * 256  # the perceptron and two norms
    if kind == "attention":  # whose heads have no parameters beside their matrices
        assert sizes[1] - sizes[0] == layer


def test_the_wide_twin_is_half_the_size() -> None:
    """As published for bytes of texts, where one layer of attention takes the place of six."""
    found = members("attention")
    assert price(found[WIDE]).parameters / price(found[DEEP]).parameters == pytest.approx(0.5, abs=0.1)


@torch.no_grad()
def test_the_wide_twin_is_sooner_done() -> None:
    models = {layers: compile(members("attention")[layers]).eval() for layers in (WIDE, DEEP)}
    tokens = torch.zeros(1, 256, dtype=torch.long)
    seconds: dict[int, list[float]] = {WIDE: [], DEEP: []}
    for _ in range(7):
        for layers, model in models.items():
            start = time.process_time()
            model(tokens)
            seconds[layers].append(time.process_time() - start)
    assert min(seconds[WIDE]) < min(seconds[DEEP])
