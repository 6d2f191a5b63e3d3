"""A spec's graph as a picture: a `networkx` graph, Mermaid text, or an SVG drawing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import networkx as nx

from archspec.graph import Graph, Node
from archspec.show import groups, runs, says
from archspec.spec import Spec
from archspec.svg import picture


def to_networkx(graph: Graph) -> nx.MultiDiGraph:
    """The nodes and edges of a graph, without what is inside the nodes.

    Nodes are called as in the spec and have ``kind`` (``"input"`` and ``"output"`` for what the graph takes and gives),
    ``type`` and, for those of the spec, ``node``; an output is called ``"→ name"``. Edges have ``port``, ``span`` and
    ``slot``: the name under which a slot reads the stream, empty for an ordinary input.
    """
    result = nx.MultiDiGraph()
    for name, stream in graph.inputs.items():
        result.add_node(name, kind="input", type=stream)
    for node in graph.nodes:
        result.add_node(node.name, kind=node.kind.name_, type=node.output, node=node)
    for node in graph.nodes:
        for ref in node.inputs:
            result.add_edge(ref.node, node.name, port=ref.port, span=ref.span, slot="")
        for name, ref in node.outer.items():
            result.add_edge(ref.node, node.name, port=ref.port, span=ref.span, slot=name)
    for name, ref in graph.outputs.items():
        result.add_node(f"→ {name}", kind="output", type=graph.types[name])
        result.add_edge(ref.node, f"→ {name}", port=ref.port, span=ref.span, slot="")
    return result


def svg(spec: Spec) -> str:
    """The graph of a spec as an SVG drawing; bodies are drawn inside their nodes, alike rounds once."""
    return picture(spec)


def mermaid(spec: Spec) -> str:
    """The graph of a spec as a Mermaid flowchart; bodies are subgraphs, alike rounds stand once."""
    lines = ["flowchart TD"]
    for name, stream in spec.graph.inputs.items():
        lines.append(f"  in_{name}([{_quoted(name, str(stream))}])")
    lines += _nodes(spec.graph, "", 1)
    for name, stream in spec.graph.types.items():
        lines.append(f"  out_{name}([{_quoted(name, str(stream))}])")
    lines += [f"  {line}" for line in _edges(spec.graph, "")]
    return "\n".join(lines) + "\n"


def _nodes(graph: Graph, prefix: str, depth: int) -> Iterator[str]:
    pad = "  " * depth
    for run in runs(graph):
        node, times = run[0], len(run)
        inside = [(slot, body, alike) for slot, body, alike in groups(node) if not _is_leaf(body)]
        label = _label(node, times)
        here = f"{prefix}{node.name}"
        if not inside:
            yield f"{pad}{here}[{label}]"
            continue
        yield f"{pad}subgraph {here}[{label}]"
        for number, (slot, body, alike) in enumerate(inside):
            below = f"{here}_{number}_"
            caption = f"{slot} × {alike}" if alike > 1 else slot
            yield f"{pad}  subgraph {below}body[{_quoted(caption)}]"
            yield from _nodes(body, below, depth + 2)
            yield from (f"{pad}    {line}" for line in _edges(body, below, inner=True))
            yield f"{pad}  end"
        yield f"{pad}end"


def _edges(graph: Graph, prefix: str, inner: bool = False) -> Iterator[str]:
    shown = {node.name: run[0].name for run in runs(graph) for node in run}
    for node in graph.nodes:
        for name, ref in [("", ref) for ref in node.inputs] + list(node.outer.items()):
            target = f"{prefix}{shown[node.name]}"
            if ref.node not in shown:
                if not inner:
                    yield f"in_{ref.node} --> {target}"
            elif shown[ref.node] != shown[node.name]:
                text = name or ".".join(part for part in (ref.port, ref.span) if part)
                arrow = f'-- "{text}" -->' if text else "-->"
                yield f"{prefix}{shown[ref.node]} {arrow} {target}"
    if not inner:
        for name, ref in graph.outputs.items():
            yield f"{prefix}{shown.get(ref.node, f'in_{ref.node}')} --> out_{name}"


def _is_leaf(body: Graph) -> bool:
    """Whether a body is one node with nothing inside, which is told in its parent's label."""
    return body.single is not None and not body.single.bodies and "body" not in body.single.kind.roles[:1]


def _label(node: Node, times: int) -> str:
    head = node.name if node.name == node.kind.name_ else f"{node.name}: {node.kind.name_}"
    lines = [f"{head} × {times}" if times > 1 else head]
    if told := says(node):
        lines.append(told)
    for slot, body, _ in groups(node):
        single: Any = body.single
        if _is_leaf(body):
            lines.append(f"{slot}: {single.kind.name_} {says(single)}".strip())
    return _quoted(*lines)


def _quoted(*lines: str) -> str:
    return '"' + "<br/>".join(line.replace('"', "#quot;").replace("<", "#lt;").replace("[", "#91;") for line in lines) + '"'
