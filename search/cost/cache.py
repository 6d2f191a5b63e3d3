"""What decoding keeps of a sequence, as causal mixers declare it (`archspec.kind.Kept`).

Keys and values of few heads, of a window or a chunk, a latent of each token, a recurrent state: whatever a block keeps
it says itself. Rounds keep their own each, unless they share one cache. What is computed once of another stream, as the
keys and values of a memory, is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from archspec.graph import Graph, Node
from archspec.kind import Kept
from archspec.kinds.rounds import Rounds


def kept_of(graph: Graph) -> list[Kept]:
    """All that is kept of one sequence."""
    known: dict[int, list[Kept]] = {}

    def kept(graph: Graph) -> list[Kept]:
        if id(graph) not in known:
            known[id(graph)] = [one for node in graph.nodes for one in of(node)]
        return known[id(graph)]

    def of(node: Node) -> list[Kept]:
        own = node.types and node.types[0].causal and "memory" not in node.streams
        if isinstance(node.kind, Rounds) and node.kind.cache == "shared":
            bodies = node.kind.bodies(node)[:1]
        else:
            bodies = list(node.bodies.values())
        return [*(node.kind.kept(node) if own else ()), *(one for body in bodies for one in kept(body))]

    return kept(graph)


def kept_per_token(graph: Graph) -> int:
    """Numbers that decoding keeps for one more token, before any window is full."""
    return sum(kept.numbers for kept in kept_of(graph) if kept.per == "token")


def kept_numbers(kept: Sequence[Kept], tokens: int) -> int:
    """Numbers that are kept of a sequence of so many tokens."""
    return sum(one.numbers * (1 if one.per == "sequence" else min(tokens, one.window or tokens)) for one in kept)
