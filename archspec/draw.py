"""A spec's graph as a picture: a `networkx` graph, Mermaid text, or an SVG drawing."""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx

from archspec.graph import Graph, Node
from archspec.show import brief, groups, runs, says
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
        inside = [(slot, body, alike) for slot, body, alike in groups(node) if brief(body) is None]
        alone = inside[0] if len(inside) == 1 else None
        here = f"{prefix}{node.name}"
        label = _label(node, times if times > 1 or alone is None else alone[2])
        if not inside:
            yield f"{pad}{here}[{label}]"
            continue
        yield f"{pad}subgraph {here}[{label}]"
        if alone is not None:
            yield from _body(alone[1], f"{here}_", depth + 1)
        else:
            for number, (slot, body, alike) in enumerate(inside):
                caption = _quoted(f"{slot} × {alike}" if alike > 1 else slot)
                yield f"{pad}  subgraph {here}_{number}[{caption}]"
                yield from _body(body, f"{here}_{number}_", depth + 2)
                yield f"{pad}  end"
        yield f"{pad}end"


def _body(body: Graph, prefix: str, depth: int) -> Iterator[str]:
    yield from _nodes(body, prefix, depth)
    yield from ("  " * depth + line for line in _edges(body, prefix, inner=True))


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


def _label(node: Node, times: int) -> str:
    head = node.name if node.name == node.kind.name_ else f"{node.name}: {node.kind.name_}"
    lines = [f"{head} × {times}" if times > 1 else head]
    if told := says(node):
        lines.append(told)
    for slot, body, _ in groups(node):
        if (words := brief(body)) is not None:
            lines.append(f"{slot}: {words}")
    return _quoted(*lines)


def _quoted(*lines: str) -> str:
    return (
        '"'
        + "<br/>".join(line.replace('"', "#quot;").replace("<", "#lt;").replace("[", "#91;") for line in lines)
        + '"'
    )
