"""What a mixer can serve: a stream of its own or another one's tokens, causal or not.

The four patterns of Zhang et al. 2023, "CAB: Comprehensive Attention Benchmarking on Long Sequence Modeling", arXiv
2210.07661. A kind declares them by what its type rule accepts, so that what is told here and what is refused in a file
cannot differ.
"""

from __future__ import annotations

from functools import cache
from textwrap import indent
from typing import Any

from archspec.canonical import text
from archspec.errors import SpecError
from archspec.kind import REGISTRY, Kind
from archspec.source import parse
from archspec.spec import Spec, loads

PATTERNS = ("self", "causal self", "cross", "causal cross")
"""Causal: no token may tell of later ones. Cross: queries read another stream, which is not causal itself."""


def mixers() -> list[str]:
    """The names of the kinds that mix tokens."""
    return [name for name, kind in REGISTRY.items() if "mixer" in kind.roles]


def example(kind: type[Kind], pattern: str) -> Spec:
    """A small spec in which a kind serves a pattern: its example, over a stream ``x`` and beside a stream ``y``.

    Positions are left out of cross patterns, since places of one stream mean nothing in another.

    Errors:
        SpecError: it cannot.
    """
    from archspec.reference import reference

    written = parse(f"nodes:\n{indent(reference(kind)['example'], '  ')}")["nodes"]
    *before, last = written if isinstance(written, list) else [written]
    node = {"kind": last} if isinstance(last, str) else dict(last)
    x: dict[str, Any] = {"axes": {"token": 16}, "width": 256}
    y: dict[str, Any] = {"axes": {"row": 8}, "width": 256}
    if "causal" in pattern:
        x["causal"] = "token"
    if "cross" in pattern:
        reads = kind.arity[1] > 1 and "memory" not in kind.slots
        node |= {"from": ["x", "y"]} if reads else {"from": "x", "memory": "y"}
        node.pop("position", None)
    else:
        node["from"] = "x"
    inputs = {"x": x, "y": y} if "cross" in pattern else {"x": x}
    head = {"archspec": 1, "name": kind.name_.replace("/", "-"), "interface": {"kind": "backbone", "inputs": inputs}}
    return loads(text(head | {"graph": [*before, node]}))


@cache
def serves(kind: type[Kind]) -> tuple[str, ...]:
    """The patterns that a kind can serve; none for one that mixes no tokens."""
    if "mixer" not in kind.roles:
        return ()
    return tuple(pattern for pattern in PATTERNS if _accepted(kind, pattern))


def _accepted(kind: type[Kind], pattern: str) -> bool:
    try:
        example(kind, pattern)
    except SpecError:
        return False
    return True
