"""Families of published models: a file of `archspec.families` maps a `transformers` configuration to a spec.

The same file tells which stored tensor is which weight (`compiler.checkpoint`). How one is written: docs/families.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from archspec import blame
from archspec.config_file import mark_of
from archspec.errors import Mark, Problem, Refused, SpecError, did_you_mean
from archspec.readable import readable
from archspec.source import as_tree, read
from archspec.spec import Spec, from_tree, loads
from archspec.stacks import rounds
from archspec.template import Template, TemplateError, reads

FOLDER = Path(__file__).parent / "families"
KEYS = ("archfamily", "extends", "use", "model_type", "class", "prefix", "aliases", "config", "types", "only",
        "ignored", "define", "let", "spec", "tensors", "renamed", "skipped")  # fmt: skip


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
        self.types: dict[str, str] = tree.get("types", {})
        self.ignored: frozenset[str] = frozenset(tree.get("ignored", ()))
        self.skipped: list[str] = list(tree.get("skipped", ()))
        self.renamed: dict[str, str] = tree.get("renamed", {})
        self.define, self.let, self.spec = tree.get("define", {}), tree.get("let", {}), tree["spec"]
        self._tensors: dict[str, Any] = tree.get("tensors", {})

    @cached_property
    def used(self) -> frozenset[str]:
        """Configuration fields that decide something."""
        return reads([self.let, self.spec, self.define, self._tensors]) & self.config.keys()

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
                    problems.append((key, f"{blame.shown(value)} cannot be said for {self.name}",
                                     f"it can be {', '.join(map(blame.shown, allowed))}"))  # fmt: skip
            elif key in self.config:
                wanted = self.types.get(key) or _type(self.config[key])
                if value is not None and wanted and not _is(value, wanted):
                    problems.append((key, f"{blame.shown(value)} is {_NO[wanted]}", None))
            elif key not in self.ignored:
                hint = did_you_mean(key, [*self.config, *self.only])
                problems.append((key, f"the family {self.name} has no field {blame.name(key)!r}", hint))
        if problems:
            raise SpecError(*(Problem(cause, hint, blame.name(key), self._mark(where, key))
                              for key, cause, hint in problems))  # fmt: skip
        return {**self.config, **{key: value for key, value in given.items() if key in self.config}}

    def named(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration under the family's own names of fields, with its numbers."""
        return {self.aliases.get(key, key): _numbers(value) for key, value in given.items()}

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
        given = self.named(given)
        self.fields(given, where)
        tree, places, tensors = self._filled(given, where)
        text = self._text(tree, name)
        try:
            spec = loads(text, f"spec of {where or self.name}")
        except SpecError as error:
            raise SpecError(*(self._blamed(problem, given, tree, where) for problem in error.problems)) from None
        return Imported(self, {**self.config, **{k: v for k, v in given.items() if k in self.config}}, text, spec,
                        places, tensors)  # fmt: skip

    def sketch(self, given: Mapping[str, Any]) -> Spec:
        """What `expand` gives as a spec, without its text; faster, for trying many configurations.

        Errors:
            SpecError, Refused, TemplateError: the configuration cannot be said.
        """
        self.fields(given)
        return from_tree(as_tree({"archspec": 1, "name": self.model_type, **self._expanded(given)[0]}))

    def _filled(
        self, given: Mapping[str, Any], where: str = ""
    ) -> tuple[dict[str, Any], dict[str, tuple[str, ...]], dict[str, Any]]:
        """The spec as a tree, the places of layers, and the tensors."""
        try:
            return self._expanded(given)
        except Refused as refused:
            field = refused.field or blame.of_failure(given, self._fails) or ""
            raise SpecError(Problem(refused.cause, refused.hint, field, self._mark(where, field))) from None
        except TemplateError as error:
            field = blame.of_failure(given, self._fails) or ""
            what = blame.shown(given[field]) if field else "this configuration"
            cause = f"{what} has no meaning for {self.name}: {error.reason}"
            raise SpecError(Problem(cause, None, field, self._mark(where, field))) from None

    def _fails(self, given: Mapping[str, Any]) -> bool:
        try:
            self._expanded(given)
        except (Refused, TemplateError):
            return True
        return False

    def _expanded(
        self, given: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, tuple[str, ...]], dict[str, Any]]:  # fmt: skip
        config = {**self.config, **{key: value for key, value in given.items() if key in self.config}}
        functions = {word: _Function(word, body, self) for word, body in self.define.items()}
        template = Template({**config, "given": dict(given), "config": config}, functions)
        for function in functions.values():
            function.functions, function.names = template.functions, template.names
        stacks: dict[str, list[str]] = {"layer": []}
        template.functions["layers"] = lambda layers, word="layers": rounds(layers, word, stacks)
        for word, value in self.let.items():
            template.names[word] = template.fill(value)
        tree = template.fill(self.spec)
        tree["graph"] = list(_flat(tree["graph"]))
        tensors = template.fill(self._tensors)
        order = ("interface", "dims", "init", "defaults", "blocks", "graph", "outputs")
        parts = {key: tree[key] for key in order if tree.get(key)}
        assert parts.keys() >= {key for key in tree if tree[key]}, tree.keys()
        return parts, {word: tuple(of) for word, of in stacks.items()}, tensors

    def _text(self, tree: Mapping[str, Any], name: str | None = None) -> str:
        comment = f"Imported from a configuration of {self.architecture} ({self.model_type})."
        return readable({"archspec": 1, "name": name or self.model_type, **tree}, comment)

    def _blamed(self, problem: Problem, given: Mapping[str, Any], tree: Mapping[str, Any], where: str) -> Problem:
        """A problem of the spec as one of the field that it comes from."""

        def fails(given: Mapping[str, Any]) -> bool:
            try:
                loads(self._text(self._expanded(given)[0]))
            except SpecError as error:
                return any(other.path == problem.path for other in error.problems)
            except (Refused, TemplateError):
                return True
            return False

        said = {key: value for key, value in given.items() if key in self.config}
        field = blame.of_value(problem, said, tree, lambda other: self._expanded(other)[0])
        field = field or blame.of_failure(said, fails)
        if field is None:
            return problem._replace(mark=Mark(where, 1, 1) if where else None)
        found = blame.told(problem, field, given[field], blame.wrong(tree, problem.path))
        return found._replace(mark=self._mark(where, field))


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
    for key, inner in config.items():
        if isinstance(inner, dict) and inner.get("model_type") in known:
            hint = f"its {key} is a {inner['model_type']}, which can be imported: write it as a config.json of its own"
    cause = f"no family is called {blame.name(word)!r}"
    raise SpecError(Problem(cause, hint, "model_type", mark_of(where, "model_type") or mark))


def _numbers(value: Any) -> Any:
    """A value with its numbers; those that JSON has no word for are written as ``{"__float__": "Infinity"}``."""
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"__float__"} and value["__float__"] in ("Infinity", "-Infinity", "NaN"):
        return float(value["__float__"])
    return {key: _numbers(item) for key, item in value.items()}


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


_NO = {"flag": "not true or false", "integer": "no whole number", "number": "no number", "word": "no word",
       "list": "no list", "mapping": "no mapping"}  # fmt: skip


def _type(default: Any) -> str | None:
    """What values a field takes, by its default."""
    kinds = {bool: "flag", int: "integer", float: "number", str: "word", list: "list", dict: "mapping"}
    return next((word for kind, word in kinds.items() if isinstance(default, kind)), None)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "flag"
    if kind == "number":
        return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return isinstance(value, {"integer": int, "word": str, "list": list, "mapping": dict}.get(kind, ()))


def _flat(items: list[Any]) -> Iterator[Any]:
    for item in items:
        yield from _flat(item) if isinstance(item, list) else [item]


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
