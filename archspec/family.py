"""Families of published models: a file of `archspec.families` maps a `transformers` configuration to a spec.

The same file tells which stored tensor is which weight (`compiler.checkpoint`). How one is written: docs/families.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from archspec.errors import Mark, Problem, Refused, SpecError, did_you_mean
from archspec.readable import readable
from archspec.source import read
from archspec.spec import Spec, loads
from archspec.template import Template, TemplateError, reads

FOLDER = Path(__file__).parent / "families"
KEYS = ("archfamily", "extends", "use", "model_type", "class", "prefix", "aliases", "config", "only", "ignored",
        "define", "let", "spec", "tensors", "renamed", "skipped")  # fmt: skip


@dataclass(frozen=True)
class Imported:
    """What a configuration stands for.

    Attributes:
        family: whose configuration it is.
        config: the configuration with the family's defaults filled in.
        text: the spec as YAML; ``spec`` is that text, checked.
        places: for each layer, the path of its weights in the compiled model's logical names; of all layers under
            ``layer``, and of each call of ``layers`` under its word.
        tensors: stored names to logical names, filled in (`compiler.checkpoint`).
    """

    family: Family
    config: dict[str, Any]
    text: str
    spec: Spec
    places: dict[str, tuple[str, ...]]
    tensors: dict[str, Any]


class Family:
    """One family file, those that it extends and uses merged in."""

    def __init__(self, name: str) -> None:
        self.name = name
        tree = _merged(name)
        self.model_type: str = tree["model_type"]
        self.architecture: str = tree["class"]
        self.prefix: str = tree.get("prefix", "")
        self.aliases: dict[str, str] = tree.get("aliases", {})
        self.config: dict[str, Any] = tree.get("config", {})
        self.only: dict[str, Any] = tree.get("only", {})
        self.ignored: frozenset[str] = frozenset(tree.get("ignored", ()))
        self.skipped: list[str] = list(tree.get("skipped", ()))
        self.renamed: dict[str, str] = tree.get("renamed", {})
        self._define, self._let, self._spec = tree.get("define", {}), tree.get("let", {}), tree["spec"]
        self._tensors: dict[str, Any] = tree.get("tensors", {})

    @cached_property
    def used(self) -> frozenset[str]:
        """Configuration fields that decide something."""
        return reads([self._let, self._spec, self._define, self._tensors]) & self.config.keys()

    def fields(self, given: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """A configuration with its defaults, if all that it says can be said.

        Errors:
            SpecError: a field that nobody knows, of another type, or with a value that cannot be said.
        """
        problems: list[tuple[str, str, str | None]] = []
        for key, value in given.items():
            if key in self.only:
                allowed = self.only[key] if isinstance(self.only[key], list) else [self.only[key]]
                if value not in allowed and value != self.config.get(key, allowed[0]):
                    shown = ", ".join(json.dumps(one) for one in allowed)
                    problems.append((key, f"{json.dumps(value)} cannot be said for {self.name}", f"it can be {shown}"))
            elif key in self.config:
                wanted = _type(self.config[key])
                if value is not None and wanted and not isinstance(value, wanted[0]):
                    problems.append((key, f"{json.dumps(value)} is no {wanted[1]}", None))
            elif key not in self.ignored:
                hint = did_you_mean(key, [*self.config, *self.only])
                problems.append((key, f"the family {self.name} has no field {key!r}", hint))
        if problems:
            raise SpecError(*(Problem(cause, hint, key, self._mark(where, key)) for key, cause, hint in problems))
        return {**self.config, **{key: value for key, value in given.items() if key in self.config}}

    def _mark(self, where: str, key: str) -> Mark | None:
        return mark_of(where, key, *(name for name, field in self.aliases.items() if field == key))

    def expand(self, given: Mapping[str, Any], where: str = "", name: str | None = None) -> Imported:
        """The spec that a configuration stands for.

        Args:
            given: the fields of a ``config.json``.
            where: its file, for errors.
            name: of the spec; that of the model type by default.

        Errors:
            SpecError: what the configuration says cannot be said, each field by name.
        """
        given = {self.aliases.get(key, key): _numbers(value) for key, value in given.items()}
        config = self.fields(given, where)
        functions = {word: _Function(word, body, self) for word, body in self._define.items()}
        template = Template({**config, "given": dict(given), "config": config}, functions)
        for function in functions.values():
            function.functions, function.names = template.functions, template.names
        stacks: dict[str, list[str]] = {"layer": []}
        template.functions["layers"] = lambda layers, word="layers": _rounds(layers, word, stacks)
        try:
            for word, value in self._let.items():
                template.names[word] = template.fill(value)
            tree = template.fill(self._spec)
            tree["graph"] = [node for item in tree["graph"] for node in (item if isinstance(item, list) else [item])]
            tensors = template.fill(self._tensors)
        except Refused as refused:
            problem = Problem(refused.cause, refused.hint, refused.field, self._mark(where, refused.field))
            raise SpecError(problem) from None
        except TemplateError as error:
            raise SpecError(Problem(f"this configuration has no meaning for {self.name}: {error}", None, "",
                                    Mark(where, 1, 1) if where else None)) from None  # fmt: skip
        order = ("interface", "dims", "init", "defaults", "blocks", "graph", "outputs")
        parts = {key: tree[key] for key in order if tree.get(key)}
        assert parts.keys() >= {key for key in tree if tree[key]}, tree.keys()
        tree = {"archspec": 1, "name": name or self.model_type, **parts}
        comment = f"Imported from a configuration of {self.architecture} ({self.model_type})."
        text = readable(tree, comment)
        spec, places = loads(text, f"spec of {where or self.name}"), {word: tuple(of) for word, of in stacks.items()}
        return Imported(self, config, text, spec, places, tensors)


class _Function:
    """A template with arguments, called from expressions; it reads what is known where it is called as well."""

    def __init__(self, name: str, body: Mapping[str, Any], family: Family) -> None:
        self.name, self.body = name, body
        self.functions: dict[str, Any] = {}
        self.names: dict[str, Any] = {}

    def __call__(self, *given: Any) -> Any:
        names = self.body.get("arguments", [])
        if len(given) > len(names):
            raise TemplateError(f"{self.name} takes {len(names)} arguments, not {len(given)}")
        values = dict(zip(names, [*given, *[None] * (len(names) - len(given))], strict=True))
        template = Template({**self.names, **values}, self.functions)
        for word, value in self.body.get("let", {}).items():
            template.names[word] = template.fill(value)
        return template.fill(self.body["value"])


def families() -> list[str]:
    """Names of all families, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.stem.startswith("_"))


@cache
def family(name: str) -> Family:
    """The family of a file's name."""
    return Family(name)


def family_of(config: Mapping[str, Any], where: str = "") -> Family:
    """The family of a configuration, by its ``model_type``.

    Errors:
        SpecError: no family has this model type.
    """
    word = config.get("model_type")
    mark = Mark(where, 1, 1) if where else None
    if not isinstance(word, str):
        hint = "it should be the config.json of a transformers model"
        raise SpecError(Problem("the configuration says no model_type", hint, "model_type", mark))
    for name in families():
        if name == word.replace("-", "_") or _head(name)["model_type"] == word:
            return family(name)
    known = [_head(name)["model_type"] for name in families()]
    hint = did_you_mean(word, known) or f"archc import --families lists the {len(known)} that are known"
    raise SpecError(Problem(f"no family is called {word!r}", hint, "model_type", mark_of(where, "model_type") or mark))


def read_config(path: Path) -> dict[str, Any]:
    """A ``config.json``.

    Errors:
        SpecError: missing, unreadable or no JSON object.
    """

    def refuse(cause: str, line: int = 1, column: int = 1) -> SpecError:
        return SpecError(Problem(cause, "name the config.json of a transformers model, or its folder", "",
                                 Mark(str(path), line, column)))  # fmt: skip

    try:
        if path.stat().st_size > 16 * 2**20:
            raise refuse("larger than 16 MiB; a configuration is small")
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
    except FileNotFoundError:
        raise refuse("there is no such file") from None
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise refuse(f"not JSON: {error.msg}", error.lineno, error.colno) from None
    except (UnicodeDecodeError, RecursionError):
        raise refuse("not a JSON text file") from None
    if not isinstance(found, dict):
        raise refuse("not a JSON object")
    return found


def _numbers(value: Any) -> Any:
    """A value with its numbers; transformers writes those that JSON has no word for as ``{"__float__": "Infinity"}``."""
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if not isinstance(value, dict):
        return value
    return float(value["__float__"]) if value.keys() == {"__float__"} else {k: _numbers(v) for k, v in value.items()}


def mark_of(where: str, *keys: str) -> Mark | None:
    """Where a field, by any of its names, stands in a configuration file, as far as the text tells."""
    try:
        lines = Path(where).read_text(encoding="utf-8").splitlines() if where else []
    except (OSError, UnicodeDecodeError):
        return None
    for number, line in enumerate(lines, 1):
        for key in keys:
            if f'"{key}"' in line:
                return Mark(where, number, line.index(f'"{key}"') + 1)
    return Mark(where, 1, 1) if where else None


@cache
def _head(name: str) -> dict[str, Any]:
    """A family file's own lines, without what it extends."""
    tree = read(FOLDER / f"{name}.yaml")
    unknown = [key for key in tree if key not in KEYS]
    assert not unknown, f"{name}.yaml: unknown key {unknown[0]!r}"
    return tree


def _merged(name: str) -> dict[str, Any]:
    tree = _head(name)
    result: Any = {}
    for other in (*tree.get("use", ()), *([tree["extends"]] if "extends" in tree else ())):
        result = _over(result, _merged(other))
    merged: dict[str, Any] = _over(result, {key: value for key, value in tree.items() if key not in ("use", "extends")})
    return merged


def _over(base: Any, tree: Any, path: tuple[str, ...] = ()) -> Any:
    """Mappings merge, a null takes an entry away, lists of names are joined; a default and all else replaces."""
    field = path[:1] == ("config",) and len(path) > 1
    if isinstance(base, dict) and isinstance(tree, dict) and not field and not {"if", "kind"} & {*base, *tree}:
        result = dict(base)
        for key, value in tree.items():
            if value is None and path[:1] not in (("config",), ("only",)):
                result.pop(key, None)
            else:
                result[key] = _over(base[key], value, (*path, key)) if key in base else value
        return result
    if path and path[0] in ("ignored", "skipped") and isinstance(base, list):
        return [*base, *tree]
    return tree


def _type(default: Any) -> tuple[Any, str] | None:
    """What values a field takes, by its default, and how that is called."""
    if isinstance(default, bool):
        return bool, "true or false"
    if isinstance(default, int):
        return int, "whole number"
    if isinstance(default, float):
        return (int, float), "number"
    if isinstance(default, str):
        return str, "word"
    return None


def _rounds(layers: list[Any], word: str, stacks: dict[str, list[str]]) -> list[Any]:
    """Layers, each the name of a block or a call of one, as repeats; ``stacks`` get the path of each."""
    nodes: list[Any] = []
    places = stacks.setdefault(word, [])
    for number, (pattern, times) in enumerate(_segments(list(layers)), 1):
        name = word if number == 1 else f"{word}_{number}"
        if times == 1:
            nodes.append({"name": name, **(pattern[0] if isinstance(pattern[0], dict) else {"kind": pattern[0]})})
            places.append(name)
            continue
        items, inner = _pattern(pattern)
        nodes.append({"name": name, "kind": "repeat", "times": times, "body": items[0] if len(items) == 1 else items})
        for turn in range(times):
            places += [f"{name}.{turn}{path}" for path in inner]
    stacks["layer"] += places
    return nodes


def _pattern(pattern: list[Any]) -> tuple[list[Any], list[str]]:
    """One round of several layers, and their paths in it."""
    if len(pattern) == 1:
        return pattern, [""]
    runs: list[tuple[Any, int]] = []
    for layer in pattern:
        if runs and runs[-1][0] == layer:
            runs[-1] = (layer, runs[-1][1] + 1)
        else:
            runs.append((layer, 1))
    items: list[Any] = []
    paths: list[str] = []
    taken: set[str] = set()
    for layer, count in runs:
        name = base = layer["kind"] if isinstance(layer, dict) else layer
        number = 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        if count > 1:
            items.append({"name": name, "kind": "repeat", "times": count, "body": layer})
            paths += [f".{name}.{turn}" for turn in range(count)]
        else:
            items.append({"name": name, **(layer if isinstance(layer, dict) else {"kind": layer})})
            paths.append(f".{name}")
    return items, paths


def _segments(layers: list[Any]) -> Iterator[tuple[list[Any], int]]:
    """Layers as patterns and how often each is repeated; a single layer is a pattern once."""
    start = 0
    while start < len(layers):
        best, times = 1, 1
        for period in range(1, (len(layers) - start) // 2 + 1):
            pattern, count = layers[start : start + period], 1
            while layers[start + count * period : start + (count + 1) * period] == pattern:
                count += 1
            if count > 1 and count * period > best * times:
                best, times = period, count
        yield layers[start : start + best], times
        start += best * times


def pattern(text: str) -> re.Pattern[str]:
    """A tensor's name with ``{wildcards}``, each a part between dots, as a regular expression."""
    parts = re.split(r"\{(\w+)\}", text)
    words: set[str] = set()
    found = ""
    for number, part in enumerate(parts):
        if number % 2 == 0:
            found += re.escape(part)
        elif part in words:
            found += f"(?P={part})"
        else:
            words.add(part)
            found += f"(?P<{part}>[^.]+)"
    return re.compile(found)
