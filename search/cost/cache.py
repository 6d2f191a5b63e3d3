"""What decoding keeps of a sequence, as causal mixers declare it (`archspec.kind.Kept`).

Keys and values of few heads, of a window or a chunk, a latent of each token, a recurrent state: whatever a block keeps
it says itself. Rounds keep their own each, unless they share one cache; a route keeps the tokens that enter, as many as
its selector counts on. What is computed once of another stream, as the keys and values of a memory, is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from archspec.graph import Graph, Node
from archspec.kind import Kept
from archspec.kinds.rounds import Rounds
from archspec.kinds.route import Route


def kept_of(graph: Graph) -> list[Kept]:
    """All that is kept of one sequence."""
    known: dict[tuple[int, float], list[Kept]] = {}

    def kept(graph: Graph, share: float = 1) -> list[Kept]:
        """``share``: of the tokens, how many there are in the graph."""
        if (id(graph), share) not in known:
            known[id(graph), share] = [one for node in graph.nodes for one in of(node, share)]
        return known[id(graph), share]

    def of(node: Node, share: float) -> list[Kept]:
        memory = node.outer_types[node.streams["memory"]] if "memory" in node.streams else None
        own = node.types and node.types[0].causal and (memory is None or memory.causal)
        mine = [
            one._replace(numbers=round(one.numbers * share)) if memory is None and one.per == "token" else one
            for one in (node.kind.kept(node) if own else ())
        ]
        if isinstance(node.kind, Route):
            share *= getattr(node.bodies["take"].nodes[0].kind, "capacity", 1)
        if isinstance(node.kind, Rounds) and node.kind.cache == "shared":
            bodies = node.kind.bodies(node)[:1]
        else:
            bodies = list(node.bodies.values())
        return [*mine, *(one for body in bodies for one in kept(body, share))]

    return kept(graph)


def kept_per_token(graph: Graph) -> int:
    """Numbers that decoding keeps for one more token, before any window is full."""
    return sum(kept.numbers for kept in kept_of(graph) if kept.per == "token")


def kept_numbers(kept: Sequence[Kept], tokens: int) -> int:
    """Numbers that are kept of a sequence of so many tokens."""
    return sum(one.numbers * (1 if one.per == "sequence" else min(tokens, one.window or tokens)) for one in kept)
