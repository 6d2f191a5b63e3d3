"""MonoDETR's decoder. Zhang et al. 2022, arXiv 2203.13310."""

from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from tests.zoo.published import build, macs, parameters, random, spec

pytestmark = pytest.mark.system("monodetr")

ORDER = ["depth_cross", "self", "visual_cross", "feed"]
SIZE = (2, 12, 40, 64)
VISUAL, DEPTH = (torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))


def without_branch() -> dict[str, Any]:
    return {"graph": spec("monodetr_decoder").tree["graph"][:-1],
            "outputs": {"classes": "classes", "boxes": "boxes", "dimensions": "dimensions"}}  # fmt: skip


def test_training_branch_is_absent_from_the_graph_code_and_output_of_inference() -> None:
    model = random(build("monodetr_decoder"))
    assert "depth_map" not in model.code
    assert not any("depth_map" in str(node.target) for node in model.graph.nodes)
    assert list(model(VISUAL, DEPTH)) == ["classes", "boxes", "dimensions"]
    model.train()
    assert "depth_map" in model.code
    assert model(VISUAL, DEPTH)["depth_map"].shape == (2, 12 * 40, 81)
    model.eval()
    assert "depth_map" not in model.code


def test_training_branch_trains_its_weights() -> None:
    model = random(build("monodetr_decoder")).train()
    model(VISUAL, DEPTH)["depth_map"].square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"depth_map.linear.weight", "depth_map.linear.bias"}


def test_training_branch_costs_nothing_at_inference() -> None:
    whole, bare = (build("monodetr_decoder", device="meta", **changes) for changes in ({}, without_branch()))
    assert macs(whole, VISUAL, DEPTH) == macs(bare, VISUAL, DEPTH)
    assert macs(whole.train(), VISUAL, DEPTH) == macs(bare, VISUAL, DEPTH) + 2 * 12 * 40 * 64 * 81
    assert parameters(whole) == parameters(bare) + 64 * 81 + 81


def test_training_branch_is_no_part_of_the_structure() -> None:
    whole, bare = spec("monodetr_decoder"), spec("monodetr_decoder", **without_branch())
    assert whole.structure == bare.structure
    assert whole.full != bare.full


@pytest.mark.parametrize("order", [["self", "depth_cross", "visual_cross", "feed"], ["self", "visual_cross", "feed"]])
def test_order_of_sources_is_one_edit_and_shows_in_the_graph(order: list[str]) -> None:
    assert names(spec("monodetr_decoder")) == ORDER
    edited = spec("monodetr_decoder", blocks__decoder_layer=order)
    assert names(edited) == order
    assert edited.structure != spec("monodetr_decoder").structure


def names(of: Any) -> list[str]:
    """The nodes of every decoder layer."""
    decoded = of.graph.node("decoded")
    layers = [[node.name for node in decoded.bodies[f"rounds.{number}"].nodes] for number in range(3)]
    assert layers == [layers[0]] * 3
    return layers[0]


@pytest.mark.parametrize("order", [ORDER, ["visual_cross", "self", "depth_cross", "feed"]])
@torch.no_grad()
def test_sources_are_read_in_their_order(order: list[str]) -> None:
    """Which stream's keys each attention of the traced layer makes: the depth features', its own, the image's."""
    model = random(build("monodetr_decoder", blocks__decoder_layer=order))
    read: list[tuple[str, Tensor]] = []
    for name in order[:-1]:
        keys = model.get_submodule(f"decoded.0.{name}.body.{'qkv' if name == 'self' else 'kv'}")
        keys.register_forward_pre_hook(lambda module, given, name=name: read.append((name, given[0])))
    model(VISUAL, DEPTH)
    assert [name for name, _ in read] == order[:-1]
    for name, stream in read:
        if name != "self":
            assert torch.equal(stream, (DEPTH if name == "depth_cross" else VISUAL).flatten(1, 2))


@torch.no_grad()
def test_every_layer_is_supervised() -> None:
    """Heads read the outputs of all layers, one after another along an axis of their own."""
    of = spec("monodetr_decoder")
    assert str(of.graph.types["classes"]) == "queries[round=3, query=50] × 4"
    model = random(build("monodetr_decoder"))
    layers: list[Tensor] = []
    for number in range(3):
        model.get_submodule(f"decoded.{number}").register_forward_hook(lambda module, given, out: layers.append(out))
    classes = model(VISUAL, DEPTH)["classes"]
    head = model.get_submodule("classes.linear")
    torch.testing.assert_close(classes, head(torch.cat(layers, dim=1)), atol=1e-6, rtol=0)


def test_inference_cannot_read_the_training_branch() -> None:
    with pytest.raises(SpecError, match="'depth_map' exists only in training"):
        graph = [*spec("monodetr_decoder").tree["graph"], {"name": "late", "from": "depth_map", "kind": "layer_norm"}]
        spec("monodetr_decoder", graph=graph, outputs="late")
