"""The specs of a study's trials, short enough to be looked at, and their parts, to be held beside those of another.

The short form is the canonical one without what is a default: a spec again, with the same hashes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from archspec.canonical import text
from archspec.errors import SpecError
from archspec.kind import REGISTRY
from archspec.kinds.rounds import Rounds
from archspec.spec import load

PLAIN = ("name", "kind", "from", "weights")


def short(folder: Path, digest: str) -> dict[str, Any] | None:
    """The short form of a trained spec, as plain data; None where its file is not here."""
    try:
        read = _file(folder, digest).read_bytes()
    except OSError:
        return None
    tree = yaml.load(read, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return shortened(tree) if isinstance(tree, dict) else None


def shortened(canonical: Mapping[str, Any]) -> dict[str, Any]:
    """A canonical form without the fields that are as usual."""
    found: dict[str, Any] = _shortened(dict(canonical))
    return found


def _shortened(value: Any) -> Any:
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = REGISTRY.get(value["kind"]) if isinstance(value.get("kind"), str) else None
    usual = {} if kind is None else {name: kind.model_fields[name].get_default(call_default_factory=True)
                                     for name in kind.plain if name in value and name not in PLAIN}  # fmt: skip
    rest = {
        name: _shortened(item)
        for name, item in value.items()
        if name not in usual or type(usual[name]) is not type(item) or usual[name] != item
    }
    return rest


def parts(tree: Mapping[str, Any]) -> dict[str, str]:
    """The YAML of a spec's top-level nodes and of the rounds of such, by the names that prices use."""
    blocks = tree.get("blocks", {})
    found: dict[str, str] = {}
    for node in tree["graph"]:
        kind = REGISTRY.get(node.get("kind", ""))
        rounds = node.get("rounds")
        if kind is not None and issubclass(kind, Rounds) and isinstance(rounds, list):
            for number, body in enumerate(rounds):
                found[f"{node['name']}.{number}"] = yaml_of(_whole(body, blocks))
        else:
            found[node["name"]] = yaml_of(_whole({key: node[key] for key in node if key != "name"}, blocks))
    return found


def _whole(value: Any, blocks: Mapping[str, Any], depth: int = 0) -> Any:
    """A part with the bodies in the place of their names."""
    if isinstance(value, list):
        return [_whole(item, blocks, depth) for item in value]
    if isinstance(value, dict):
        return {key: item if key in PLAIN else _whole(item, blocks, depth) for key, item in value.items()}
    if isinstance(value, str) and value in blocks and depth < 8:
        body = blocks[value]
        return _whole(body["graph"] if isinstance(body, dict) and "graph" in body else body, blocks, depth + 1)
    return value


def yaml_of(value: Any, *, dense: bool = False) -> str:
    """A spec or a part of one as YAML."""
    return text(value, dense=dense).rstrip("\n")


def priced(folder: Path, digest: str, length: int | None) -> list[dict[str, Any]] | None:
    """What each part of a trained spec costs: parameters, and FLOPs of a forward pass of one sample.

    None where its file is not here or it has no price.
    """
    from search.cost import devices
    from search.cost.price import price

    try:
        cost = price(load(_file(folder, digest)), length=length, device=devices.names()[0])
    except (SpecError, OSError):
        return None
    return [{"name": row.name, "kind": row.kind, "output": row.output, "parameters": row.parameters,
             "flops": row.flops} for row in cost.rows]  # fmt: skip


class Lines:
    """Texts whose lines are kept once: trials of one space have most of them in common."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}

    def add(self, words: str) -> list[int]:
        """The numbers of a text's lines."""
        return [self.lines.setdefault(line, len(self.lines)) for line in words.split("\n")]


def embedded(value: Any) -> str:
    """JSON that may stand inside a script element."""
    dumped = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return dumped.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _file(folder: Path, digest: str) -> Path:
    return folder / "trials" / digest[:16] / "spec.yaml"
