"""The canonical form: one way to write a graph, whatever sugar it was written in.

Defaults are filled, blocks and expressions resolved, rounds unrolled, every edge named. It is a spec again, with the
same hashes. A body that stands in several places is written once, under ``blocks``.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

try:
    from yaml import CSafeDumper as SafeDumper  # writes the same, five times as fast
except ImportError:
    from yaml import SafeDumper  # type: ignore[assignment]

from archspec.graph import Graph, Node, settled
from archspec.kind import Kind


def canonical(name: str, interface: Kind, graph: Graph, init: dict[str, Any]) -> dict[str, Any]:
    """The canonical form of a spec as plain data, ready to be printed as YAML."""
    writer = _Writer(graph)
    nodes = writer.nodes(graph)
    head: dict[str, Any] = {
        "archspec": 1,
        "name": name,
        "interface": {"kind": interface.name_, **interface.model_dump(by_alias=True, exclude_none=True)},
        "init": init,
    }
    if writer.blocks:
        head["blocks"] = writer.blocks
    return {**head, "graph": nodes, "outputs": {key: str(ref) for key, ref in graph.outputs.items()}}


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self.blocks: dict[str, Any] = {}
        self.seen: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.count(graph)

    def count(self, graph: Graph) -> None:
        """How often each body stands in the file; one that stands often is looked into once."""
        for node in graph.nodes:
            for body in node.bodies.values():
                key = body.digest("full") + body.digest("layout")
                self.counts[key] = self.counts.get(key, 0) + 1
                if self.counts[key] == 1:
                    self.count(body)

    def nodes(self, graph: Graph) -> list[Any]:
        return [self.node(node) for node in graph.nodes]

    def node(self, node: Node) -> dict[str, Any]:
        kind = node.kind
        result: dict[str, Any] = {"name": node.name, "kind": kind.name_}
        if node.inputs:
            texts = [str(ref) for ref in node.inputs]
            result["from"] = texts[0] if len(texts) == 1 else texts
        if node.when != "always":
            result["when"] = node.when
        if node.shares and not node.described:
            return {"name": node.name, "weights": node.shares, "from": result["from"]}
        if node.shares:
            result["weights"] = {"of": node.shares}
        result |= settled(node)
        result |= node.streams
        result |= kind.written(node, self)
        result = {key: value for key, value in result.items() if value is not None}
        roles = {role: self.plan(plan) for role, (_, plan) in node.matrices.items() if plan is not None}
        if roles:
            result["linears"] = roles
        return result

    def plan(self, node: Node) -> dict[str, Any]:
        return {"kind": node.kind.name_, **settled(node)}

    def slot(self, graph: Graph, name: str) -> Any:
        """A body as it stands in a slot: a node if it is one, else a block that stands once."""
        single = graph.single
        if single is not None and len(single.inputs) != min(graph.given, single.kind.arity[1]):
            single = None  # written alone it would read more
        if (
            single is not None
            and self.counts.get(graph.digest("full") + graph.digest("layout"), 0) <= 1
            or (single is not None and not single.bodies)
        ):
            node = self.node(single)
            node.pop("from", None)
            node.pop("name", None)
            return node["kind"] if len(node) == 1 else node
        key = graph.digest("full") + graph.digest("layout")
        if key not in self.seen:
            label = name
            number = 1
            while label in self.blocks or label in self.seen.values():
                number += 1
                label = f"{name}_{number}"
            self.seen[key] = label
            self.blocks[label] = None  # keeps its place before what it contains is written
            self.blocks[label] = {
                "inputs": list(graph.inputs)[: graph.given],
                "graph": self.nodes(graph),
                "outputs": {out: str(ref) for out, ref in graph.outputs.items()},
            }
        return self.seen[key]


def text(canonical: Any, *, dense: bool = False) -> str:
    """A canonical form, or a part of one, as YAML that `archspec.source` reads back as it was.

    Args:
        dense: writes lists and mappings that hold no others on one line.
    """
    style = None if dense else False
    return yaml.dump(
        canonical, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=style
    )


class _Dumper(SafeDumper):
    """Quotes words that YAML 1.2 reads as numbers, and writes equal parts in full."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_multi_representer(dict, SafeDumper.represent_dict)
_Dumper.add_multi_representer(list, SafeDumper.represent_list)
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|0[ox].*$"),
    list("-+.0123456789"),
)
