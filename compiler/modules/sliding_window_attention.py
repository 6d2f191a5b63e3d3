"""Sliding-window attention (schema in archspec.kinds.sliding_window_attention)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kinds import sliding_window_attention as kinds
from compiler.build import Make, project
from compiler.modules.heads import Heads, addend, fitting, pairs
from compiler.modules.route import gather
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.SlidingWindowAttention)
class SlidingWindowAttention(Heads):
    """Queries, keys and values of all tokens; those of the global attention, its queries of global tokens alone."""

    def __init__(self, spec: kinds.SlidingWindowAttention, make: Make) -> None:
        super().__init__(spec, make)
        self.label, self.separate = spec.label, spec.separate and spec.label is not None
        self.global_kv = None
        if self.separate:
            self.global_query = make.linear("global_query")
            if make.plain("global_key", "global_value"):
                self.global_kv = make.fused("global_key", "global_value")
            else:
                self.global_key, self.global_value = make.linear("global_key"), make.linear("global_value")
        self.choose = Globals(spec.limit) if spec.label is not None else None
        self.attend = WindowAttend(spec, self.head_width)
        self.read = GlobalAttend(spec, self.head_width) if spec.label is not None else None

    def forward(self, x: Tokens) -> Tensor:
        q, k, v = self.queries_keys_values(x)
        if self.choose is None or self.read is None or self.label is None:
            return project(self.out, self.attend(q, k, v, x.valid, None, None), x)
        chosen = self.choose(x.features, x.labels[self.label], x.valid)
        places, real = chosen[0], chosen[1]
        y = self.attend(q, k, v, x.valid, places, real)
        if self.separate:
            few = gather(x, places, x.stream)
            q = self.split(project(self.global_query, few.features, few))
            if self.global_kv is not None:
                parts = self.global_kv(x.features).split((self.inner, self.inner), dim=-1)
                k, v = self.split(parts[0]), self.split(parts[1])
            else:
                k = self.split(project(self.global_key, x.features, x))
                v = self.split(project(self.global_value, x.features, x))
        else:
            q = q.gather(2, places[:, None, :, None].expand(-1, self.heads, -1, self.head_width))
        return project(self.out, self.read(y, q, k, v, x.valid, places, real), x)


class Globals(Leaf):
    """Places ``[batch, most]`` of the tokens with a label, and which of these are such: as many as the fullest has."""

    def __init__(self, limit: int | None) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor, label: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        chosen = label != 0
        if valid is not None:
            chosen = chosen & valid
        chosen = fitting(chosen, x.shape[0])
        most = x.shape[1]
        if not chosen.is_meta:
            most = int(chosen.sum(dim=1).max())
            if self.limit is not None and most > self.limit:
                raise ValueError(f"{most} tokens of a sequence are global; the limit is {self.limit}")
        count = most if self.limit is None else min(self.limit, x.shape[1])
        places = chosen.int().argsort(dim=1, descending=True, stable=True)[:, :count]
        return places, chosen.gather(1, places)


class WindowAttend(Leaf):
    """Attention of ``[batch, heads, tokens, width]`` to a window and to the tokens at ``places [batch, globals]``.

    The sequence is cut into blocks as long as the window reaches; a block of queries reads three blocks of keys. Gives
    ``[batch, tokens, heads * width]``.
    """

    def __init__(self, spec: kinds.SlidingWindowAttention, head_width: int) -> None:
        super().__init__()
        self.window, self.dropout = spec.window, spec.dropout
        self.scale = 1 / math.sqrt(head_width)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None, places: Tensor | None, real: Tensor | None
    ) -> Tensor:  # fmt: skip
        batch, heads, tokens, width = q.shape
        size = min(self.window, tokens)
        fill = -tokens % size
        near = torch.ones(batch, tokens, dtype=torch.bool, device=q.device) if valid is None else fitting(valid, batch)
        if places is not None and real is not None:  # a global token is read once
            near = near.scatter(1, places, near.gather(1, places) & ~real)
        blocks = F.pad(q, (0, 0, 0, fill)).unflatten(2, (-1, size)).transpose(1, 2)
        keys, values = (F.pad(x, (0, 0, size, size + fill)).unfold(2, 3 * size, size) for x in (k, v))
        keys, values = keys.permute(0, 2, 1, 4, 3), values.permute(0, 2, 1, 4, 3)
        seen = F.pad(near, (size, size + fill)).unfold(1, 3 * size, size)[:, :, None]
        here, there = torch.arange(size, device=q.device), torch.arange(-size, 2 * size, device=q.device)
        seen = seen & ((here[:, None] - there).abs() <= self.window)
        if places is not None and real is not None:
            rows, count = places[:, None, :, None].expand(-1, heads, -1, width), blocks.shape[1]
            few = (x.gather(2, rows)[:, None].expand(-1, count, -1, -1, -1) for x in (k, v))
            keys, values = (torch.cat(parts, dim=3) for parts in zip((keys, values), few, strict=True))
            seen = torch.cat((seen, real[:, None, None].expand(-1, count, size, -1)), dim=3)
        y = F.scaled_dot_product_attention(
            blocks.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1), scale=self.scale,
            attn_mask=addend(seen, q).flatten(0, 1)[:, None], dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip
        return y.unflatten(0, (batch, -1)).transpose(2, 3).flatten(1, 2)[:, :tokens].flatten(2)


class GlobalAttend(Leaf):
    """Attention of the global tokens ``[batch, heads, globals, width]`` to all tokens, put in the place of ``y``'s."""

    def __init__(self, spec: kinds.SlidingWindowAttention, head_width: int) -> None:
        super().__init__()
        self.dropout = spec.dropout
        self.scale = 1 / math.sqrt(head_width)

    def forward(
        self, y: Tensor, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None, places: Tensor, real: Tensor
    ) -> Tensor:  # fmt: skip
        mask = pairs(valid, q.shape[0])
        rate = self.dropout if self.training else 0.0
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale, dropout_p=rate)
        rows = places[..., None].expand(-1, -1, y.shape[-1])
        return y.scatter(1, rows, torch.where(real[..., None], read.transpose(1, 2).flatten(2), y.gather(1, rows)))
