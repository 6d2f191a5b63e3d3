"""The JSON Schema of spec and space files, derived from the registered kinds.

With it an editor completes field names, shows what they mean, and underlines what is wrong while one types. It accepts
every right file; what depends on other parts of the file (names, numbers that must divide) only ``archc check`` knows.
JSON Schema draft 2020-12, https://json-schema.org/draft/2020-12.
"""

from __future__ import annotations

from typing import Any

from archspec.kind import REGISTRY, Kind, Slot, kinds_of
from archspec.kinds.interface import Interface
from archspec.moving import SHAPES
from archspec.reference import documentation
from archspec.spec import INITS, VERSION

Json = dict[str, Any]
DRAFT = "https://json-schema.org/draft/2020-12/schema"
SHARED = {
    "name": {"type": "string", "pattern": "^[^\\W\\d]\\w*$", "description": "what others call this node"},
    "from": {"description": "the streams that it reads; the node before it by default",
             "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "when": {"enum": ["always", "training"], "description": "training: absent from inference"},
    "weights": {"description": "a node whose weights it uses; of: where it is described itself",
                "anyOf": [{"type": "string"}, {"type": "object", "required": ["of"], "additionalProperties": False,
                                               "properties": {"of": {"type": "string"}}}]},
}  # fmt: skip
NODE = {key: {"$ref": f"#/$defs/node.{key}"} for key in SHARED}
EACH = {"type": "object", "properties": {"each": {"type": "array", "description": "one value a round"}},
        "required": ["each"], "additionalProperties": False}  # fmt: skip
RANGE = {
    "range": {"type": "array", "minItems": 2, "maxItems": 2, "description": "lowest and highest, both included"},
    "step": {"type": ["number", "string"]},
    "log": {"type": "boolean"},
    "of": {"type": "string", "description": "a dim that the drawn number multiplies"},
    "default": {},
    "bind": {"const": "search"},
}
NUMBER = {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/expression"}]}
DRAWN = {"default": NUMBER, "seed": {"type": ["integer", "string"], "description": "sets draws apart"}}
COURSES: dict[str, Json] = {
    "from": {
        "from": NUMBER,
        "to": NUMBER,
        "between": {"type": "array", "minItems": 2, "maxItems": 2, "items": NUMBER,
                    "description": "progress at which it starts and stops, 0 to 1"},
        "shape": {"enum": sorted(SHAPES)},
    },
    "values": {"values": {"type": "object", "description": "numbers by progress", "additionalProperties": NUMBER}},
    "range": {"range": {"type": "array", "minItems": 2, "maxItems": 2, "items": NUMBER}, "step": NUMBER,
              "log": {"type": "boolean"}, **DRAWN},
    "choose": {"choose": {"type": "array", "minItems": 1, "items": NUMBER}, **DRAWN},
}  # fmt: skip
REQUIRED = {
    "from": ["from", "to"],
    "values": ["values"],
    "range": ["range", "default"],
    "choose": ["choose", "default"],
}
CHOOSE = {
    "choose": {"type": "array", "minItems": 1, "description": "the options"},
    "default": {},
    "bind": {"const": "search"},
}

CHANGED = {
    "type": "object",
    "description": "changes a block of the file that is extended",
    "not": {"anyOf": [{"required": ["kind"]}, {"required": ["graph"]}]},
}


def schema(*, space: bool = False) -> Json:
    """The JSON Schema of spec files, or of space files, where every value may be a choice."""
    return _Schema(space).file()


class _Schema:
    def __init__(self, space: bool) -> None:
        self.space = space
        self.definitions: Json = {}

    def file(self) -> Json:
        header = "archspace" if self.space else "archspec"
        node, anything = {"$ref": "#/$defs/role.body"}, {"$ref": "#/$defs/node"}
        blocks = {
            "type": "object",
            "description": "named blocks, each a node, a list of nodes, or inputs, a graph and outputs",
            "additionalProperties": {"$ref": "#/$defs/block"},
        }
        numbers = self.varied({"type": ["number", "string", "boolean"]})
        self.definitions |= {
            "expression": {"type": "string", "description": "arithmetic over dims, parameters and width_in"},
            "varied": {"anyOf": [EACH, *self.choices()]},
            "moving": {"anyOf": [EACH, *map(self.course, COURSES), *self.choices()]},
            **{f"node.{key}": value for key, value in SHARED.items()},
            "graph": {"type": "array", "items": node, "minItems": 1},
            "outputs": {"description": "names of the streams that are given",
                        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}},
                                  {"type": "object", "additionalProperties": {"type": "string"}}]},
            "body": {
                "type": "object", "required": ["graph"], "additionalProperties": False,
                "properties": {**NODE, **self.body()},
            },
            "call": {
                "type": "object", "required": ["kind"], "description": "a block of this file, with its parameters",
                "properties": {"kind": {"type": "string", "not": {"enum": sorted(REGISTRY)}}, **NODE},
            },
            "sharing": {"type": "object", "required": ["weights"], "not": {"required": ["kind"]}, "properties": NODE},
            "block": {"anyOf": [anything, self.with_parameters(numbers), CHANGED]},
        }  # fmt: skip
        interface = self.one_of(kinds_of("interface"), words=True)
        for role in sorted(
            {role for kind in REGISTRY.values() for slot in kind.slots.values() for role in slot.roles} | {"body"}
        ):
            self.role(f"role.{role}", kinds_of(role))
        self.role("node", [name for name in sorted(REGISTRY) if not issubclass(REGISTRY[name], Interface)])
        properties: Json = {
            header: {"const": VERSION, "description": "format version"},
            "name": {"type": "string"},
            "description": {"type": "string"},
            "extends": {"type": "string", "description": "a file that this one changes, relative to this one"},
            "set": {"type": "object", "description": "values by path, as graph.layers.times: 6"},
            "interface": self.varied(interface),
            "dims": {"type": "object", "description": "named numbers", "additionalProperties": numbers},
            "defaults": {
                "type": "object",
                "description": "what fills a role where nothing is said",
                "properties": {role: {"$ref": f"#/$defs/role.{role}"} for role in ("linear", "norm")},
                "additionalProperties": False,
            },
            "init": self.initialisation(),
            "blocks": blocks,
            "graph": {"$ref": "#/$defs/graph"},
            "outputs": {"$ref": "#/$defs/outputs"},
        }  # fmt: skip
        if self.space:
            properties["where"] = self.where()
        return {
            "$schema": DRAFT,
            "title": "archspec space" if self.space else "archspec spec",
            "type": "object",
            "properties": properties,
            "required": [header],
            "anyOf": [{"required": ["extends"]}, {"required": ["interface", "graph"]}],
            "additionalProperties": False,
            "$defs": dict(sorted(self.definitions.items())),
        }

    def course(self, form: str) -> Json:
        """A number that moves in training."""
        fields = {"bind": {"const": "step"}, **COURSES[form]}
        if self.space:
            fields = {key: self.varied(value) for key, value in fields.items()}
        return {"type": "object", "properties": fields, "required": ["bind", *REQUIRED[form]],
                "additionalProperties": False}  # fmt: skip

    def choices(self) -> list[Json]:
        """What may stand in a space instead of a value."""
        if not self.space:
            return []
        return [{"type": "object", "properties": properties, "required": [word], "additionalProperties": False}
                for word, properties in (("choose", CHOOSE), ("range", RANGE))]  # fmt: skip

    def varied(self, plain: Json) -> Json:
        """A value, or what may stand for it: one value a round, in a space a choice."""
        return {"anyOf": [plain, {"$ref": "#/$defs/varied"}]}

    def where(self) -> Json:
        return {"description": "conditions that members keep, as width % heads == 0",
                "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}  # fmt: skip

    def body(self) -> Json:
        return {
            "inputs": {
                "type": "array",
                "items": {"type": "string"},
                "description": "names of the streams that it is given",
            },
            "graph": {"$ref": "#/$defs/graph"},
            "outputs": {"$ref": "#/$defs/outputs"},
        }

    def with_parameters(self, numbers: Json) -> Json:
        return {
            "type": "object",
            "required": ["parameters"],
            "properties": {
                "parameters": {
                    "type": "object",
                    "description": "names and their defaults",
                    "additionalProperties": {"anyOf": [numbers, {"$ref": "#/$defs/moving"}]},
                },
                "defaults": {"type": "object"},
                **self.body(),
            },
        }

    def initialisation(self) -> Json:
        schemes: list[Json] = [{"enum": sorted(INITS)}]
        for name, numbers in INITS.items():
            fields = {
                key: {"type": "boolean" if isinstance(value, bool) else "number", "default": value}
                for key, value in numbers.items()
            }
            schemes.append({"type": "object", "properties": {"kind": {"const": name}, **fields}, "required": ["kind"],
                            "additionalProperties": False})  # fmt: skip
        return self.varied({"description": "what weights start as", "anyOf": schemes})

    def role(self, name: str, kinds: list[str]) -> None:
        """What may stand where some kinds fit: a name, a node, a list of nodes."""
        others = [{"$ref": f"#/$defs/{other}"} for other in ("call", "body", "sharing", "varied")]
        self.definitions[name] = {
            "anyOf": [
                {"enum": kinds, "description": "a kind with its defaults"},
                {"type": "string", "description": "a block of this file, or absent"},
                *([{"$ref": "#/$defs/graph"}] if "sequence" in kinds else []),
                {"oneOf": [*self.one_of(kinds)["oneOf"], *others]},
            ]
        }

    def one_of(self, names: list[str], *, words: bool = False) -> Json:
        for name in names:
            self.kind(REGISTRY[name])
        nodes: list[Json] = [{"$ref": f"#/$defs/kind.{name}"} for name in names]
        return {"anyOf": [{"enum": names}, {"oneOf": nodes}]} if words else {"oneOf": nodes}

    def kind(self, kind: type[Kind]) -> None:
        """The definition of a node of one kind."""
        name = f"kind.{kind.name_}"
        if name in self.definitions:
            return
        self.definitions[name] = {}
        own = kind.model_json_schema(by_alias=True)
        for inner, definition in own.pop("$defs", {}).items():
            self.definitions[inner] = self.nested(definition)
        aliases = {info.alias or field: field for field, info in kind.model_fields.items()}
        properties: Json = {"kind": {"const": kind.name_}}
        if not issubclass(kind, Interface):
            properties |= NODE
        for alias, field in own.get("properties", {}).items():
            if alias == "kind":
                continue
            slot = kind.slots.get(aliases[alias])
            plain = self.slot(slot, field) if slot else self.field(field)
            if aliases[alias] in kind.moves:
                plain = {"anyOf": [self.opened(field), {"$ref": "#/$defs/moving"}]}
            told = {key: field[key] for key in ("description", "default") if field.get(key) not in (None, {}, [], "")}
            properties[alias] = {**told, **plain}
        if self.space:
            properties |= {
                "where": self.where(),
                **({"vary": {"enum": ["each", "together"]}} if "times" in properties else {}),
            }
        self.definitions[name] = {
            "type": "object",
            "description": documentation(kind),
            "properties": properties,
            "required": ["kind", *own.get("required", [])],
            "additionalProperties": False,
        }

    def slot(self, slot: Slot, field: Json) -> Json:
        options = [{"$ref": f"#/$defs/role.{role}"} for role in slot.roles if kinds_of(role)]
        options = options or [{"type": "string", "description": "the name of a stream"}]
        one = options[0] if len(options) == 1 else {"anyOf": options}
        if slot.many or slot.named:
            listed: list[Json] = [{"type": "array", "items": one}] if slot.many else []
            return {"anyOf": [*listed, one, {"type": "object", "not": {"required": ["kind"]}}, {"type": "null"}]}
        if field.get("type") == "object":
            return {"type": "object", "additionalProperties": one}
        return {"anyOf": [one, {"type": "null"}]}

    def field(self, field: Json) -> Json:
        """A plain field; a number may also be an expression, any value may vary."""
        return self.varied(self.opened(field))

    def opened(self, field: Json) -> Json:
        known = {key: value for key, value in field.items() if key not in ("title", "default", "description")}
        if "anyOf" in known:
            return {"anyOf": [self.opened(option) for option in known["anyOf"]]}
        if known.get("type") in ("integer", "number"):
            return {"anyOf": [known, {"$ref": "#/$defs/expression"}]}
        if known.get("type") == "array" and isinstance(known.get("items"), dict):
            return {**known, "items": self.varied(self.opened(known["items"]))}
        if known.get("type") == "object" and isinstance(known.get("additionalProperties"), dict):
            return {**known, "additionalProperties": self.varied(self.opened(known["additionalProperties"]))}
        return known

    def nested(self, definition: Json) -> Json:
        """A mapping inside a field."""
        properties = {name: self.field(value) for name, value in definition.get("properties", {}).items()}
        return {
            "type": "object",
            "properties": properties,
            "required": definition.get("required", []),
            "additionalProperties": False,
        }
