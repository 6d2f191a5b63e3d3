"""The tree of a spec, and its drawings."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import networkx as nx
import pytest

from archspec import draw
from archspec.graph import Graph
from archspec.layered import layout
from archspec.show import count, layers, lines, text
from archspec.spec import load, loads

ROOT = Path(__file__).parents[2]
TINY = ROOT / "examples" / "tiny.yaml"
EXAMPLES = sorted([TINY, *(ROOT / "examples" / "zoo").glob("*.yaml")])


def test_alike_rounds_stand_once() -> None:
    spec = load(TINY)
    found = lines(spec)
    assert [(line.label, line.times) for line in found if line.times > 1] == [("each round", 4)]
    assert [line.label for line in found if line.depth == 0] == [node.name for node in spec.graph.nodes]
    assert all(line.parameters is None for line in found)


def test_unlike_rounds_stand_apart() -> None:
    spec = loads(TINY.read_text().replace("kv_heads: 2", "kv_heads: {each: [2, 2, 1, 1]}"))
    assert [(line.label, line.times) for line in lines(spec) if line.depth == 1] == [("0–1", 2), ("2–3", 2)]


def test_a_chain_of_alike_nodes_is_folded() -> None:
    spec = loads(TINY.read_text().replace("  - rms_norm", "  - layer\n  - layer\n  - layer\n  - rms_norm"))
    assert [(line.kind, line.times) for line in lines(spec) if line.depth == 0][2] == ("sequence", 3)


def test_parameters_are_added_up_by_place() -> None:
    sizes = {"layers.0.mixer.norm.weight": 3, "layers.1.mixer.norm.weight": 3, "lm_head.weight": 5}
    found = {line.path: line.parameters for line in lines(load(TINY), sizes)}
    assert (found["layers"], found["layers.0"], found["layers.0.mixer.norm"], found["lm_head"]) == (6, 3, 3, 5)
    assert text(load(TINY), sizes).endswith("\n11 parameters")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_tree_accounts_for_all_parameters(path: Path) -> None:
    """The top level adds up to the compiled model."""
    import compiler

    spec = load(path)
    model = compiler.compile(spec, device="meta")
    sizes = {name: value.numel() for name, value in model.named_parameters()}
    top = [line for line in lines(spec, sizes) if line.depth == 0]
    assert sum((line.parameters or 0) * line.times for line in top) == sum(sizes.values())


def test_layers_and_nodes() -> None:
    assert layers(load(TINY).graph) == 4
    assert {
        name: layers(load(ROOT / "examples" / "zoo" / f"{name}.yaml").graph)
        for name in ("vit_base", "swin_t", "language/deepseek_v3")
    } == {
        "vit_base": 12,
        "swin_t": 12,
        "language/deepseek_v3": 61,
    }
    graph = load(TINY).graph
    assert count(graph) == len(graph.nodes) + 4 * count(graph.node("layers").bodies["rounds.0"])


def test_networkx_graph_has_every_edge() -> None:
    spec = load(ROOT / "examples" / "zoo" / "crossvit_15.yaml")
    graph = draw.to_networkx(spec.graph)
    assert nx.is_directed_acyclic_graph(graph)
    assert graph.nodes["small"]["kind"] == "sequence"
    assert graph.nodes["image"]["kind"] == "input"
    assert {(a, b) for a, b, _ in graph.edges} >= {("small", "pair"), ("large", "pair"), ("pair", "small_vote")}
    assert graph.edges["pair", "small_vote", 0]["port"] == "small"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_svg_is_well_formed_and_boxes_stand_inside_the_picture(path: Path) -> None:
    spec = load(path)
    root = ElementTree.fromstring(draw.svg(spec))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = [node.attrib for node in root.iter("{http://www.w3.org/2000/svg}rect") if "x" in node.attrib]
    assert len(boxes) >= len(spec.graph.nodes)
    for box in boxes:
        x, y, w, h = (float(box[key]) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_mermaid_names_are_plain_and_subgraphs_closed(path: Path) -> None:
    found = draw.mermaid(load(path)).splitlines()
    assert found[0] == "flowchart TD"
    opened = sum(line.lstrip().startswith("subgraph ") for line in found)
    assert opened == sum(line.strip() == "end" for line in found)
    for line in found[1:]:
        name = line.strip().removeprefix("subgraph ")
        assert re.match(r"(\w+(\[|\(\[| -->| -- )|end$)", name), line


def test_layered_boxes_do_not_overlap_and_edges_run_down() -> None:
    graph: nx.DiGraph = nx.gn_graph(30, seed=1).reverse()
    graph.add_edges_from([(0, 29), (0, 17), (3, 25)] if nx.is_directed_acyclic_graph(graph) else [])
    graph = nx.DiGraph((a, b) for a, b in graph.edges if a < b)
    sizes = {node: (40.0 + 7 * (node % 5), 20.0 + 3 * (node % 4)) for node in graph}
    found = layout(graph, sizes)
    boxes = [(*found.boxes[node], *sizes[node]) for node in graph]
    for number, (x, y, w, h) in enumerate(boxes):
        assert x >= -1e-6
        assert x + w <= found.width + 1e-6
        for x_, y_, w_, h_ in boxes[:number]:
            assert x + w <= x_ or x_ + w_ <= x or y + h <= y_ or y_ + h_ <= y
    for points in found.edges.values():
        assert all(a[1] <= b[1] for a, b in zip(points, points[1:], strict=False))


def test_an_empty_tree_of_inputs_is_drawn() -> None:
    spec = loads(
        "archspec: 1\ninterface: {kind: backbone, inputs: {x: {axes: {token: 4}, width: 8}}}\ngraph: [identity]\n"
    )
    assert isinstance(spec.graph, Graph)
    assert "identity" in draw.svg(spec)
