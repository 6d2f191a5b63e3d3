"""What one aten operator costs: its FLOPs, the bytes it moves, and whether this is all there is to it.

FLOPs follow `torch.utils.flop_counter` (one multiply-add is 2 FLOPs; pointwise work, reductions and copies are none),
with `FORMULAS` for what its registry lacks. Bytes are those that cross an operator's edge: every tensor it reads and
every tensor it writes, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from math import log2, prod
from typing import Any

import torch
from torch import Tensor
from torch.utils import flop_counter

from search.cost.block import Work

aten = torch.ops.aten
Shape = Sequence[int]
Formula = Callable[..., int]


def _mv(a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(a)


def _addmv(_self: Shape, a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(a)


def _mm(a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    return 2 * a[0] * a[1] * b[1]


def _addmm(_self: Shape, a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    return _mm(a, b)


def _addbmm(_self: Shape, a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(a) * b[2]


def grouped_mm(a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    """FLOPs of `torch._grouped_mm`: each row meets the matrix of its own group only."""
    batches = a[0] if len(a) == len(b) == 3 else 1
    return 2 * batches * a[-2] * a[-1] * b[-1]


def met(groups: int, rows: int) -> float:
    """How many of some matrices are met if each row goes to one of them at random: G (1 - (1 - 1/G)^rows)."""
    return max(1.0, groups * (1 - (1 - 1 / groups) ** rows))


def attention(q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    """FLOPs of dense attention, the full square: scores of [B, H, S, D] by [B, G, T, D], then values [B, G, T, E]."""
    batch, heads, length, width = q
    return 2 * batch * heads * length * k[-2] * (width + v[-1])


def _attention_backward(_grad: Shape, q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    return 2 * attention(q, k, v)  # four products; what a kernel recomputes is its own affair, as on the meta device


def _convolution_backward(
    grad: Shape, x: Shape, weight: Shape, _bias: Any, _stride: Any, _padding: Any, _dilation: Any,
    transposed: bool, _output_padding: Any, _groups: int, output_mask: Sequence[bool], **_: Any,
) -> int:  # fmt: skip
    """Each wanted gradient costs what the forward does; the registry's formula forgets the groups of the weight's."""
    places = x if transposed else grad
    return 2 * places[0] * prod(places[2:]) * prod(weight) * (bool(output_mask[0]) + bool(output_mask[1]))


def _fft(x: Shape, dims: Sequence[int], *_: Any, **__: Any) -> int:
    """FLOPs of a complex fast Fourier transform of length n along each axis: 5 n log2 n."""
    return int(sum(5 * prod(x) * log2(x[dim]) for dim in dims))


def _real_fft(x: Shape, dims: Sequence[int], *rest: Any, **named: Any) -> int:
    return _fft(x, dims) // 2


def _real_fft_out(x: Shape, dims: Sequence[int], *rest: Any, out_shape: Shape, **named: Any) -> int:
    return _fft(out_shape, dims) // 2


def _solve_triangular(a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    """FLOPs of the solution of triangular systems [.., N, N] for [.., N, K]: half of the product of these shapes."""
    return int(prod(b) * a[-1])


FORMULAS: dict[Any, Formula] = {
    aten.mv: _mv,
    aten.dot: _mv,
    aten.vdot: _mv,
    aten.addmv: _addmv,
    aten._int_mm: _mm,
    aten._addmm_activation: _addmm,
    aten.addbmm: _addbmm,
    aten._grouped_mm: grouped_mm,
    aten._scaled_dot_product_flash_attention_for_cpu: attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten.convolution_backward: _convolution_backward,
    aten._fft_c2c: _fft,
    aten._fft_r2c: _real_fft,
    aten._fft_c2r: _real_fft_out,
    aten.linalg_solve_triangular: _solve_triangular,
}
"""Formulas of shapes that the registry lacks or has wrong, as `FlopCounterMode(custom_mapping=…)` takes them."""

# Operators whose time is their traffic. What stands neither here nor in a formula, and is not tagged by torch as
# pointwise or a reduction, is reported as unpriced.
_TRAFFIC = frozenset(
    """_adaptive_avg_pool2d _adaptive_avg_pool2d_backward _foreach_add _foreach_mul _fused_rms_norm_backward
    _index_put_impl_ _log_softmax _log_softmax_backward_data _native_batch_norm_legit
    _native_batch_norm_legit_no_training _safe_softmax _softmax _softmax_backward_data _to_copy _unique2
    _unsafe_index _unsafe_index_put _unsafe_masked_index _unsafe_masked_index_put_accumulate
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa adaptive_max_pool2d adaptive_max_pool2d_backward all any
    arange as_strided_scatter avg_pool1d avg_pool2d avg_pool2d_backward avg_pool3d avg_pool3d_backward
    bernoulli bernoulli_ binary_cross_entropy binary_cross_entropy_backward bincount bucketize cat
    channel_shuffle col2im complex constant_pad_nd copy_ cummax cummin cumprod cumsum diag_embed
    diagonal_backward diagonal_scatter elu_backward embedding embedding_dense_backward exponential_ eye
    fill_ flip floor_divide full full_like gather glu glu_backward grid_sampler_2d grid_sampler_2d_backward
    histc huber_loss huber_loss_backward im2col index index_add index_add_ index_copy index_copy_ index_fill
    index_fill_ index_put index_put_ index_select kthvalue linspace log_sigmoid_backward log_sigmoid_forward
    logcumsumexp masked_fill masked_fill_ masked_scatter masked_select max_pool2d_with_indices
    max_pool2d_with_indices_backward max_pool3d_with_indices max_pool3d_with_indices_backward mse_loss
    mse_loss_backward multinomial native_batch_norm native_batch_norm_backward native_dropout
    native_group_norm native_group_norm_backward native_layer_norm native_layer_norm_backward new_full
    new_ones new_zeros nll_loss2d_backward nll_loss2d_forward nll_loss_backward nll_loss_forward nonzero
    normal_ ones ones_like pixel_shuffle pixel_unshuffle rand rand_like randint randn randn_like randperm
    reflection_pad1d reflection_pad2d repeat repeat_interleave replication_pad1d replication_pad2d
    replication_pad3d roll scalar_tensor scatter scatter_ scatter_add scatter_add_ scatter_reduce
    scatter_reduce_ searchsorted select_backward select_scatter slice_backward slice_scatter smooth_l1_loss
    smooth_l1_loss_backward softplus_backward sort split_with_sizes_copy stack sum topk trace tril tril_
    triu triu_ unfold_backward uniform_ unique_consecutive upsample_bicubic2d upsample_bicubic2d_backward
    upsample_bilinear2d upsample_bilinear2d_backward upsample_nearest1d upsample_nearest2d
    upsample_nearest2d_backward where zero_ zeros zeros_like""".split()
)
_GATHERS = frozenset("embedding index index_select gather _unsafe_index _unsafe_masked_index masked_select".split())
_SCATTERS = frozenset(
    "index_put_ _index_put_impl_ index_add_ index_copy_ index_fill_ scatter_ scatter_add_ scatter_reduce_".split()
)
_ROUTED = frozenset(["_grouped_mm"])
_OVERWRITES = frozenset("copy_ fill_ zero_ bernoulli_ uniform_ normal_ exponential_".split())
_VIEWS = frozenset("_unsafe_view lift_fresh squeeze_ unsqueeze_".split())  # beside those whose schema says so
_SILENT = frozenset(  # makes room without writing, or asks about a tensor
    """_local_scalar_dense item is_same_size sym_size sym_stride sym_numel sym_storage_offset
    size stride numel dim is_contiguous storage_offset empty empty_like empty_strided new_empty new_empty_strided
    _assert_async _assert_scalar _has_compatible_shallow_copy_type""".split()
)


_PRODUCTS = {  # where an operator's two matrices stand among its arguments
    "mm": 0, "bmm": 0, "_int_mm": 0, "_grouped_mm": 0, "mv": 0, "dot": 0, "vdot": 0,
    "addmm": 1, "baddbmm": 1, "addbmm": 1, "addmv": 1, "_addmm_activation": 1,
}  # fmt: skip
_CONVOLUTIONS = {"convolution": 0, "convolution_backward": 1}  # where its input and weight stand


class Traffic(Enum):
    """How an operator's bytes follow from its tensors."""

    VIEW = "none, and nothing is made: another view of the same storage"
    NONE = "none: an allocation without contents, or a question"
    ALL = "all that goes in, all that comes out"
    GATHER = "of its first tensor as much as comes out"
    SCATTER = "of its first tensor as much as its largest other one"
    OVERWRITE = "all but its first tensor, which is only written"
    ROUTED = "of its matrices those that some row is expected to meet, were each row sent to any of them alike"


@dataclass(frozen=True, slots=True)
class Pricing:
    """How an operator is priced: its name, its formula of shapes or raw arguments, its traffic, its kind of kernel."""

    name: str
    traffic: Traffic
    formula: Formula | None
    raw: bool
    known: bool
    work: Work = "traffic"

    def reads(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[int]:
        """Bytes read of each input."""
        sizes = [extent(tensor) for tensor in inputs]
        if self.traffic is Traffic.OVERWRITE:
            sizes[0] = 0
        elif self.traffic is Traffic.GATHER:
            sizes[0] = min(sizes[0], sum(map(extent, outputs)))
        elif self.traffic is Traffic.SCATTER:
            sizes[0] = min(sizes[0], max(sizes[1:], default=0))
        elif self.traffic is Traffic.ROUTED:
            a, b = inputs[:2]
            if (a.dim(), b.dim()) in ((2, 3), (3, 2)):
                at, rows = (1, a.shape[0]) if b.dim() == 3 else (0, b.shape[1])
                groups = inputs[at].shape[0]
                sizes[at] = round(sizes[at] * met(groups, rows) / groups)
        return sizes

    def writes(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
        """Bytes written."""
        if self.traffic is Traffic.SCATTER:
            return self.reads(inputs, outputs)[0]
        return sum(map(extent, outputs))

    def flops(self, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
        if self.formula is None:
            return 0
        if self.raw:
            return int(self.formula(*args, **kwargs, out_val=out))
        shapes = {key: _shape(value) for key, value in kwargs.items()}
        return int(self.formula(*map(_shape, args), **shapes, out_shape=_shape(out)))

    def shape(self, args: Sequence[Any], out: Any) -> tuple[int, ...]:
        """The shape of a product or convolution, as `search.cost.block.Operator` has it."""
        if self.work == "product":
            at = _PRODUCTS[self.name.rpartition(".")[2]]
            return _product(args[at].shape, args[at + 1].shape)
        if self.work == "convolution":
            at = _CONVOLUTIONS[self.name.rpartition(".")[2]]
            backward = at == 1
            x, weight, groups = args[at].shape, args[at + 1].shape, args[9 if backward else 8]
            transposed = args[7 if backward else 6]
            places = x if transposed else args[0].shape if backward else out.shape
            inner = prod(weight[1:])
            return groups, places[0] * prod(places[2:]), inner, weight[0] // groups
        return ()


def _product(a: Shape, b: Shape) -> tuple[int, ...]:
    if len(b) == 1:  # a vector: one row
        return (1, 1, a[-1], a[0] if len(a) == 2 else 1)
    if len(a) == len(b) == 3:
        return (a[0], a[1], a[2], b[2])
    groups = b[0] if len(b) == 3 else a[0] if len(a) == 3 else 1
    rows = a[0] if len(a) == 2 else a[1]
    return (groups, -(-rows // groups) if len(b) == 3 else rows, a[-1], b[-1])  # on average as many rows a group


_PRICINGS: dict[Any, Pricing] = {}


def pricing(operator: Any) -> Pricing:
    """The pricing of an aten overload such as ``torch.ops.aten.mm.default``."""
    found = _PRICINGS.get(operator)
    if found is None:
        found = _PRICINGS[operator] = _pricing(operator)
    return found


def _pricing(operator: Any) -> Pricing:
    packet = operator._overloadpacket
    name: str = operator._schema.name
    short = name.removeprefix("aten::")
    formula = FORMULAS.get(packet)
    raw = False
    if formula is None and packet in flop_counter.flop_registry:
        registered = flop_counter.flop_registry[packet]
        formula = getattr(registered, "__wrapped__", registered)  # without the wrapper's walk over nested arguments
        raw = formula is registered
    aliases = [out.alias_info for out in operator._schema.returns if out.alias_info is not None]
    if short in _VIEWS or (aliases and not any(alias.is_write for alias in aliases)):
        traffic = Traffic.VIEW
    elif short in _SILENT:
        traffic = Traffic.NONE
    elif short in _OVERWRITES:
        traffic = Traffic.OVERWRITE
    elif short in _SCATTERS:
        traffic = Traffic.SCATTER
    elif short in _ROUTED:
        traffic = Traffic.ROUTED
    else:
        traffic = Traffic.GATHER if short in _GATHERS else Traffic.ALL
    known = (
        formula is not None
        or traffic in (Traffic.VIEW, Traffic.NONE)
        or short in _TRAFFIC
        or torch.Tag.pointwise in operator.tags
        or torch.Tag.reduction in operator.tags
    )
    works: dict[str, Work] = {**dict.fromkeys(_PRODUCTS, "product"), **dict.fromkeys(_CONVOLUTIONS, "convolution")}
    work = "view" if traffic is Traffic.VIEW else works.get(short, "traffic")
    return Pricing(name.replace("::", "."), traffic, formula, raw, known, work)


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape
    if isinstance(value, (tuple, list)):
        return [_shape(item) for item in value]
    return value


def tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments or results, and those in their lists and dictionaries."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors(value)
        elif isinstance(value, dict):
            yield from tensors(value.values())


def extent(tensor: Tensor) -> int:
    """Bytes that a tensor's elements lie in: an expanded tensor is no larger than its storage."""
    size = tensor.numel() * tensor.element_size()
    return size if tensor.is_contiguous() else min(size, tensor.untyped_storage().nbytes())


def scattered(involved: Iterable[Tensor]) -> bool:
    """Whether the largest of some tensors do not all lie in memory alike, each in one piece."""
    most, first = 1, None
    for tensor in involved:
        count = tensor.numel()
        if count > most:
            most, first = count, tensor.stride()
            if not (tensor.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(tensor)):
                first = ()
        elif count == most and first is not None and tensor.stride() != first:
            first = ()
    return first == ()
