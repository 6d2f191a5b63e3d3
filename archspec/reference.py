"""What can be told of a kind from its class: its doc, its fields, its papers and an example.

``archc kinds`` and the pages of the documentation are made from this.
"""

from __future__ import annotations

import inspect
import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from archspec.kind import Kind, Slot

_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
_DOI = re.compile(r"doi (10\.\S+?)[.,)]?(?:\s|$)")
_TYPICAL = {"width": 256, "heads": 8, "times": 12, "vocab": 256, "length": 1024, "classes": 10, "size": 16, "factor": 2}


def reference(kind: type[Kind]) -> dict[str, Any]:
    """All about a kind, as plain data: ``kind, roles, summary, doc, fields, papers, example``."""
    doc = documentation(kind)
    papers = [f"https://arxiv.org/abs/{number}" for number in _ARXIV.findall(_all_text(kind, doc))]
    papers += [f"https://doi.org/{number}" for number in _DOI.findall(doc)]
    return {
        "kind": kind.name_,
        "roles": list(kind.roles),
        "family": kind.family,
        "summary": doc.split("\n\n")[0].replace("\n", " "),
        "doc": doc,
        "fields": [_field(kind, name, info) for name, info in kind.model_fields.items() if name != "kind"],
        "papers": list(dict.fromkeys(papers)),
        "example": kind.example or _example(kind),
    }


def documentation(kind: type[BaseModel]) -> str:
    """A class's own docstring, without indentation."""
    return inspect.cleandoc(kind.__doc__ or "")


def annotated_type(annotation: Any) -> str:
    """A field's type in the words of a spec: ``whole number``, ``number``, ``yes or no``, ``one of a, b``, …"""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return annotated_type(parts[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(annotated_type(part) for part in parts if part is not type(None)))
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (list, tuple):
        return f"list of {annotated_type(parts[0])}" if parts else "list"
    if origin is dict:
        return f"mapping to {annotated_type(parts[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.name_ if issubclass(annotation, Kind) else "mapping"
    words = {bool: "true | false", int: "whole number", float: "number", str: "word", Any: "anything"}
    return words.get(annotation, str(annotation))


def _field(kind: type[Kind], name: str, info: FieldInfo) -> dict[str, Any]:
    slot = kind.slots.get(name)
    default = info.get_default(call_default_factory=True) if info.default_factory else info.default
    plain = None if default is PydanticUndefined else default
    return {
        "name": info.alias or name,
        "type": _slot(slot) if slot else annotated_type(info.annotation) + ", may move" * (name in kind.moves),
        "required": info.is_required(),
        "default": plain if plain not in ({}, []) else None,
        "description": info.description or "",
    }


def _slot(slot: Slot) -> str:
    what = " or ".join("node" if role == "body" else role for role in slot.roles)
    if slot.stream:
        what += " or stream"
    return f"list of {what}" if slot.many else f"mapping to {what}" if slot.named else what


def _all_text(kind: type[Kind], doc: str) -> str:
    return "\n".join([doc, *(info.description or "" for info in kind.model_fields.values())])


def _example(kind: type[Kind]) -> str:
    """The kind with what it cannot do without."""
    parts = [f"kind: {kind.name_}"]
    for name, info in kind.model_fields.items():
        if info.is_required() and name != "kind":
            parts.append(f"{info.alias or name}: {_value(kind, name, info)}")
    return f"{{{', '.join(parts)}}}" if len(parts) > 1 else kind.name_


def _value(kind: type[Kind], name: str, info: FieldInfo) -> str:
    slot = kind.slots.get(name)
    if slot is not None:
        word = {"body": "layer", "norm": "rms_norm"}.get(slot.roles[0], slot.roles[0])
        return f"[{word}]" if slot.many else f"{{first: {word}}}" if slot.named else word
    what = annotated_type(info.annotation)
    if what.startswith("list of"):
        return "[224, 224, 3]" if name == "image" else "[row]" if "word" in what else "[1, 2]"
    if what.startswith("mapping"):
        return "{x: {axes: {token: 16}, width: 64}}"
    if "number" in what:
        return str(_TYPICAL.get(name, 2))
    return what.split(" | ")[0] if "|" in what else name
