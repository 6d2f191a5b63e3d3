"""A layered drawing of a directed acyclic graph: where its boxes stand and how its edges run, from top to bottom.

Sugiyama, Tagawa and Toda 1981, "Methods for Visual Understanding of Hierarchical System Structures": layers by the
longest path, a stand-in in every layer that an edge crosses, order by barycentres, then positions near the neighbours'.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import networkx as nx

Point = tuple[float, float]
GAP_X, GAP_Y = 22.0, 26.0
SWEEPS = 12


class Layout(NamedTuple):
    """Upper left corners of the boxes, the points that each edge passes, and the size of the whole."""

    boxes: dict[Hashable, Point]
    edges: dict[tuple[Hashable, Hashable], list[Point]]
    width: float
    height: float


class _Bend(NamedTuple):
    """Where an edge crosses a layer."""

    source: Hashable
    target: Hashable
    layer: int


def layout(graph: nx.DiGraph, sizes: Mapping[Hashable, Point]) -> Layout:
    """Places boxes of the given sizes (width, height)."""
    layers = _layers(graph)
    rows: list[list[Hashable]] = [[] for _ in range(1 + max(layers.values(), default=0))]
    for node, number in layers.items():
        rows[number].append(node)
    links = nx.DiGraph()
    links.add_nodes_from(node for row in rows for node in row)
    chains = {}
    for source, target in graph.edges:
        bends = [_Bend(source, target, number) for number in range(layers[source] + 1, layers[target])]
        for bend in bends:
            rows[bend.layer].append(bend)
        chain: list[Hashable] = [source, *bends, target]
        chains[source, target] = chain
        nx.add_path(links, chain)
    _order(rows, links)
    widths = {node: 2.0 if isinstance(node, _Bend) else sizes[node][0] for row in rows for node in row}
    centres = _centres(rows, links, widths)
    left = min((centres[node] - widths[node] / 2 for node in centres), default=0.0)
    tops, heights, y = [], [], 0.0
    for row in rows:
        tops.append(y)
        heights.append(max((sizes[node][1] for node in row if not isinstance(node, _Bend)), default=0.0))
        y += heights[-1] + GAP_Y
    boxes: dict[Hashable, Point] = {}
    for number, row in enumerate(rows):
        for node in row:
            if not isinstance(node, _Bend):
                spare = heights[number] - sizes[node][1]
                boxes[node] = (centres[node] - widths[node] / 2 - left, tops[number] + spare / 2)
    edges = {}
    for (source, target), chain in chains.items():
        points = [(boxes[source][0] + widths[source] / 2, boxes[source][1] + sizes[source][1])]
        for bend in (one for one in chain if isinstance(one, _Bend)):
            x = centres[bend] - left
            points += [(x, tops[bend.layer]), (x, tops[bend.layer] + heights[bend.layer])]
        arrivals = sorted(graph.predecessors(target), key=lambda other: centres[chains[other, target][-2]])
        share = (arrivals.index(source) + 1) / (len(arrivals) + 1)
        spread = widths[target] * (0.5 if len(arrivals) > 1 else 0.0)
        points.append((boxes[target][0] + widths[target] / 2 + (share - 0.5) * spread, boxes[target][1]))
        edges[source, target] = points
    right = max((centres[node] + widths[node] / 2 for node in centres), default=0.0)
    return Layout(boxes, edges, right - left, max(0.0, y - GAP_Y))


def _layers(graph: nx.DiGraph) -> dict[Hashable, int]:
    """Each node below all that it reads; one that reads nothing just above its first reader."""
    found: dict[Hashable, int] = {}
    for node in nx.topological_sort(graph):
        found[node] = 1 + max((found[other] for other in graph.predecessors(node)), default=-1)
    for node in graph:
        if not graph.in_degree(node) and graph.out_degree(node):
            found[node] = min(found[other] for other in graph.successors(node)) - 1
    return found


def _order(rows: list[list[Hashable]], links: nx.DiGraph) -> None:
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            near = links.predecessors if down else links.successors
            place = {node: number for other in rows for number, node in enumerate(other)}
            keys = {}
            for number, node in enumerate(row):
                others = [place[other] for other in near(node)]
                keys[node] = sum(others) / len(others) if others else float(number)
            row.sort(key=lambda node: (keys[node], isinstance(node, _Bend)))


def _centres(rows: list[list[Hashable]], links: nx.DiGraph, widths: Mapping[Hashable, float]) -> dict[Hashable, float]:
    centres: dict[Hashable, float] = {}
    for row in rows:
        x = -(sum(widths[node] for node in row) + GAP_X * (len(row) - 1)) / 2
        for node in row:
            centres[node] = x + widths[node] / 2
            x += widths[node] + GAP_X
    for _ in range(SWEEPS):
        for row in (*rows, *reversed(rows)):
            wanted = []
            for node in row:
                total = weight = 0.0
                for other in (*links.predecessors(node), *links.successors(node)):
                    pull = 1.0 if isinstance(node, _Bend) is isinstance(other, _Bend) else 0.25
                    total, weight = total + pull * centres[other], weight + pull
                wanted.append(total / weight if weight else centres[node])
            for node, x in zip(row, _apart(wanted, [widths[node] for node in row]), strict=True):
                centres[node] = x
    return centres


def _apart(wanted: list[float], widths: list[float]) -> list[float]:
    """Centres near the wanted ones, in the same order, with a gap between any two."""
    steps = [(a + b) / 2 + GAP_X for a, b in zip(widths, widths[1:], strict=False)]
    rightward = wanted[:1]
    for x, step in zip(wanted[1:], steps, strict=True):
        rightward.append(max(x, rightward[-1] + step))
    leftward = wanted[-1:]
    for x, step in zip(reversed(wanted[:-1]), reversed(steps), strict=True):
        leftward.append(min(x, leftward[-1] - step))
    return [(a + b) / 2 for a, b in zip(rightward, reversed(leftward), strict=True)]
