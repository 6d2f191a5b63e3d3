"""A spec as a tree of lines: what stands where, the type that it gives, and how many parameters it has.

Rounds and neighbours that are alike are folded into one line. Parameter counts come from a compiled model, which knows
them exactly; without them the tree shows none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from archspec.graph import Graph, Node, Ref, fields
from archspec.moving import again, is_course
from archspec.source import as_tree
from archspec.spec import Spec


@dataclass(frozen=True)
class Line:
    """One node of the tree.

    Attributes:
        depth: 0 for the nodes of the spec's own graph.
        path: where it stands, in the words that parameter names use.
        label: its name, or the slot that it fills.
        says: its fields that are not the defaults.
        output: the type of its main output.
        parameters: of it and all that is inside, of one of those that are folded; None where nobody counted.
        times: how many alike were folded into it.
    """

    depth: int
    path: str
    label: str
    kind: str
    says: str
    output: str
    parameters: int | None
    times: int = 1


def lines(spec: Spec, sizes: Mapping[str, int] | None = None) -> list[Line]:
    """The tree of a spec.

    Args:
        sizes: numbers of values by parameter name, as of a compiled model; a shared weight once.
    """
    return list(_graph(spec.graph, "", 0, _Counts(sizes)))


def text(spec: Spec, sizes: Mapping[str, int] | None = None) -> str:
    """The tree as text, in columns."""
    found = lines(spec, sizes)
    rows = []
    for number, line in enumerate(found):
        name = line.label if line.kind == line.label else f"{line.label}  {line.kind}"
        times = f"  × {line.times}" if line.times > 1 else ""
        says = f"  {line.says}" if line.says else ""
        count = f"{line.parameters:,}" if line.parameters else ""
        rows.append((_branches(found, number) + name + times + says, line.output, count))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    head = f"{spec.name}  {spec.interface.name_}"
    inputs = ", ".join(f"{name}: {stream}" for name, stream in spec.interface.streams().items())
    body = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
    total = [f"{sum(sizes.values()):,} parameters"] if sizes is not None else []
    return "\n".join([f"{head}  {inputs}", *body, *total])


def count(graph: Graph) -> int:
    """Nodes of a graph and of everything inside."""
    known: dict[int, int] = {}

    def nodes(graph: Graph) -> int:
        if id(graph) not in known:
            inside = (sum(nodes(body) for body in node.bodies.values()) for node in graph.nodes)
            plans = sum(plan is not None for node in graph.nodes for _, plan in node.matrices.values())
            known[id(graph)] = len(graph.nodes) + sum(inside) + plans
        return known[id(graph)]

    return nodes(graph)


def layers(graph: Graph) -> int:
    """Layers of a graph and of everything inside: two residuals that hold no others are a layer."""
    found = _residuals(graph)
    return -(-found // 2)


def _residuals(graph: Graph) -> int:
    total = 0
    for node in graph.nodes:
        inside = sum(_residuals(body) for body in node.bodies.values())
        total += max(inside, int(node.kind.name_ == "residual"))
    return total


def digest(node: Node) -> str:
    """A content hash of one node, whatever it and its inputs are called."""
    inputs = {f"x{number}": stream for number, stream in enumerate(node.types)}
    around = {name: Ref("x0") for name in node.outer} if inputs else {}
    alone = replace(node, name="node", inputs=tuple(map(Ref, inputs)), outer=around, shares=None)
    return Graph(inputs, len(inputs), [alone], {"node": Ref("node")}, {"node": node.output}).digest("full")


def says(node: Node) -> str:
    """The fields of a node that are not the defaults, in one line."""
    defaults = type(node.kind).model_fields
    given = {name: value for name, value in fields(node.kind).items() if _differs(value, defaults[name].default)}
    given |= numbers(node) | node.streams
    parts = [name if value is True else f"{name} {shown(value)}" for name, value in given.items()]
    if node.shares:
        parts.append(f"weights of {node.shares}")
    if node.tied:
        parts.append(f"table of {node.tied}")
    if node.when != "always":
        parts.append(f"only in {node.when}")
    return ", ".join(parts)


def numbers(node: Node) -> dict[str, Any]:
    """What slots hold beside a node, as ``experts: {count: 8, body: …}``."""
    found: dict[str, Any] = {}
    for name in node.kind.slots:
        inside = getattr(node.kind, name)
        if isinstance(inside, dict) and "kind" not in inside and "body" in inside:
            found |= {f"{name} {key}": value for key, value in inside.items() if isinstance(value, (int, float, str))}
            found.pop(f"{name} body", None)
    return found


def groups(node: Node) -> Iterator[tuple[str, Graph, int]]:
    """The bodies of a node by slot; consecutive ones of a list that are alike once, with how many they are."""
    order = {
        field: number for number, field in enumerate(dict.fromkeys(slot.partition(".")[0] for slot in node.bodies))
    }
    bodies = [(slot, body, slot.partition(".")[0], body.digest("full")) for slot, body in node.bodies.items()]
    bodies.sort(key=lambda item: order[item[2]])
    for (field, _), alike in groupby(bodies, key=lambda item: item[2:]):
        same = list(alike)
        first, last = same[0][0], same[-1][0]
        label = first.partition(".")[2] or field
        if len(same) > 1:
            label = f"{label}–{last.partition('.')[2]}"
        yield (label if field == "rounds" or field == first else f"{field} {label}"), same[0][1], len(same)


def brief(body: Graph) -> str | None:
    """A body in a few words, such as ``rope theta 500000``; None if it deserves a box of its own in a drawing."""
    node = body.single
    if node is None or node.bodies or set(node.kind.roles) & {"mixer", "channel"} or node.kind.roles[0] == "body":
        return None
    return f"{node.kind.name_} {says(node)}".strip()


def runs(graph: Graph) -> list[list[Node]]:
    """The nodes of a graph; a chain of alike ones together."""
    readers: dict[str, int] = {}
    for node in graph.nodes:
        for ref in (*node.inputs, *node.outer.values()):
            readers[ref.node] = readers.get(ref.node, 0) + 1
    for ref in graph.outputs.values():
        readers[ref.node] = readers.get(ref.node, 0) + 1
    found: list[list[Node]] = []
    for node in graph.nodes:
        before = found[-1][-1] if found else None
        chained = before is not None and node.inputs == (Ref(before.name),) and readers.get(before.name) == 1
        if before is not None and chained and not node.outer and digest(before) == digest(node):
            found[-1].append(node)
        else:
            found.append([node])
    return found


class _Counts:
    """Parameters under each prefix of their names."""

    def __init__(self, sizes: Mapping[str, int] | None) -> None:
        self.known = sizes is not None
        self.under: dict[str, int] = {}
        for name, size in (sizes or {}).items():
            parts = name.split(".")
            for stop in range(1, len(parts)):
                prefix = ".".join(parts[:stop])
                self.under[prefix] = self.under.get(prefix, 0) + size

    def of(self, path: str) -> int | None:
        return self.under.get(path, 0) if self.known else None


def _graph(graph: Graph, path: str, depth: int, counts: _Counts) -> Iterator[Line]:
    for run in runs(graph):
        node = run[0]
        yield from _node(node, node.name, f"{path}.{node.name}" if path else node.name, depth, counts, len(run))


def _node(node: Node, label: str, path: str, depth: int, counts: _Counts, times: int = 1) -> Iterator[Line]:
    yield Line(depth, path, label, node.kind.name_, says(node), str(node.output), counts.of(path), times)
    for role, (_, plan) in node.matrices.items():
        if plan is not None:
            yield Line(
                depth + 1,
                f"{path}.{role}",
                role,
                plan.kind.name_,
                says(plan),
                str(plan.output),
                counts.of(f"{path}.{role}"),
            )
    for slot, body, alike in groups(node):
        place = f"{path}.{next(key for key, graph in node.bodies.items() if graph is body).removeprefix('rounds.')}"
        single = body.single
        if single is not None:
            yield from _node(single, slot, place, depth + 1, counts, alike)
        elif slot == "body" or (alike == len(node.bodies) and node.kind.name_ in ("repeat", "loop")):
            if alike > 1:
                yield Line(depth + 1, place, "each round", "", "", str(body.output), counts.of(place), alike)
                yield from _graph(body, place, depth + 2, counts)
            else:
                yield from _graph(body, place, depth + 1, counts)
        else:
            yield Line(depth + 1, place, slot, "", "", str(body.output), counts.of(place), alike)
            yield from _graph(body, place, depth + 2, counts)


def _differs(value: Any, default: Any) -> bool:
    """Whether a field says more than its default; a number that moves is a mapping here."""
    return value is not None and value != default and value not in ({}, [])


def shown(value: Any) -> str:
    """A value of a field as a spec would write it, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if is_course(as_tree(value)):
        return str(again(as_tree(value)))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return "none" if value is None else str(value)


def _branches(found: list[Line], number: int) -> str:
    """The lines of the tree before a label: whether each level goes on below."""
    depth = found[number].depth
    last = [True] * (depth + 1)
    least = depth + 1
    for line in found[number + 1 :]:
        if line.depth < least:
            least = line.depth
            last[least] = False
        if least == 0:
            break
    stems = ["   " if last[level] else "│  " for level in range(depth)]
    return "".join(stems) + ("└─ " if last[depth] else "├─ ")
