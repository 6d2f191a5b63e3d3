"""What attention does with queries, keys and values: scores, masks, the softmax, and what is kept while decoding."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kinds import attention as kinds
from archspec.kinds.threshold import share
from archspec.streams import Stream
from compiler.build import weight
from compiler.modules.kernel import attention, blocks, joined
from compiler.modules.subsample import draw
from compiler.registry import Keeper


class Attend(Keeper):
    """``softmax(q k' * scale + bias) v`` for ``[batch, tokens, heads, width]``; gives ``[batch, tokens, heads *
    width]``.

    Masks follow from places (causality, windows, chunks), validity and segments; without any of them no mask is made.
    """

    def __init__(
        self, spec: kinds.Attention, heads: int, head_width: int, memory: Stream, *, gives_scores: bool = False,
        asked: Stream | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.gives_scores = gives_scores
        self.some, self.some_asked = share(memory), asked is not None and share(asked) is not None
        self.causal, self.window, self.chunk, self.softcap = memory.causal, spec.window, spec.chunk, spec.softcap
        names = [axis.name for axis in memory.axes]
        place = next((names.index(name) for name in memory.causal_axes if name in names), 0)
        grid = memory.axes if memory.causal else ()
        self.rows = math.prod(int(axis.size) for axis in grid[:place])
        self.stride = math.prod(int(axis.size) for axis in grid[place + 1 :])  # a grid's last axis runs fastest
        self.scale = spec.scale or 1 / math.sqrt(head_width)
        self.dropout = spec.dropout
        self.subsample = None if spec.subsample is None or spec.subsample.ratio == 1 else spec.subsample
        self.drawing = False
        self.talking = spec.talking_heads
        self.initial: dict[str, object] = {}
        if self.talking:
            self.before, self.before_bias = weight(heads, heads), weight(heads)
            self.after, self.after_bias = weight(heads, heads), weight(heads)
            self.initial |= {"before": ("scheme",), "after": ("scheme",), "before_bias": 0.0, "after_bias": 0.0}
        self.sinks = weight(heads) if spec.sinks else None
        if spec.sinks:
            self.initial["sinks"] = 0.0

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, q_place: Tensor | None = None,
        k_place: Tensor | None = None, valid: Tensor | None = None, q_segment: Tensor | None = None,
        k_segment: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.decoding is not None and self.causal:
            if self.some_asked and q_place is not None:
                return self.among(q, k, v, q_place, valid)
            return self.decode(q, k, v, bias)
        if self.subsample and (self.training or self.drawing):
            q_place, k_place = (self.places(x) if at is None else at for x, at in ((q, q_place), (k, k_place)))
            parts = []
            for rows, chosen in draw(self.subsample, q.shape[2], k.shape[2], causal=self.causal, device=q.device):
                told = (None if x is None else x[..., chosen] for x in (k_place, valid, k_segment))
                at, real, segment = told
                asked = None if q_segment is None else q_segment[:, rows]
                some = None if bias is None else bias[..., rows if bias.shape[-2] > 1 else slice(None), :][..., chosen]
                parts.append(self.whole(
                    q[:, :, rows], k[:, :, chosen], v[:, :, chosen], some, q_place[:, rows], at, real, asked, segment
                ))  # fmt: skip
            return torch.cat(parts, dim=1)
        return self.whole(q, k, v, bias, q_place, k_place, valid, q_segment, k_segment)

    def whole(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, q_place: Tensor | None, k_place: Tensor | None,
        valid: Tensor | None, q_segment: Tensor | None, k_segment: Tensor | None,
    ) -> Any:  # fmt: skip
        """The attention of whole sequences, all of ``[batch, heads, tokens, width]``."""
        rate = self.dropout if self.training else 0.0
        flat = self.stride == self.rows == 1 and q_place is None and k_place is None
        if flat and valid is None and q_segment is None and bias is None and not self.gives_scores:
            return self.plainly(q, k, v, rate).transpose(1, 2).flatten(2)
        mask = self.mask(q, k, q_place, k_place, valid, q_segment, k_segment)
        if mask is not None and mask.shape[0] not in (1, q.shape[0]):
            mask = mask.repeat(q.shape[0] // mask.shape[0], 1, 1, 1)
        if self.gives_scores:
            y, scores = self.by_hand(q, k, v, bias, mask, rate)
            return y.transpose(1, 2).flatten(2), scores.permute(0, 2, 3, 1).flatten(1, 2)
        return self.read(q, k, v, bias=bias, mask=mask, rate=rate).transpose(1, 2).flatten(2)

    def plainly(self, q: Tensor, k: Tensor, v: Tensor, rate: float = 0.0) -> Tensor:
        """The attention of whole sequences whose tokens are all real and lie at their indices."""
        if self.reaches(q, k):
            return self.read(q, k, v, causal=self.causal, rate=rate)
        if self.causal and self.chunk is not None:
            return self.chunks(q, k, v, self.chunk, rate)
        if self.causal and self.window is not None and isinstance(q.shape[2], int) and q.shape[2] > 4 * self.window:
            return self.bands(q, k, v, self.window, rate)
        return self.read(q, k, v, mask=self.mask(q, k, None, None, None, None, None), rate=rate)

    def read(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, mask: Tensor | None = None,
        causal: bool = False, rate: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """The attention under a mask, or of each query to the keys up to its own index."""
        if not self.talking and self.softcap is None:
            return self.fused(q, k, v, joined(mask, bias, q), causal=causal, rate=rate)
        if causal:
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()[None, None]
        return self.by_hand(q, k, v, bias, mask, rate)[0]

    def reaches(self, q: Tensor, k: Tensor) -> bool:
        """Whether there are so few tokens that no window or chunk keeps them apart."""
        most = self.window or self.chunk
        if most is None:
            return True
        counts = q.shape[2], k.shape[2]
        return all(isinstance(count, int) for count in counts) and max(counts) <= most

    def fused(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool = False, rate: float = 0.0
    ) -> Tensor:  # fmt: skip
        """The attention in one kernel.

        A sink is a key before all others whose value is zero. Its score is a product too: of one more feature, which
        is the sink's logit in queries, one in that key and zero in the others. So no bias is needed, and under
        causality no mask: a query of zeros is put before the others.
        """
        if self.sinks is not None:
            logit = (self.sinks / self.scale).to(q.dtype)[:, None, None].expand(*q.shape[:3], 1)
            q = F.pad(torch.cat((q, logit), dim=-1), (0, 0, int(causal), 0))
            k, v = F.pad(k, (0, 1, 1, 0)), F.pad(v, (0, 0, 1, 0))
            k[:, :, 0, -1] = 1
            mask = mask if mask is None else F.pad(mask, (1, 0), value=True if mask.dtype == torch.bool else 0.0)
        y = attention(q, k, v, mask, causal=causal, scale=self.scale, rate=rate)
        return y[:, :, 1:] if self.sinks is not None and causal else y

    def chunks(self, q: Tensor, k: Tensor, v: Tensor, size: int, rate: float) -> Tensor:
        """Causal attention inside each chunk; the last one is filled up with tokens that nobody reads."""
        cut = [blocks(x, size).flatten(0, 1) for x in (q, k, v)]
        y = self.read(cut[0], cut[1], cut[2], causal=True, rate=rate)
        return y.unflatten(0, (q.shape[0], -1)).transpose(1, 2).flatten(2, 3)[:, :, : q.shape[2]]

    def bands(self, q: Tensor, k: Tensor, v: Tensor, size: int, rate: float) -> Tensor:
        """Attention in a causal window, at a cost that grows with the length.

        Queries stand in blocks of the window's size, which read their own keys and those of the block before.
        """
        cut = [blocks(x, size) for x in (q, k, v)]
        keys, values = (torch.cat((F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1], x), dim=3) for x in cut[1:])
        index = torch.arange(2 * size, device=q.device)
        distance = index[:size, None] + size - index
        seen = (distance >= 0) & (distance < size)
        seen = seen & ((torch.arange(cut[0].shape[1], device=q.device)[:, None, None] > 0) | (index >= size))
        mask = seen[None, :, None].expand(q.shape[0], -1, -1, -1, -1).flatten(0, 1)
        y = self.read(cut[0].flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1), mask=mask, rate=rate)
        return y.unflatten(0, (q.shape[0], -1)).transpose(1, 2).flatten(2, 3)[:, :, : q.shape[2]]

    def decode(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """The attention of the next tokens, given their keys and values; those of earlier ones were kept.

        All of ``[batch, heads, tokens, width]``; ``bias`` is for all tokens up to these.
        """
        decoding = self.decoding
        assert decoding is not None
        kept, count, start = decoding.kept(self), q.shape[2], decoding.position
        reach = self.window or self.chunk
        if reach is None or decoding.length and decoding.length <= reach:
            k, v = decoding.append(kept, "keys", k, 2), decoding.append(kept, "values", v, 2)
            places = None
        else:
            k, v, places = self.within(kept, k, v, start, reach)
            bias = bias if bias is None else bias[..., places]
        mask = None
        if count > 1 or decoding.start is not None:
            key = ("known", k.shape[2], self.window, self.chunk, reach if places is not None else None)
            mask = decoding.shared(key, lambda: self.known(q, k, places, start))
        if self.talking or self.softcap is not None or (self.sinks is not None and count == 1):
            y, _ = self.by_hand(q, k, v, bias, mask, 0.0)
        elif mask is None and bias is None and k.shape[1] != q.shape[1]:  # one token: heads that share keys are queries
            y = F.scaled_dot_product_attention(q.unflatten(1, (k.shape[1], -1)).squeeze(3), k, v, scale=self.scale)
            y = y.flatten(1, 2)[:, :, None]
        else:
            y = self.fused(q, k, v, joined(mask, bias, q))
        return y.transpose(1, 2).flatten(2)

    def among(self, q: Tensor, k: Tensor, v: Tensor, q_place: Tensor, valid: Tensor | None) -> Tensor:
        """The attention of tokens that were chosen among the next ones.

        Keys and values are those of all tokens, or of those that were chosen; of these a sequence keeps its own alone.
        """
        decoding = self.decoding
        assert decoding is not None
        kept = decoding.kept(self)
        if self.some is not None:
            assert valid is not None
            new = {"keys": k, "values": v, "places": q_place[:, None, :, None], "real": valid[:, None, :, None]}
            found = {name: torch.cat((kept[name], x), dim=2) if kept else x for name, x in new.items()}
            real = found["real"][:, 0, :, 0]
            if k.is_meta:  # nobody is known to have entered: as many are kept as the share that is counted on
                most = max(1, round(self.some * max(decoding.length, decoding.position + 1)))
                found = found if kept else {n: x.new_empty(*x.shape[:2], most, x.shape[3]) for n, x in found.items()}
                real = found["real"][:, 0, :, 0]
            else:
                most = int(real.sum(1).max())
            order = (~real).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
            for name, x in found.items():
                kept[name] = x.gather(2, order[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
            k, v, places, real = kept["keys"], kept["values"], kept["places"][:, 0, :, 0], kept["real"][:, 0, :, 0]
        else:
            k, v = decoding.append(kept, "keys", k, 2), decoding.append(kept, "values", v, 2)
            places = torch.arange(k.shape[2], device=k.device)[None]
            places = places if decoding.start is None else places - decoding.start[:, None]
            real = places >= 0
        mask = self.mask(q, k, q_place, places, real, None, None)
        return self.read(q, k, v, mask=mask).transpose(1, 2).flatten(2)

    def known(self, q: Tensor, k: Tensor, places: Tensor | None, start: int) -> Tensor:
        """``[batch or 1, 1, queries, memory]``: which kept tokens, and which of themselves, the next ones may read."""
        assert self.decoding is not None
        here = torch.arange(start, start + q.shape[2], device=q.device)[:, None]
        there = torch.arange(k.shape[2], device=q.device) if places is None else places
        mask = (there <= here)[None]
        if self.window is not None:
            mask = mask & (here - there < self.window)
        first = self.decoding.start
        if self.chunk is not None:
            begin = 0 if first is None else first[:, None, None]
            mask = mask & ((here - begin) // self.chunk == (there - begin) // self.chunk)
        if first is not None:  # padding reads itself, so that it reads something
            mask = mask & (there >= first[:, None, None]) | (there == here)
        return mask[:, None]

    def within(
        self, kept: dict[str, Tensor], k: Tensor, v: Tensor, start: int, size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and places of the tokens that a window or chunk reaches; the last ones are kept in a ring."""
        assert self.decoding is not None
        count = k.shape[2]
        if not kept:
            kept["keys"] = k.new_empty(*k.shape[:2], size, k.shape[3])
            kept["values"] = v.new_empty(*v.shape[:2], size, v.shape[3])
            kept["places"] = torch.full((size,), -1, device=k.device)
        ring = [kept["keys"], kept["values"], kept["places"]]
        before = min(start, size)
        old = [ring[0][:, :, :before], ring[1][:, :, :before], ring[2][:before]]
        new = [k, v, torch.arange(start, start + count, device=k.device)]
        last = min(count, size)
        slots = torch.arange(start + count - last, start + count, device=k.device) % size
        if count > 1:  # the ring is written last: what it loses may still be read
            found = [torch.cat((a, b), dim=-1 if a.ndim == 1 else 2) for a, b in zip(old, new, strict=True)]
        ring[0][:, :, slots], ring[1][:, :, slots] = k[:, :, -last:], v[:, :, -last:]
        ring[2][slots] = new[2][-last:]
        if count == 1:
            before = min(start + 1, size)
            if self.chunk is not None and self.decoding.start is None:
                before = start % size + 1  # the ring turns with the chunks: those of this one stand first
            found = [ring[0][:, :, :before], ring[1][:, :, :before], ring[2][:before]]
        return found[0], found[1], found[2]

    def mask(
        self, q: Tensor, k: Tensor, q_place: Tensor | None, k_place: Tensor | None, valid: Tensor | None,
        q_segment: Tensor | None, k_segment: Tensor | None,
    ) -> Tensor | None:  # fmt: skip
        """``[batch or 1, 1, queries, memory]``, true where a query may read; None if everywhere."""
        allowed = None
        if self.causal or self.window is not None or self.chunk is not None:
            a = self.places(q) if q_place is None else q_place
            b = self.places(k) if k_place is None else k_place
            distance = a[:, :, None] - b[:, None, :]
            if self.causal:
                allowed = distance >= 0
                if self.window is not None:
                    allowed = allowed & (distance < self.window)
            elif self.window is not None:
                allowed = distance.abs() < self.window
            if self.chunk is not None:
                if k_place is None and q_place is None and valid is not None and a.shape == b.shape:
                    a = b = valid.cumsum(1) - 1  # chunks begin with the sequence, not with what fills up before it
                same = (a // self.chunk)[:, :, None] == (b // self.chunk)[:, None, :]
                allowed = same if allowed is None else allowed & same
        if valid is not None:
            seen = valid[:, None, :]
            allowed = seen if allowed is None else allowed & seen
        if q_segment is not None:
            assert k_segment is not None
            same = q_segment[:, :, None] == k_segment[:, None, :]
            if allowed is not None and allowed.shape[0] not in (1, same.shape[0]):
                same = same.repeat(allowed.shape[0] // same.shape[0], 1, 1)
            allowed = same if allowed is None else allowed & same
        return None if allowed is None else allowed[:, None]

    def places(self, x: Tensor) -> Tensor:
        """``[1, tokens]``: where each token of ``[batch, heads, tokens, width]`` is along the causal axis."""
        index = torch.arange(x.shape[2], device=x.device)[None] // self.stride
        return index if self.rows == 1 else index % (x.shape[2] // (self.rows * self.stride))

    def by_hand(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None, rate: float
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Attention whose scores ``[batch, heads, queries, memory]`` are changed on the way, and these."""
        groups, shared = q.shape[1] // k.shape[1], k.shape[1]  # heads that share keys are queries of one head
        rows = (q * self.scale).unflatten(1, (shared, groups)).flatten(2, 3)
        scores = (rows @ k.transpose(-2, -1)).unflatten(2, (groups, -1)).flatten(1, 2)
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if bias is not None:
            scores = scores + bias
        given = scores
        if self.talking:
            scores = torch.einsum("bhqk,gh->bgqk", scores, self.before) + self.before_bias[:, None, None]
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)  # finite where a token may read none
        if self.sinks is not None:
            scores = torch.cat((scores, self.sinks[:, None, None].expand(*scores.shape[:3], 1)), dim=-1)
        weights = scores.softmax(dim=-1)
        if self.sinks is not None:
            weights = weights[..., :-1]
        if self.talking:
            weights = torch.einsum("bhqk,gh->bgqk", weights, self.after) + self.after_bias[:, None, None]
        weights = F.dropout(weights, rate) if rate else weights
        y = weights.unflatten(1, (shared, groups)).flatten(2, 3) @ v
        return y.unflatten(2, (groups, -1)).flatten(1, 2), given
