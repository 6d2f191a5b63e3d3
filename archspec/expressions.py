"""Arithmetic in a spec: ``8 * width / 3``, ``width_in % heads == 0``, ``min(4, index + 1)``.

A restricted evaluator over Python's expression syntax: numbers, names, arithmetic, comparison, ``and``/``or``/``not``,
``a if b else c`` and a few functions. Nothing else parses, so nothing else runs.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

Number = int | float | bool


class ExpressionError(ValueError):
    """The text is no expression, or has no value; ``unknown`` names the name that nobody defined."""

    def __init__(self, cause: str, unknown: str | None = None) -> None:
        super().__init__(cause)
        self.unknown = unknown


_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "round": round,
    "floor": math.floor,
    "ceil": math.ceil,
    "sqrt": math.sqrt,
    "log": math.log,
    "log2": math.log2,
}
_LARGEST = 2**63


@lru_cache(maxsize=4096)
def _parse(text: str) -> ast.expr:
    if len(text) > 500:
        raise ExpressionError("an expression longer than 500 characters")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ExpressionError(f"{text!r} is no number and no expression") from None


@lru_cache(maxsize=4096)
def names(text: str) -> frozenset[str]:
    """The names that an expression reads; empty for text that is no expression."""
    try:
        tree = _parse(text)
    except ExpressionError:
        return frozenset()
    return frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)) - FUNCTIONS.keys()


def fault(text: str) -> str | None:
    """Why a text is no expression, or None."""
    try:
        _parse(text)
    except ExpressionError as error:
        return str(error)
    return None


def evaluate(text: str, scope: Mapping[str, Number]) -> Number:
    """The value of an expression; division that comes out even gives a whole number.

    Errors:
        ExpressionError: no expression, an unknown name, a division by zero, a value beyond 2**63.
    """
    try:
        value = _value(_parse(text), scope)
    except ZeroDivisionError:
        raise ExpressionError(f"{text!r} divides by zero") from None
    except (ArithmeticError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, ExpressionError):
            raise
        raise ExpressionError(f"{text!r} has no value") from None
    if not isinstance(value, (int, float)):
        raise ExpressionError(f"{text!r} is no number")
    if isinstance(value, int) and abs(value) >= _LARGEST:
        raise ExpressionError(f"{text!r} is too large")
    return value


def _value(node: ast.expr, scope: Mapping[str, Number]) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return value
        case ast.Name(id=name):
            if name not in scope:
                raise ExpressionError(f"nothing here is called {name!r}", unknown=name)
            return scope[name]
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _value(left, scope), _value(right, scope)
            if isinstance(op, ast.Div):
                return a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else a / b
            if isinstance(op, ast.Pow):
                if abs(b) > 64 or abs(a) > 2**32:
                    raise ExpressionError("a power that is too large")
                return a**b
            if type(op) in _BINARY:
                return _BINARY[type(op)](a, b)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, scope)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, scope)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, scope)
        case ast.BoolOp(op=op, values=parts):
            if isinstance(op, ast.And):
                return all(_value(part, scope) for part in parts)
            return any(_value(part, scope) for part in parts)
        case ast.Compare(left=left, ops=ops, comparators=rights):
            a = _value(left, scope)
            for op_, right in zip(ops, rights, strict=True):
                b = _value(right, scope)
                if type(op_) not in _COMPARE:
                    break
                if not _COMPARE[type(op_)](a, b):
                    return False
                a = b
            else:
                return True
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, scope) else orelse, scope)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*(_value(arg, scope) for arg in args))
    raise ExpressionError(f"{ast.unparse(node)!r} is not allowed in an expression")
