"""YAML with values left open: ``${…}`` is an expression over given names, and a few mappings decide what stands there.

| written | stands for |
|---|---|
| ``${expression}`` | its value, of any type; inside longer text, its text |
| ``{if: expression, then: …, else: …}`` | one of the two; nothing without ``else`` |
| ``{for: name, in: expression, do: …}`` | in a list: an item for each value; in a mapping: its entries |
| ``{refuse: field, because: text, try: text}`` | an error about that field, with a hint |

Keys may hold expressions as values do. Entries and items that come out as null are left out. Expressions are a part of
Python's: arithmetic, comparison, ``and``/``or``/``not``, ``a if b else c``, lists, comprehensions over lists, items and
attributes of mappings (null where there is none), and `FUNCTIONS`. Nothing else parses, so nothing else runs.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from archspec.errors import Refused, did_you_mean


def _power(a: Any, b: Any) -> Any:
    found = a**b
    if isinstance(found, complex):
        raise ValueError(f"{a} has no root")
    return found


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.Pow: _power, ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt,
    ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.In: lambda a, b: a in (b or ()),
    ast.NotIn: lambda a, b: a not in (b or ()), ast.Is: operator.is_, ast.IsNot: operator.is_not,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min, "max": max, "abs": abs, "round": round, "floor": math.floor, "ceil": math.ceil, "sqrt": math.sqrt,
    "log": math.log, "log2": math.log2, "len": len, "int": int, "float": float, "range": range, "list": list,
    "any": any, "all": all, "sum": sum, "zip": zip, "enumerate": enumerate, "join": lambda words: " ".join(words),
    "get": lambda mapping, key, default=None: (mapping or {}).get(key, default),
    "is_list": lambda value: isinstance(value, list), "is_text": lambda value: isinstance(value, str),
    "near": lambda word, names: did_you_mean(str(word), map(str, names)),
}  # fmt: skip
_LARGEST = 100_000  # items of a list that an expression makes
_OPEN = re.compile(r"\$\{([^{}]*)\}")


class TemplateError(Exception):
    """A template has no value: that is a fault of its file, or of what it is given.

    Args:
        reason: in a few words, without the template.
    """

    def __init__(self, text: str, reason: str | None = None) -> None:
        super().__init__(text)
        self.reason = reason or text


class Template:
    """Fills templates.

    Args:
        names: what expressions may read.
        functions: further functions that they may call.
    """

    def __init__(self, names: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]] | None = None) -> None:
        self.names, self.functions = dict(names), FUNCTIONS | dict(functions or {})

    def fill(self, raw: Any) -> Any:
        """A template with its expressions evaluated.

        Errors:
            Refused: the template refuses what it was given.
            TemplateError: the template itself is wrong.
        """
        if isinstance(raw, str):
            return self._text(raw)
        if isinstance(raw, list):
            return list(self._items(raw))
        if not isinstance(raw, dict):
            return raw
        if "if" in raw:
            return self.fill(raw.get("then" if self.evaluate(str(raw["if"])) else "else"))
        if "refuse" in raw:
            field, because = self._text(str(raw["refuse"])), self._text(str(raw["because"]))
            raise Refused(str(field), str(because), self.fill(raw.get("try")))
        filled: dict[str, Any] = {}
        for key, value in raw.items():
            if isinstance(value, dict) and "for" in value:
                for entries in self._items([value]):
                    filled |= entries
            else:
                filled[self._text(key) if "${" in key else key] = self.fill(value)
        return {key: value for key, value in filled.items() if value is not None}

    def _items(self, raw: list[Any]) -> Iterator[Any]:
        for item in raw:
            if isinstance(item, dict) and "for" in item:
                values = self.evaluate(str(item["in"]))
                if not isinstance(values, Iterable):
                    raise TemplateError(f"{item['in']!r} is {values!r}, no list", f"{values!r} is no list")
                for value in values:
                    inner = Template(self.names | {item["for"]: value}, self.functions)
                    yield from inner._items([item["do"]])
                continue
            value = self.fill(item)
            if value is not None:
                yield value

    def _text(self, raw: str) -> Any:
        whole = _OPEN.fullmatch(raw)
        if whole:
            return self.evaluate(whole[1])
        text = _OPEN.sub(lambda found: str(self.evaluate(found[1])), raw)
        if "${" in text:
            raise TemplateError(f"{raw!r} is never closed, or has braces inside")
        return text

    def evaluate(self, text: str) -> Any:
        """The value of an expression."""
        try:
            return self._value(parsed(text), self.names)
        except (ArithmeticError, AttributeError, TypeError, ValueError, LookupError, RecursionError) as error:
            if isinstance(error, Refused):
                raise
            raise TemplateError(f"{text!r}: {error}", str(error)) from None

    def _value(self, node: ast.expr, names: Mapping[str, Any]) -> Any:
        def value(part: ast.expr) -> Any:
            return self._value(part, names)

        match node:
            case ast.Constant(value=constant):
                return constant
            case ast.Name(id=name):
                if name not in names:
                    raise TemplateError(f"nothing is called {name!r}")
                return names[name]
            case ast.Attribute(value=whole, attr=key):
                mapping = value(whole)
                return mapping.get(key) if isinstance(mapping, Mapping) else None
            case ast.Subscript(value=whole, slice=ast.Slice(lower=low, upper=high, step=step)):
                return value(whole)[slice(*(part and value(part) for part in (low, high, step)))]
            case ast.Subscript(value=whole, slice=index):
                found = value(whole)
                return found.get(value(index)) if isinstance(found, Mapping) else found[value(index)]
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [value(part) for part in parts]
            case ast.BinOp(left=left, op=op, right=right):
                a, b = value(left), value(right)
                if isinstance(op, ast.Div):
                    return a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else a / b
                if isinstance(op, ast.Mult) and isinstance(a, list) and not 0 <= len(a) * int(b) <= _LARGEST:
                    raise TemplateError(f"a list of {len(a) * int(b):,} items")
                return _OPERATORS[type(op)](a, b)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not value(operand)
            case ast.BoolOp(op=op, values=parts):
                result = None
                for part in parts:
                    result = value(part)
                    if bool(result) != isinstance(op, ast.And):
                        break
                return result
            case ast.Compare(left=left, ops=ops, comparators=rights):
                a = value(left)
                for op_, right in zip(ops, rights, strict=True):
                    b = value(right)
                    if not _OPERATORS[type(op_)](a, b):
                        return False
                    a = b
                return True
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return value(body if value(test) else orelse)
            case ast.ListComp(elt=item, generators=[ast.comprehension(target=ast.Name(id=name), iter=source, ifs=ifs)]):
                given = [names | {name: one} for one in _bounded(value(source))]  # type: ignore[operator]
                kept = [one for one in given if all(self._value(test, one) for test in ifs)]
                return [self._value(item, one) for one in kept]
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in self.functions:
                return self.functions[name](*(value(arg) for arg in args))
        raise TemplateError(f"{ast.unparse(node)!r} is not allowed in an expression")


def _bounded(values: Any) -> list[Any]:
    found = []
    for value in values:
        found.append(value)
        if len(found) > _LARGEST:
            raise TemplateError("a list that is too long")
    return found


@lru_cache(maxsize=4096)
def parsed(text: str) -> ast.expr:
    try:
        return ast.parse(" ".join(text.split()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise TemplateError(f"{text!r} is no expression") from None


def reads(raw: Any) -> frozenset[str]:
    """Names that a template's expressions read; of what is called ``given``, the items as well."""
    found: set[str] = set()
    if isinstance(raw, str):
        for text in _OPEN.findall(raw):
            found |= _names(text)
    elif isinstance(raw, (list, tuple)):
        found = found.union(*map(reads, raw))
    elif isinstance(raw, dict):
        for key in ("if", "in"):
            if isinstance(raw.get(key), str):
                found |= _names(raw[key])
        found = found.union(*(reads(part) for entry in raw.items() for part in entry))
        found -= {raw.get("for")}
    return frozenset(found)


def _names(text: str) -> set[str]:
    tree = parsed(text)
    bound = {node.target.id for node in ast.walk(tree)
             if isinstance(node, ast.comprehension) and isinstance(node.target, ast.Name)}  # fmt: skip
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    items = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "given"}
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called}
    return named - bound | items
