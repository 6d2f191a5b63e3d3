"""The names of a graph's nodes, and an order in which they can be computed."""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from typing import Any

from archspec.blocks import Blocks
from archspec.kind import lookup
from archspec.place import Broken
from archspec.scope import Frame
from archspec.source import Map, Seq, words


class Ordering(Blocks):
    """Names nodes and sorts them by what they read.

    Attributes:
        reads: names that each block may read of the graph around it.
    """

    def __init__(self, blocks: Map, layers: int) -> None:
        super().__init__(blocks, layers)
        self.reads: dict[str, set[str]] = {}

    def node_names(self, raws: list[Map], frame: Frame) -> list[str]:
        """The names of nodes: as written, else the kind's or block's, numbered when they repeat."""
        found: list[str] = []
        for raw in raws:
            given = raw.get("name")
            name = given if given is not None else self.derived(raw)
            if given is not None:
                if not isinstance(name, str) or not name.isidentifier():
                    self.problem(
                        raw, "name", f"{name!r} is no name", "letters, digits and _, not starting with a digit"
                    )
                    name = "node"
                elif given in found or given in frame.inputs:
                    self.problem(raw, "name", f"{given!r} is bound twice in this graph", "give each node its own name")
            found.append(name)
        return numbered(found)

    def derived(self, raw: Any) -> str:
        """The name of a node that states none."""
        word = raw.get("name", raw.get("kind", "node")) if isinstance(raw, Map) else raw
        return re.sub(r"\W", "_", word) if isinstance(word, str) else "sequence"

    def order(self, raws: list[Map], names: list[str], items: Seq) -> list[int]:
        """Positions in an order in which every node comes after those that it reads."""
        place = {name: number for number, name in enumerate(names)}
        needs: dict[int, set[int]] = {}
        forward = False
        for number, raw in enumerate(raws):
            heads = {text.split(".")[0] for key in ("from", "weights") for text in words(raw.get(key))}
            kind = lookup(raw.get("kind"))
            for slot in kind.slots if kind else ():
                heads |= self.read_inside(raw.get(slot)) - {names[number]}
            if isinstance(raw.get("kind"), str) and raw["kind"] in self.blocks:
                heads |= self.read_inside(raw["kind"]) - {names[number]}
            needs[number] = {place[head] for head in heads if head in place}
            if "from" not in raw and number and self.arity(raw)[1] > 0:
                needs[number].add(number - 1)
            forward = forward or any(other >= number for other in needs[number])
        if not forward:
            return list(range(len(raws)))
        sorter = TopologicalSorter(needs)
        try:
            sorter.prepare()
        except CycleError as error:
            ring = error.args[1]
            where = max(ring)
            self.problem(items, where, f"a cycle: {' reads '.join(names[n] for n in reversed(ring))}",
                         "a stream that comes back belongs into a loop, or into the interface's state")  # fmt: skip
            raise Broken from None
        ready: list[int] = []
        ordered: list[int] = []
        while sorter.is_active():  # of those that may come next, the one that stands first in the file
            for number in sorter.get_ready():
                heappush(ready, number)
            ordered.append(heappop(ready))
            sorter.done(ordered[-1])
        return ordered

    def read_inside(self, raw: Any) -> set[str]:
        """Words in a body that may name streams around it, those of the blocks that it uses among them."""
        if isinstance(raw, str) and raw in self.blocks:
            if raw not in self.reads:
                self.reads[raw] = set()  # a block that contains itself is refused elsewhere
                self.reads[raw] = self.read_inside(self.blocks[raw])
            return self.reads[raw]
        if isinstance(raw, str):
            head = raw.split(".")[0]
            return set() if self.is_node(head) else {head}
        if isinstance(raw, Seq):
            bound = {self.derived(item) for item in raw if isinstance(item, Map)}
            return set().union(*map(self.read_inside, raw)) - bound
        if isinstance(raw, Map):
            inside = set().union(*(self.read_inside(value) for key, value in raw.items() if key != "name"))
            graph = raw.get("graph")
            if isinstance(graph, Seq):  # what a block binds, it does not read
                inside -= {self.derived(item) for item in graph if isinstance(item, Map)} | {*words(raw.get("inputs"))}
            return inside
        return set()

    def arity(self, raw: Map) -> tuple[int, int]:
        kind = lookup(raw.get("kind"))
        return kind.arity if kind else (1, 99)


def numbered(names: list[str]) -> list[str]:
    """Names of which those that repeat are numbered."""
    taken: dict[str, int] = {}
    found = []
    for name in names:
        taken[name] = taken.get(name, 0) + 1
        while taken[name] > 1 and f"{name}_{taken[name]}" in taken:
            taken[name] += 1
        found.append(name if taken[name] == 1 else f"{name}_{taken[name]}")
    return found
