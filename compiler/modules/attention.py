"""Attention (schema in archspec.kinds.attention)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import attention as kinds
from archspec.streams import Stream
from compiler.build import Make, main, project, weight
from compiler.modules.activations import ACTIVATIONS
from compiler.modules.rope import Rope
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens


@builds(kinds.Attention)
class Attention(nn.Module):
    """Query, key and value as one product where they read one stream; positions; the attention; the way out."""

    def __init__(self, spec: kinds.Attention, make: Make) -> None:
        super().__init__()
        self.spec_ = spec
        node = make.node
        self.heads, self.kv_heads, self.head_width, self.value_width = spec.shape(make.stream)
        self.memory = make.body("memory") if make.has("memory") else None
        self.memory_name = node.streams.get("memory")
        self.mask_name = node.streams.get("mask")
        alone = spec.query is None and self.memory is None and self.memory_name is None
        self.qkv = self.kv = self.gate = None
        roles = ("query", "key", "value") if spec.gate is None else ("query", "key", "value", "gate")
        if alone and make.plain(*roles):
            self.qkv = make.fused(*roles)
        else:
            self.gate = None if spec.gate is None else make.linear("gate")
            self.query = make.linear("query")
            if make.plain("key", "value"):
                self.kv = make.fused("key", "value")
            else:
                self.key, self.value = make.linear("key"), make.linear("value")
        self.query_norm = make.body("qk_norm") if make.has("qk_norm") else None
        self.key_norm = make.body("key_norm" if make.has("key_norm") else "qk_norm") if make.has("qk_norm") else None
        self.value_norm = make.body("value_norm") if make.has("value_norm") else None
        self.position = make.body("position") if make.has("position") else None
        if self.position is not None and hasattr(self.position, "sized"):
            self.position.sized(self.heads)
        memory = node.bodies["memory"].output if self.memory is not None else make.stream
        self.bias_name = node.streams.get("score_bias")
        self.scores = node.outputs["scores"] if "scores" in node.reads else None
        if self.memory_name:
            memory = node.outer_types[self.memory_name]
        self.attend = Attend(spec, self.heads, self.head_width, memory, gives_scores=self.scores is not None)
        self.out = make.linear("out")

    def forward(self, x: Tokens, outer: Mapping[str, Tokens] | None = None) -> Tokens | dict[str, Tokens]:
        spec, outer = self.spec_, outer or {}
        asked = x if spec.query is None else x.span(spec.query, spec.asked(x.stream))
        memory = x
        if self.memory is not None:
            memory = main(self.memory, x, outer=outer)
        elif self.memory_name is not None:
            memory = outer[self.memory_name]
        gate = None
        widths = (self.heads * self.head_width, self.kv_heads * self.head_width, self.kv_heads * self.value_width)
        if self.qkv is not None:
            if spec.gate is not None:
                widths = (*widths, self.heads * self.value_width)
            parts = self.qkv(x.features).split(widths, dim=-1)
            q, k, v = parts[0], parts[1], parts[2]
            gate = None if spec.gate is None else parts[3]
        else:
            gate = None if self.gate is None else project(self.gate, asked.features, asked)
            q = project(self.query, asked.features, asked)
            if self.kv is not None:
                parts = self.kv(memory.features).split(widths[1:], dim=-1)
                k, v = parts[0], parts[1]
            else:
                k, v = project(self.key, memory.features, memory), project(self.value, memory.features, memory)
        if spec.clip is not None:
            q, k, v = (part.clamp(-spec.clip, spec.clip) for part in (q, k, v))
        q = q.unflatten(-1, (self.heads, self.head_width))
        k = k.unflatten(-1, (self.kv_heads, self.head_width))
        v = v.unflatten(-1, (self.kv_heads, self.value_width))
        if self.value_norm is not None:
            v = normed(self.value_norm, v, memory, self.value_width)
        if self.query_norm is not None and self.key_norm is not None and spec.qk_norm_place == "before":
            q = self.normed(self.query_norm, q, asked, self.heads)
            k = self.normed(self.key_norm, k, memory, self.kv_heads)
        bias = None
        if isinstance(self.position, Rope):
            turned = self.position(q, k, asked.coordinates, memory.coordinates, v if self.position.values else None)
            q, k = turned[0], turned[1]  # by index: unpacking makes a trace look into the bytecode
            v = turned[2] if self.position.values else v
        elif self.position is not None:
            bias = self.position(q, k, asked.coordinates, memory.coordinates)
        if self.query_norm is not None and self.key_norm is not None and spec.qk_norm_place == "after":
            q = self.normed(self.query_norm, q, asked, self.heads)
            k = self.normed(self.key_norm, k, memory, self.kv_heads)
        if self.bias_name is not None:
            given = outer[self.bias_name].features.unflatten(1, (q.shape[1], -1)).permute(0, 3, 1, 2)
            bias = given if bias is None else bias + given
        valid = memory.valid if self.mask_name is None else outer[self.mask_name].features[..., 0] > 0
        y = self.attend(
            q, k, v, bias, asked.coordinates, memory.coordinates, valid, asked.segment,
            memory.segment if asked.segment is not None else None,
        )  # fmt: skip
        scores = None
        if self.scores is not None:
            y, scores = y[0], y[1]
        if gate is not None and spec.gate is not None:
            y = y * ACTIVATIONS[spec.gate](gate)
        out = asked.give(project(self.out, y, asked), asked.stream.wide(spec.width_out or x.stream.width))
        return out if scores is None or self.scores is None else {"": out, "scores": Tokens(scores, self.scores)}

    def normed(self, norm: nn.Module, x: Tensor, tokens: Tokens, heads: int) -> Tensor:
        """Queries or keys ``[batch, tokens, heads, width]`` normed, each head alone or all together."""
        if self.spec_.qk_norm_over == "head":
            return normed(norm, x, tokens, self.head_width)
        return normed(norm, x.flatten(2), tokens, heads * self.head_width).unflatten(-1, (heads, self.head_width))


def normed(norm: nn.Module, features: Tensor, tokens: Tokens, width: int) -> Tensor:
    """A norm applied to features that tokens have for the while."""
    return main(norm, tokens.give(features, tokens.stream.wide(width)), outer={}).features


class Attend(Keeper):
    """``softmax(q k' * scale + bias) v`` for ``[batch, tokens, heads, width]``; gives ``[batch, tokens, heads *
    width]``.

    Masks follow from places (causality, windows), validity and segments; without any of them no mask is made.
    """

    def __init__(
        self, spec: kinds.Attention, heads: int, head_width: int, memory: Stream, *, gives_scores: bool = False
    ) -> None:
        super().__init__()
        self.gives_scores = gives_scores
        self.causal, self.window, self.softcap = memory.causal, spec.window, spec.softcap
        names = [axis.name for axis in memory.axes]
        place = next((names.index(name) for name in memory.causal_axes if name in names), 0)
        grid = memory.axes if memory.causal else ()
        self.rows = math.prod(int(axis.size) for axis in grid[:place])
        self.stride = math.prod(int(axis.size) for axis in grid[place + 1 :])  # a grid's last axis runs fastest
        self.scale = spec.scale or 1 / math.sqrt(head_width)
        self.dropout = spec.dropout
        self.talking = spec.talking_heads
        if self.talking:
            self.before, self.before_bias = weight(heads, heads), weight(heads)
            self.after, self.after_bias = weight(heads, heads), weight(heads)
            self.initial = {"before": ("scheme",), "after": ("scheme",), "before_bias": 0.0, "after_bias": 0.0}

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, q_place: Tensor | None = None,
        k_place: Tensor | None = None, valid: Tensor | None = None, q_segment: Tensor | None = None,
        k_segment: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.decoding is not None and self.causal:
            return self.decode(q, k, v, bias)
        flat = self.stride == self.rows == 1
        plain = (
            flat and q_place is None and self.window is None and valid is None and q_segment is None and bias is None
        )
        mask = None
        if not plain:
            mask = self.mask(q, k, q_place, k_place, valid, q_segment, k_segment)
            if mask is not None and mask.shape[0] not in (1, q.shape[0]):
                mask = mask.repeat(q.shape[0] // mask.shape[0], 1, 1, 1)
        rate = self.dropout if self.training else 0.0
        if self.talking or self.softcap is not None or self.gives_scores:
            y, scores = self.by_hand(q, k, v, bias, mask if not plain else self.future(q, k), rate)
            if self.gives_scores:
                return y.transpose(1, 2).flatten(2), scores.permute(0, 2, 3, 1).flatten(1, 2)
        else:
            y = F.scaled_dot_product_attention(
                q, k, v, attn_mask=joined(mask, bias, q), dropout_p=rate, is_causal=self.causal and plain,
                scale=self.scale, enable_gqa=k.shape[1] != q.shape[1],
            )  # fmt: skip
        return y.transpose(1, 2).flatten(2)

    def decode(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """The attention of the next tokens, given their keys and values; those of earlier ones were kept.

        All of ``[batch, heads, tokens, width]``; ``bias`` is for all tokens up to these.
        """
        decoding = self.decoding
        assert decoding is not None
        kept, count, start = decoding.kept(self), q.shape[2], decoding.position
        if self.window is None or decoding.length and decoding.length <= self.window:
            k, v = decoding.append(kept, "keys", k, 2), decoding.append(kept, "values", v, 2)
            places = None
        else:
            k, v, places = self.within(kept, k, v, start)
            bias = bias if bias is None else bias[..., places]
        mask = None
        if count > 1 or decoding.start is not None:
            here = torch.arange(start, start + count, device=q.device)[:, None]
            there = torch.arange(k.shape[2], device=q.device) if places is None else places
            mask = (there <= here)[None]
            if self.window is not None:
                mask = mask & (here - there < self.window)
            if decoding.start is not None:  # padding reads itself, so that it reads something
                mask = mask & ((there >= decoding.start[:, None, None]) | (there == here))
            mask = mask[:, None]
        if self.talking or self.softcap is not None:
            y, _ = self.by_hand(q, k, v, bias, mask, 0.0)
        elif mask is None and bias is None and k.shape[1] != q.shape[1]:  # one token: heads that share keys are queries
            y = F.scaled_dot_product_attention(q.unflatten(1, (k.shape[1], -1)).squeeze(3), k, v, scale=self.scale)
            y = y.flatten(1, 2)[:, :, None]
        else:
            whole = count > 1 and start == 0 and self.window is None and decoding.start is None and bias is None
            y = F.scaled_dot_product_attention(
                q, k, v, attn_mask=None if whole else joined(mask, bias, q), is_causal=whole, scale=self.scale,
                enable_gqa=k.shape[1] != q.shape[1],
            )  # fmt: skip
        return y.transpose(1, 2).flatten(2)

    def within(self, kept: dict[str, Tensor], k: Tensor, v: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and places of the tokens that a window reaches; the last ones are kept in a ring."""
        assert self.window is not None
        size, count = self.window, k.shape[2]
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
            found = [ring[0][:, :, :before], ring[1][:, :, :before], ring[2][:before]]
        return found[0], found[1], found[2]

    def mask(
        self, q: Tensor, k: Tensor, q_place: Tensor | None, k_place: Tensor | None, valid: Tensor | None,
        q_segment: Tensor | None, k_segment: Tensor | None,
    ) -> Tensor | None:  # fmt: skip
        """``[batch or 1, 1, queries, memory]``, true where a query may read; None if everywhere."""
        allowed = None
        if self.causal or self.window is not None:
            a = self.places(q) if q_place is None else q_place
            b = self.places(k) if k_place is None else k_place
            distance = a[:, :, None] - b[:, None, :]
            if self.causal:
                allowed = distance >= 0
                if self.window is not None:
                    allowed = allowed & (distance < self.window)
            else:
                assert self.window is not None
                allowed = distance.abs() < self.window
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

    def future(self, q: Tensor, k: Tensor) -> Tensor | None:
        return self.mask(q, k, None, None, None, None, None)

    def by_hand(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None, rate: float
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Attention whose scores ``[batch, heads, queries, memory]`` are changed on the way, and these."""
        if k.shape[1] != q.shape[1]:
            groups = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if bias is not None:
            scores = scores + bias
        given = scores
        if self.talking:
            scores = torch.einsum("bhqk,gh->bgqk", scores, self.before) + self.before_bias[:, None, None]
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)  # finite where a token may read none
        weights = scores.softmax(dim=-1)
        if self.talking:
            weights = torch.einsum("bhqk,gh->bgqk", weights, self.after) + self.after_bias[:, None, None]
        return (F.dropout(weights, rate) if rate else weights) @ v, given


def joined(mask: Tensor | None, bias: Tensor | None, q: Tensor) -> Tensor | None:
    """Mask and bias as one addend of the scores."""
    if bias is None:
        return mask
    bias = bias.to(q.dtype)
    return bias if mask is None else bias.masked_fill(~mask, float("-inf"))
