"""Softmax attention of ``[batch, heads, tokens, width]`` in one kernel, and the layouts and addends that it takes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, scale: float, causal: bool = False,
    rate: float = 0.0,
) -> Tensor:  # fmt: skip
    """``softmax(q k' * scale) v``; narrower values get features of zeros, since fast kernels take one width alone."""
    width, missing = v.shape[-1], q.shape[-1] - v.shape[-1]
    y = F.scaled_dot_product_attention(
        q, k, F.pad(v, (0, missing)) if missing > 0 else v, attn_mask=mask, dropout_p=rate, is_causal=causal,
        scale=scale, enable_gqa=k.shape[1] != q.shape[1],
    )  # fmt: skip
    return y[..., :width] if missing > 0 else y


def blocks(x: Tensor, size: int) -> Tensor:
    """``[batch, heads, tokens, width]`` as ``[batch, blocks, heads, size, width]``, zeros after the last token."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % size)).unflatten(2, (-1, size)).transpose(1, 2)


def joined(mask: Tensor | None, bias: Tensor | None, q: Tensor) -> Tensor | None:
    """Mask and bias as one addend of the scores."""
    if bias is None:
        return mask
    bias = bias.to(q.dtype)
    return bias if mask is None else bias.masked_fill(~mask, float("-inf"))
