"""YAML text to a tree that knows where everything stands in its file.

Reads YAML 1.2 (the core schema: ``5e5`` is a number, ``on`` is text, a key is always text), refuses tags, duplicate
keys, and anything large or deep enough to be an attack. Built from parser events, so that no recursion of the YAML
library is involved.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from archspec.errors import Mark, Problem, SpecError

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 64
MAX_NODES = 200_000  # after alias expansion

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
    **dict.fromkeys([".inf", ".Inf", ".INF", "+.inf"], float("inf")),
    "-.inf": float("-inf"),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], float("nan")),
}
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq")} | {"!"}


class Map(dict[str, Any]):
    """A YAML mapping; its keys are text, its values scalars, `Map` or `Seq`.

    ``path`` is where it stands in the file; ``key_paths`` are the paths of values that were moved here from elsewhere.
    """

    __slots__ = ("mark", "path", "key_marks", "value_marks", "key_paths")

    def __init__(self, values: Any = (), mark: Mark | None = None, path: str = "") -> None:
        super().__init__(values)
        self.mark, self.path = mark, path
        source = values if isinstance(values, Map) else None
        self.key_marks: dict[str, Mark] = {} if source is None else dict(source.key_marks)
        self.value_marks: dict[str, Mark] = {} if source is None else dict(source.value_marks)
        self.key_paths: dict[str, str] = {} if source is None else dict(source.key_paths)
        if source is not None and mark is None:
            self.mark, self.path = source.mark, source.path

    def put(self, key: str, value: Any, key_mark: Mark | None, value_mark: Mark | None) -> None:
        self[key] = value
        if key_mark:
            self.key_marks[key] = key_mark
        if value_mark:
            self.value_marks[key] = value_mark

    def path_of(self, key: str) -> str:
        """Where a value stands in the file, as a path."""
        return self.key_paths.get(key) or below(self.path, key)

    def where(self, key: str) -> Mark | None:
        """The mark of a key's value, of the key, or of the mapping, whichever is known first."""
        return self.value_marks.get(key) or self.key_marks.get(key) or self.mark

    def move(self, *keys: str) -> Map:
        """A new mapping of some of the keys, those that are present, with their marks."""
        result = Map(mark=self.mark, path=self.path)
        for key in keys:
            if key in self:
                result.put(key, self[key], self.key_marks.get(key), self.value_marks.get(key))
        return result


class Seq(list[Any]):
    """A YAML list."""

    __slots__ = ("mark", "path", "value_marks")

    def __init__(self, values: Any = (), mark: Mark | None = None, path: str = "") -> None:
        super().__init__(values)
        self.mark, self.path = mark, path
        self.value_marks: list[Mark | None] = (
            list(values.value_marks) if isinstance(values, Seq) else [None] * len(self)
        )
        if isinstance(values, Seq) and mark is None:
            self.mark, self.path = values.mark, values.path

    def put(self, value: Any, mark: Mark | None) -> None:
        self.append(value)
        self.value_marks.append(mark)

    def path_of(self, index: int | str) -> str:
        """Where an item stands in the file, as a path."""
        return below(self.path, index)

    def where(self, index: int | str) -> Mark | None:
        """The mark of an item; that of the list for what is no item."""
        known = isinstance(index, int) and index < len(self.value_marks)
        return (self.value_marks[index] if known else None) or self.mark  # type: ignore[index]


def as_tree(value: Any, path: str = "") -> Any:
    """Plain lists and mappings as those of a file."""
    if isinstance(value, (Map, Seq)):
        return value
    if isinstance(value, Mapping):
        return Map({str(key): as_tree(item, below(path, str(key))) for key, item in value.items()}, path=path)
    if isinstance(value, (list, tuple)):
        return Seq([as_tree(item, below(path, number)) for number, item in enumerate(value)], path=path)
    return value


def words(raw: Any) -> Iterator[str]:
    """All text values inside a value."""
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, (dict, list)):
        for value in raw.values() if isinstance(raw, dict) else raw:
            yield from words(value)


def below(path: str, key: str | int) -> str:
    """The path of a value inside a mapping or a list: ``graph[2].body``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def read(path: str | os.PathLike[str]) -> Map:
    """Reads one YAML file.

    Errors:
        SpecError: the file is missing, a folder, unreadable, empty, too large, binary, or not YAML.
    """
    file = os.fspath(path)

    def refuse(cause: str, hint: str | None = None) -> SpecError:
        return SpecError(Problem(cause, hint, mark=Mark(file, 1, 1)))

    if "\0" in file:
        raise refuse("this is no file name")
    try:
        place = Path(file)
        if place.is_dir():
            raise refuse("this is a folder, not a file", "name a YAML file in it")
        with place.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise refuse("there is no such file") from None
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise refuse(f"larger than {MAX_BYTES // 2**20} MiB", "a spec is a small text file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise refuse("not a text file (not UTF-8)", "a spec is YAML text") from None
    return parse(text, file)


def parse(text: str, file: str = "<text>") -> Map:
    """Parses YAML text whose top level is a mapping.

    Errors:
        SpecError: as `read`, with the place.
    """
    tree = _Builder(text, file).build()
    if isinstance(tree, Map):
        return tree
    what = "empty" if tree is None else "a list" if isinstance(tree, Seq) else "a single value"
    raise SpecError(Problem(f"the file is {what}, not a mapping", "start with archspec: 1", mark=Mark(file, 1, 1)))


class _Builder:
    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self.problems: list[Problem] = []

    def mark(self, event: Any) -> Mark:
        return Mark(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def refuse(self, cause: str, event: Any, hint: str | None = None) -> SpecError:
        return SpecError(Problem(cause, hint, mark=self.mark(event)))

    def build(self) -> Any:
        # One frame an open collection: the container, the pending key and its mark, and the node count before it.
        stack: list[tuple[Any, list[Any], int, str | None]] = []
        anchors: dict[str, tuple[Any, int]] = {}
        root: Any = None
        count = documents = 0
        try:
            for event in yaml.parse(self.text, Loader=_LOADER):
                name = type(event).__name__
                if name == "DocumentStartEvent":
                    documents += 1
                    if documents > 1:
                        raise self.refuse("a second document in one file", event, "one spec a file")
                    continue
                if name in ("StreamStartEvent", "StreamEndEvent", "DocumentEndEvent"):
                    continue
                anchor: str | None = getattr(event, "anchor", None)
                if name in ("MappingEndEvent", "SequenceEndEvent"):
                    container, _, before, anchor = stack.pop()
                    if anchor:
                        anchors[anchor] = (container, count - before)
                    continue
                mark, size = self.mark(event), 1
                if name == "AliasEvent":
                    if anchor not in anchors:
                        raise self.refuse(f"alias *{anchor} has no anchor before it", event)
                    value, size = anchors[anchor]
                elif name == "ScalarEvent":
                    value = self.scalar(event)
                    if anchor:
                        anchors[anchor] = (value, 1)
                else:
                    self.tag(event)
                    value = Map(mark=mark) if name == "MappingStartEvent" else Seq(mark=mark)
                count += size
                if count > MAX_NODES:
                    raise self.refuse(f"more than {MAX_NODES:,} values once aliases are expanded", event)
                if stack:
                    self.attach(stack[-1], value, mark, event, is_key=name == "ScalarEvent")
                else:
                    root = value
                if name in ("MappingStartEvent", "SequenceStartEvent"):
                    stack.append((value, [], count, anchor))
                    if len(stack) > MAX_DEPTH:
                        raise self.refuse(f"nested deeper than {MAX_DEPTH} levels", event)
        except yaml.MarkedYAMLError as error:
            place = error.problem_mark or error.context_mark
            last = max(1, self.text.count("\n") + 1)
            mark = Mark(self.file, min(place.line + 1, last), place.column + 1) if place else Mark(self.file, 1, 1)
            raise SpecError(Problem(f"not YAML: {error.problem or error.context}", None, mark=mark)) from None
        except yaml.YAMLError as error:
            cause = " ".join(str(error).split())
            raise SpecError(Problem(f"not YAML: {cause[:120]}", None, mark=Mark(self.file, 1, 1))) from None
        if self.problems:
            raise SpecError(*self.problems)
        return root

    def attach(
        self, frame: tuple[Any, list[Any], int, str | None], value: Any, mark: Mark, event: Any, *, is_key: bool
    ) -> None:
        container, pending, _, _ = frame
        if isinstance(container, Seq):
            if isinstance(value, (Map, Seq)) and not value.path:
                value.path = below(container.path, len(container))
            container.put(value, mark)
        elif not pending:
            if not is_key:
                raise self.refuse("a key must be a word", event)
            key = event.value
            if key in container:
                first = container.key_marks[key].line
                self.problems.append(Problem(f"key {key!r} stands twice", f"it is also on line {first}", mark=mark))
            pending.extend((key, mark))
        else:
            if isinstance(value, (Map, Seq)) and not value.path:
                value.path = below(container.path, pending[0])
            container.put(pending[0], value, pending[1], mark)
            pending.clear()

    def tag(self, event: Any) -> None:
        """Refuses what asks for anything but plain data, as ``!!python/name`` does."""
        if event.tag and event.tag not in _TAGS:
            written = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise self.refuse(f"tag {written} is not allowed", event, "a spec is plain data")

    def scalar(self, event: Any) -> Any:
        text: str = event.value
        self.tag(event)
        if event.style or event.tag in ("tag:yaml.org,2002:str", "!"):
            return text
        if text in _WORDS:
            return _WORDS[text]
        try:
            if _INT.fullmatch(text):
                return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            if _FLOAT.fullmatch(text):
                return float(text)
        except ValueError:
            raise self.refuse("a number with too many digits", event) from None
        return text
