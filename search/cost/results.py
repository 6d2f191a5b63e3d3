"""What the meta device's kernels gave back, remembered.

Many of torch's meta kernels are Python references that take a tenth of a millisecond to say which shape comes out. The
same operator on the same shapes, strides and dtypes is asked once a process; afterwards its results are made outright.
Common operators are seldom asked at all (`search.cost.shapes`).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from search.cost.shapes import Made, expected

_CHANGED = 0  # the result is the first argument, changed in place
_LARGEST = 100_000  # entries; a search sees some thousands

_remembered: dict[Hashable, Any] = {}


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """``func(*args, **kwargs)`` for a functional or in-place operator that is no view and depends on shapes only."""
    try:
        key = (func, tuple(map(_signature, args)), tuple(map(_signature, kwargs.values())), tuple(kwargs))
        known = _remembered.get(key)
    except (_ElsewhereError, TypeError):  # a tensor on another device, an argument that is no plain value
        return func(*args, **kwargs)
    if known is not None:
        return _again(known, args)
    rule = expected(func, args, kwargs)
    made = rule.made() if rule is not None else None
    if made is not None:
        recipe = made if len(made) > 1 else made[0]
        out = _again(recipe, args)
    else:
        out = func(*args, **kwargs)
        recipe = _recipe(out, args)
        if rule is not None and recipe is not None and recipe != _CHANGED:
            rule.learn(recipe if isinstance(recipe, list) else [recipe])
    if recipe is not None:
        if len(_remembered) >= _LARGEST:
            _remembered.clear()
        _remembered[key] = recipe
    return out


class _ElsewhereError(Exception):
    pass


def _signature(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        if not value.is_meta:
            raise _ElsewhereError
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(map(_signature, value))
    return type(value), value


def _recipe(out: Any, args: Any) -> Any:
    if isinstance(out, Tensor):
        if args and out is args[0]:
            return _CHANGED
        return (tuple(out.shape), out.stride(), out.dtype) if _fresh([out]) else None
    if isinstance(out, tuple) and all(item is None or isinstance(item, Tensor) for item in out):
        made = [item for item in out if item is not None]
        if _fresh(made) and not any(item is arg for item in made for arg in args):
            return [None if item is None else (tuple(item.shape), item.stride(), item.dtype) for item in out]
    return None


def _fresh(made: list[Tensor]) -> bool:
    storages = {item.untyped_storage()._cdata for item in made}
    return len(storages) == len(made) and all(item.is_meta and item.storage_offset() == 0 for item in made)


def _again(recipe: Any, args: Any) -> Any:
    if recipe == _CHANGED:
        return args[0]
    if isinstance(recipe, list):
        return tuple(None if made is None else _empty(made) for made in recipe)
    return _empty(recipe)


def _empty(made: Made) -> Tensor:
    shape, stride, dtype = made
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
