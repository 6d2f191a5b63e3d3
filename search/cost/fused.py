"""Operators that devices run as one kernel and the meta device does not run, or not as one.

`Fused` prices ``scaled_dot_product_attention`` as the fused kernel that it is on devices; on the meta device it would
be two products with all scores in memory between them. These it is where a device has no such kernel: for a mask that
needs a gradient; on a CPU also with dropout, and for values of another width than keys. ``rms_norm`` forward is priced
as one operator: a GPU has a kernel for it, a CPU runs half a dozen. `grouped_mm_result` stands in for
``torch._grouped_mm``, whose meta kernel refuses float32 where CPUs compute it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from search.cost import operators
from search.cost.operators import Pricing, Traffic

Record = Callable[[Pricing, int, Sequence[Tensor], Sequence[Tensor], tuple[int, ...]], None]

_ATTENTION, _ATTENTION_BACKWARD = (
    Pricing(f"aten.scaled_dot_product_attention{half}", Traffic.ALL, operators.attention, False, True, "attention")
    for half in ("", "_backward")
)
_NORM = Pricing("aten.rms_norm", Traffic.ALL, None, False, True)


class Fused(TorchFunctionMode):
    """Inside this mode, attention and norms on the meta device are one operator each that is handed to `record`.

    Attributes:
        processor: cpu, gpu or tpu.
        inside: whether what is executed belongs to an operator that is handed over as a whole.
    """

    def __init__(self, record: Record, processor: str) -> None:
        super().__init__()
        self.record, self.processor = record, processor
        self.inside = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            q, k, v, mask, dropout, causal = _arguments(*args, **kwargs)
            apart = mask is not None and mask.requires_grad
            apart |= self.processor == "cpu" and (dropout > 0 or q.shape[-1] != v.shape[-1])
            if q.is_meta and q.dim() == 4 and not apart:
                save = torch.is_grad_enabled()
                return _Attention.apply(self.record, save, q, k, v, mask, causal)  # type: ignore[no-untyped-call]
        if func is F.rms_norm and args[0].is_meta:
            self.inside = True
            try:
                out = func(*args, **kwargs)
            finally:
                self.inside = False
            given = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor)]
            self.record(_NORM, 0, given, [out], ())
            return out
        return func(*args, **kwargs)


def _arguments(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, **_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, float, bool]:  # fmt: skip
    return query, key, value, attn_mask, dropout_p, is_causal


class _Attention(torch.autograd.Function):
    """[B, H, S, D], [B, G, T, D], [B, G, T, E] -> [B, H, S, E]; shapes only."""

    @staticmethod
    def forward(
        ctx: Any, record: Record, save: bool, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool
    ) -> Tensor:
        out = _heads_inside(q.shape[:-1] + v.shape[-1:], q)
        masks = [] if mask is None else [mask]
        batch, heads, length, width = q.shape
        shape = (batch * heads, length, k.shape[2], width, int(causal))
        record(_ATTENTION, operators.attention(q.shape, k.shape, v.shape), [q, k, v, *masks], [out], shape)
        if save and any(ctx.needs_input_grad):
            log_sums = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
            ctx.save_for_backward(q, k, v, *masks, out, log_sums)
            ctx.record, ctx.shape = record, shape
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        saved = ctx.saved_tensors
        q, k, v = saved[:3]
        for_q, for_k, for_v = ctx.needs_input_grad[2:5]
        batch, heads, length, width = q.shape
        product = 2 * batch * heads * length * k.shape[2]
        # gradient of v; of the probabilities, which q and k share; of q; of k
        count = product * (v.shape[3] * (for_v + (for_q or for_k)) + width * (for_q + for_k))
        wanted = [_heads_inside(t.shape, t) if want else None for t, want in ((q, for_q), (k, for_k), (v, for_v))]
        made = [t for t in wanted if t is not None]
        ctx.record(_ATTENTION_BACKWARD, count, [*saved, *grads], made, ctx.shape)
        return None, None, *wanted, None, None


def _heads_inside(shape: Sequence[int], like: Tensor) -> Tensor:
    """Memory in the order [B, S, H, D], as fused kernels lay out their results: merging heads is then a view."""
    batch, heads, length, width = shape
    return torch.empty((batch, length, heads, width), dtype=like.dtype, device=like.device).transpose(1, 2)


def grouped_mm_result(a: Tensor, b: Tensor, offs: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """The shape of ``torch._grouped_mm``: [M, K] by [G, K, N] or [K, N], [G, M, K] by [G, K, N] or [K, N]."""
    groups: tuple[int, ...] = ()
    if a.dim() == b.dim():
        assert offs is not None or a.dim() == 3
        groups = (a.shape[0] if offs is None else offs.shape[0],)
    return torch.empty((*groups, a.shape[-2], b.shape[-1]), dtype=a.dtype, device=a.device)
