"""The rules against torch's own meta kernels."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from search.cost import results
from search.cost.shapes import RULES, expected

aten = torch.ops.aten
DTYPES = (torch.float32, torch.bfloat16)
POINTWISE = (
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default, aten.eq.Tensor,
    aten.lt.Tensor, aten.pow.Tensor_Tensor, aten.logical_and.default, aten.atan2.default,
)  # fmt: skip
ALONE = (
    aten.silu.default, aten.gelu.default, aten.neg.default, aten.rsqrt.default, aten.exp.default, aten.clone.default,
    aten.sigmoid.default, aten.relu.default, aten.logical_not.default, aten.isnan.default,
)  # fmt: skip


def tensor(random: Random, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """A meta tensor; sometimes its elements lie in another order."""
    dtype = dtype or random.choice(DTYPES)
    made = torch.empty(shape, dtype=dtype, device="meta")
    if len(shape) > 1 and random.random() < 0.2:
        order = random.sample(range(len(shape)), len(shape))
        return torch.empty([shape[at] for at in order], dtype=dtype, device="meta").permute(
            [order.index(at) for at in range(len(shape))]
        )
    return made


def shape(random: Random, low: int = 1, high: int = 4) -> tuple[int, ...]:
    return tuple(random.choice((1, 2, 3, 5, 8)) for _ in range(random.randint(low, high)))


def broadcast(random: Random, whole: tuple[int, ...]) -> tuple[int, ...]:
    cut = whole[random.randint(0, len(whole)) :]
    return tuple(size if random.random() < 0.6 else 1 for size in cut)


def matrices(random: Random) -> tuple[int, int, int, torch.dtype]:
    return random.randint(1, 5), random.randint(1, 5), random.randint(1, 5), random.choice(DTYPES)


def norm(random: Random) -> tuple[Tensor, Tensor, list[int], torch.dtype]:
    whole, dtype = shape(random, 2), random.choice(DTYPES)
    inner = list(whole[-1:])
    return tensor(random, *whole, dtype=dtype), torch.empty(inner, dtype=dtype, device="meta"), inner, dtype


Args = tuple[Any, ...]


def _mm(random: Random) -> Args:
    n, k, m, dtype = matrices(random)
    return tensor(random, n, k, dtype=dtype), tensor(random, k, m, dtype=dtype)


def _addmm(random: Random) -> Args:
    a, b = _mm(random)
    bias = tensor(random, b.shape[1], dtype=a.dtype)
    return (bias if random.random() < 0.5 else tensor(random, a.shape[0], b.shape[1], dtype=a.dtype)), a, b


def _bmm(random: Random) -> Args:
    n, k, m, dtype = matrices(random)
    return tensor(random, 3, n, k, dtype=dtype), tensor(random, 3, k, m, dtype=dtype)


def _softmax(random: Random) -> Args:
    return tensor(random, *shape(random)), -1, False


def _softmax_backward(random: Random) -> Args:
    whole, dtype = shape(random), random.choice(DTYPES)
    return tensor(random, *whole, dtype=dtype), tensor(random, *whole, dtype=dtype), -1, dtype


def _reduction(random: Random) -> Args:
    whole = shape(random)
    dims = random.sample(range(-len(whole), 0), random.randint(1, len(whole)))
    return tensor(random, *whole), dims, random.random() < 0.5


def _cat(random: Random) -> Args:
    whole, dtype = shape(random), random.choice(DTYPES)
    dim = random.randrange(len(whole))
    parts = [tensor(random, *whole[:dim], random.randint(1, 4), *whole[dim + 1 :], dtype=dtype) for _ in range(3)]
    return parts, random.choice((dim, dim - len(whole)))


def _layer_norm(random: Random) -> Args:
    x, weight, inner, _ = norm(random)
    return x, inner, weight, weight, 1e-5


def _layer_norm_backward(random: Random) -> Args:
    x, weight, inner, dtype = norm(random)
    grad = tensor(random, *x.shape, dtype=dtype)
    _, mean, rstd = aten.native_layer_norm.default(x, inner, weight, weight, 1e-5)
    return grad, x, inner, mean, rstd, weight, weight, [random.random() < 0.7 for _ in range(3)]


def _nll_loss(random: Random) -> Args:
    x = tensor(random, *shape(random, 2, 2), dtype=torch.float32)
    return x, torch.empty(x.shape[0], dtype=torch.int64, device="meta"), None, random.randint(0, 2), -100


def _nll_loss_backward(random: Random) -> Args:
    x, target, weight, reduction, ignored = _nll_loss(random)
    grad = torch.empty(() if reduction else target.shape, device="meta")
    return grad, x, target, weight, reduction, ignored, torch.empty((), device="meta")


def _pair(random: Random) -> Args:
    whole = shape(random)
    pair = [tensor(random, *whole), tensor(random, *broadcast(random, whole))]
    return tuple(random.sample(pair, 2))


def _index(random: Random) -> Tensor:
    return torch.empty(shape(random, 1, 3), dtype=torch.int64, device="meta")


CASES: dict[Any, Callable[[Random], Args]] = {
    aten.mm.default: _mm,
    aten.addmm.default: _addmm,
    aten.bmm.default: _bmm,
    aten._to_copy.default: lambda random: (tensor(random, *shape(random)),),
    aten.floor_divide.default: lambda random: (tensor(random, *shape(random)), random.randint(1, 4)),
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
    aten.embedding.default: lambda random: (tensor(random, *shape(random, 2, 2)), _index(random)),
    aten.embedding_dense_backward.default: lambda random: (
        tensor(random, 4, random.randint(1, 4)), torch.empty(4, dtype=torch.int64, device="meta"), 9, -1, False
    ),
    aten.slice_backward.default: lambda random: (tensor(random, 3, 2), [7, 2], 0, 1, 4, 1),
    aten.select_backward.default: lambda random: (tensor(random, 3, 2), [3, random.randint(1, 5), 2], 1, 0),
    **dict.fromkeys(POINTWISE, _pair),
    **{func: lambda random: (tensor(random, *shape(random)),) for func in ALONE},
    aten.where.self: lambda random: [
        torch.empty(broadcast(random, whole := shape(random)), dtype=torch.bool, device="meta"),
        tensor(random, *whole),
        tensor(random, *broadcast(random, whole)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("func", CASES, ids=str)
def test_a_rule_says_what_the_kernel_makes(func: Any) -> None:
    random, ruled = Random(0), 0
    for _ in range(80):
        args = CASES[func](random)
        kwargs = {"dtype": random.choice(DTYPES)} if func is aten._to_copy.default else {}
        results.run(func, args, kwargs)  # the first time teaches
        rule = expected(func, args, kwargs)
        ruled += rule is not None and rule.made() is not None
        results._remembered.clear()
        assert _seen(results.run(func, args, kwargs)) == _seen(func(*args, **kwargs)), [
            (arg.shape, arg.stride()) if isinstance(arg, Tensor) else arg for arg in args
        ]
    assert ruled > 15


def test_every_rule_is_held_to_its_kernel() -> None:
    assert RULES.keys() <= CASES.keys()


def test_what_does_not_fit_is_the_kernel_s_to_refuse() -> None:
    a, b = torch.empty(2, 3, device="meta"), torch.empty(4, 3, device="meta")
    for func in (aten.mm.default, aten.add.Tensor):
        results.run(func, (a, torch.empty(3, 3, device="meta") if func is aten.mm.default else a), {})
        with pytest.raises(RuntimeError):
            results.run(func, (a, b), {})


def _seen(out: Any) -> Any:
    outs = [out] if isinstance(out, Tensor) else out
    return [None if one is None else (tuple(one.shape), one.stride(), one.dtype) for one in outs]
