"""Attention (schema in archspec.kinds.attention)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from archspec.errors import Problem, SpecError
from archspec.kinds import attention as kinds
from compiler.build import Make, main, project
from compiler.modules.activations import ACTIVATIONS
from compiler.modules.attend import Attend
from compiler.modules.heads import addend
from compiler.modules.rope import Rope
from compiler.modules.temperature import Temperature
from compiler.registry import Leaf, builds
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
        self.mask_name, self.values_name = node.streams.get("mask"), node.streams.get("values")
        sizes = [axis.size for axis in node.outputs["scores"].axes]
        mask = None if self.mask_name is None else node.outer_types[self.mask_name]
        self.unseen = Unseen() if mask is not None and [axis.size for axis in mask.axes] == sizes else None
        together = self.values_name is None
        alone = together and spec.query is None and self.memory is None and self.memory_name is None
        self.qkv = self.kv = self.gate = None
        roles = ("query", "key", "value") if spec.gate is None else ("query", "key", "value", "gate")
        if alone and make.plain(*roles):
            self.qkv = make.fused(*roles)
        else:
            self.gate = None if spec.gate is None else make.linear("gate")
            self.query = make.linear("query")
            if together and make.plain("key", "value"):
                self.kv = make.fused("key", "value")
            else:
                self.key, self.value = make.linear("key"), make.linear("value")
        self.query_norm = make.body("qk_norm") if make.has("qk_norm") else None
        self.key_norm = make.body("key_norm" if make.has("key_norm") else "qk_norm") if make.has("qk_norm") else None
        self.value_norm = make.body("value_norm") if make.has("value_norm") else None
        self.position = make.body("position") if make.has("position") else None
        if self.position is not None and hasattr(self.position, "sized"):
            self.position.sized(self.heads)
        self.sharing = make.body("sharing") if make.has("sharing") else None
        if self.sharing is not None:
            self.sharing.fits(self.heads, self.kv_heads)  # type: ignore[operator]
        self.score = make.body("score") if make.has("score") else None
        if self.score is not None:
            self.score.fits(self.heads, self.kv_heads, self.position)  # type: ignore[operator]
        memory = node.bodies["memory"].output if self.memory is not None else make.stream
        self.bias_name = node.streams.get("score_bias")
        self.scores = node.outputs["scores"] if "scores" in node.reads else None
        if self.scores is not None and spec.subsample is not None:
            cause = "in training there are scores of a part of the memory alone"
            raise SpecError(Problem(cause, "subsample: null, or do not read scores", node.path, node.raw.mark))
        if self.memory_name:
            memory = node.outer_types[self.memory_name]
        asked = spec.asked(make.stream)
        self.attend = Attend(
            spec, self.heads, self.head_width, memory, gives_scores=self.scores is not None, asked=asked
        )
        self.temperature = None if spec.temperature is None else Temperature(spec.temperature, make.stream)
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
                widths = (*widths, self.heads * (self.value_width if spec.gate_per == "feature" else 1))
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
                told = memory if self.values_name is None else outer[self.values_name]
                k, v = project(self.key, memory.features, memory), project(self.value, told.features, told)
        q = q.unflatten(-1, (self.heads, self.head_width))
        k = k.unflatten(-1, (self.kv_heads, self.head_width))
        v = v.unflatten(-1, (self.kv_heads, self.value_width))
        if self.value_norm is not None:
            v = normed(self.value_norm, v, memory, self.value_width)
        if self.query_norm is not None and self.key_norm is not None and spec.qk_norm_place == "before":
            q = self.normed(self.query_norm, q, asked, self.heads)
            k = self.normed(self.key_norm, k, memory, self.kv_heads)
        if spec.clip is not None:
            q, k, v = (part.clamp(-spec.clip, spec.clip) for part in (q, k, v))
        if self.score is not None:
            mapped = self.score(q, k)
            q, k = mapped[0], mapped[1]
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
        if self.temperature is not None:
            q = self.temperature(q, asked.coordinates)
        if self.bias_name is not None:
            given = outer[self.bias_name].features.unflatten(1, (q.shape[1], -1)).permute(0, 3, 1, 2)
            bias = given if bias is None else bias + given
        valid = memory.valid
        if self.mask_name is not None and self.unseen is not None:
            unseen = self.unseen(outer[self.mask_name].features, q)
            bias = unseen if bias is None else bias + unseen
        elif self.mask_name is not None:
            valid = outer[self.mask_name].features[..., 0] > 0
        if self.sharing is not None:
            shared = self.sharing(k, v, valid)
            k, v = shared[0], shared[1]
        y = self.attend(
            q, k, v, bias, asked.coordinates, memory.coordinates, valid, asked.segment,
            memory.segment if asked.segment is not None else None,
        )  # fmt: skip
        scores = None
        if self.scores is not None:
            y, scores = y[0], y[1]
        if gate is not None and spec.gate is not None:
            gate = ACTIVATIONS[spec.gate](gate)
            if spec.gate_per == "head":
                y = (y.unflatten(-1, (self.heads, self.value_width)) * gate.unsqueeze(-1)).flatten(-2)
            else:
                y = y * gate
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


class Unseen(Leaf):
    """What is added to scores of ``[batch, queries, heads, width]`` under a mask of pairs ``[batch, pairs, 1]``."""

    def forward(self, mask: Tensor, q: Tensor) -> Tensor:
        return addend(mask.unflatten(1, (q.shape[1], -1)).permute(0, 3, 1, 2) > 0, q)
