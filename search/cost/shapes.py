"""The shapes of common operators' results, from those of their arguments.

torch's meta kernels take a tenth of a millisecond to say that a sum of two tensors is as large as they are. For
operators that a rule here covers, on tensors whose elements lie in the plain order, the kernel is asked once for each
combination of dtypes; that answer gives the dtypes of all later results, and must agree with the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
Shape = tuple[int, ...]
Shapes = list[Shape | None]
Made = tuple[Shape, Shape, torch.dtype]

_dtypes: dict[Hashable, list[torch.dtype | None] | None] = {}  # None: the kernel disagrees with the rule


class Expected:
    """What a rule says of one call.

    Attributes:
        shapes: of the results; None for a result that is not wanted.
    """

    def __init__(self, func: Any, shapes: Shapes, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self.shapes = shapes
        self.key = (func, tuple(map(_kind, args)), tuple(kwargs), tuple(map(_kind, kwargs.values())))

    def made(self) -> list[Made | None] | None:
        """The results, if their dtypes are known."""
        dtypes = _dtypes.get(self.key)
        if dtypes is None:
            return None
        return [
            None if shape is None or dtype is None else (shape, strides(shape), dtype)
            for shape, dtype in zip(self.shapes, dtypes, strict=True)
        ]

    def learn(self, made: list[Made | None]) -> None:
        """Takes the dtypes from what a kernel made."""
        if self.key not in _dtypes:
            places = [None if one is None else one[:2] for one in made]
            agreed = places == [None if shape is None else (shape, strides(shape)) for shape in self.shapes]
            _dtypes[self.key] = [None if one is None else one[2] for one in made] if agreed else None


def expected(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Expected | None:
    """What a rule says of a call; None if none covers it."""
    rule = _rules.get(func)
    if rule is None:
        rule = _rules[func] = _rule(func)
    if rule is _unruled or any(isinstance(value, Tensor) for value in kwargs.values()):
        return None
    shapes = rule(*args)
    return None if shapes is None else Expected(func, shapes, args, kwargs)


def strides(shape: Sequence[int]) -> Shape:
    """Those of the plain order."""
    found, size = [], 1
    for length in reversed(shape):
        found.append(size)
        size *= max(length, 1)
    return tuple(reversed(found))


def _plain(tensor: Tensor) -> bool:
    """Whether elements lie in the plain order, and no other order could be meant: sizes of 1 stand in front only."""
    shape = tensor.shape
    if 0 in shape or tensor.stride() != strides(shape):
        return False
    inner = False
    for size in shape:
        if size != 1:
            inner = True
        elif inner:
            return False
    return True


def _kind(value: Any) -> Any:
    """What of an argument decides the dtypes of results."""
    if isinstance(value, Tensor):
        return value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(map(_kind, value))
    return type(value) if type(value) in (int, float) else value


def _pointwise(*args: Any) -> Shapes | None:
    """The shape of one argument, which the others are broadcast to."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    if not tensors:
        return None
    full = max(tensors, key=Tensor.numel)
    shape = full.shape
    if not shape or not _plain(full):
        return None
    for tensor in tensors:
        mine = tensor.shape
        if mine == shape:
            if tensor.stride() != full.stride():
                return None
        elif not _fits(mine, shape) or tensor.stride() != strides(mine):
            return None
    return [tuple(shape)]


def _fits(shape: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether a shape is broadcast to another."""
    pairs = zip(reversed(shape), reversed(whole), strict=False)
    return 0 < len(shape) <= len(whole) and all(size in (1, of) for size, of in pairs)


def _mm(a: Tensor, b: Tensor) -> Shapes | None:
    return [(a.shape[0], b.shape[1])] if a.shape[1] == b.shape[0] else None


def _addmm(bias: Tensor, a: Tensor, b: Tensor) -> Shapes | None:
    return _mm(a, b) if bias.shape == b.shape[1:] else None


def _bmm(a: Tensor, b: Tensor) -> Shapes | None:
    return [(*a.shape[:2], b.shape[2])] if a.shape[0] == b.shape[0] and a.shape[2] == b.shape[1] else None


def _softmax(x: Tensor, *_: Any) -> Shapes | None:
    return [tuple(x.shape)] if x.shape and _plain(x) else None


def _softmax_backward(grad: Tensor, out: Tensor, *_: Any) -> Shapes | None:
    return _softmax(grad) if grad.shape == out.shape and grad.stride() == out.stride() else None


def _reduction(x: Tensor, dims: Sequence[int] | None, keep: bool = False) -> Shapes | None:
    if not dims or not x.shape or not _plain(x):
        return None
    gone = {dim % x.dim() for dim in dims}
    return [tuple(1 if at in gone else size for at, size in enumerate(x.shape) if keep or at not in gone)]


def _cat(parts: Sequence[Tensor], dim: int = 0) -> Shapes | None:
    if not all(part.shape and _plain(part) for part in parts):
        return None
    shape = list(parts[0].shape)
    dim %= len(shape)
    rest = {(*part.shape[:dim], *part.shape[dim + 1 :]) for part in parts}
    shape[dim] = sum(part.shape[dim] for part in parts if part.dim() == len(shape))
    return [tuple(shape)] if len(rest) == 1 else None


def _layer_norm(x: Tensor, inner: Sequence[int], *_: Any) -> Shapes | None:
    if not _plain(x):
        return None
    shape, outer = tuple(x.shape), x.dim() - len(inner)
    return [shape, *([shape[:outer] + (1,) * len(inner)] * 2)]


def _layer_norm_backward(
    grad: Tensor,
    x: Tensor,
    inner: Sequence[int],
    _mean: Any,
    _rstd: Any,
    weight: Any,
    bias: Any,
    wanted: Sequence[bool],
) -> Shapes | None:
    if not (_plain(x) and grad.shape == x.shape and grad.stride() == x.stride() and len(inner) < x.dim()):
        return None
    shapes = (tuple(x.shape), tuple(inner), tuple(inner))
    return [shape if want else None for shape, want in zip(shapes, wanted, strict=True)]


def _nll_loss(x: Tensor, target: Tensor, _weight: Any, reduction: int, *_: Any) -> Shapes | None:
    return [(), ()] if reduction and x.dim() == 2 and target.shape == x.shape[:1] else None


def _nll_loss_backward(_grad: Tensor, x: Tensor, *_: Any) -> Shapes | None:
    return _softmax(x)


def _embedding(table: Tensor, index: Tensor, *_: Any) -> Shapes | None:
    return [(*index.shape, table.shape[1])]


def _embedding_backward(grad: Tensor, _index: Tensor, count: int, *_: Any) -> Shapes | None:
    return [(count, grad.shape[-1])]


def _part_backward(_grad: Tensor, sizes: Sequence[int], *_: Any) -> Shapes | None:
    return [tuple(sizes)]


def _unruled(*_: Any) -> Shapes | None:
    return None


Rule = Callable[..., Shapes | None]
RULES: dict[Any, Rule] = {
    aten.mm.default: _mm,
    aten.addmm.default: _addmm,
    aten.bmm.default: _bmm,
    aten._to_copy.default: _pointwise,
    aten.floor_divide.default: _pointwise,
    aten._softmax.default: _softmax,
    aten._log_softmax.default: _softmax,
    aten._softmax_backward_data.default: _softmax_backward,
    aten._log_softmax_backward_data.default: _softmax_backward,
    aten.sum.dim_IntList: _reduction,
    aten.mean.dim: _reduction,
    aten.amax.default: _reduction,
    aten.cat.default: _cat,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten.nll_loss_forward.default: _nll_loss,
    aten.nll_loss_backward.default: _nll_loss_backward,
    aten.embedding.default: _embedding,
    aten.embedding_dense_backward.default: _embedding_backward,
    aten.slice_backward.default: _part_backward,
    aten.select_backward.default: _part_backward,
}
_rules: dict[Any, Rule] = {}


def _rule(func: Any) -> Rule:
    """The rule of an operator; one for all functional operators that torch tags as pointwise and that give a tensor."""
    returns = func._schema.returns
    if func in RULES or torch.Tag.pointwise not in func.tags or len(returns) != 1:
        return RULES.get(func, _unruled)
    plain = returns[0].alias_info is None and all(arg.alias_info is None for arg in func._schema.arguments)
    return _pointwise if plain else _unruled
