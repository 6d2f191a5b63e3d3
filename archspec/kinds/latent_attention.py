"""Latent attention: keys and values are read from one small vector for each token."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused
from archspec.graph import Node
from archspec.kind import Free, Kept, Matrix, Rate, Slot, Weighted, Width
from archspec.place import Place
from archspec.streams import Stream


class LatentAttention(Weighted, kind="latent_attention", role=("mixer", "body")):
    """Multi-head latent attention: a token keeps a latent of ``kv_rank`` and one rotated key for all heads.

    DeepSeek-AI 2024, "DeepSeek-V2", arXiv 2405.04434. Queries go through a latent of ``query_rank``, if there is one.
    """

    incremental = True
    heads: Width
    kv_rank: Width
    query_rank: Width | None = None
    nope_width: Width = Field(description="features of a head's keys without position")
    rope_width: Width = Field(description="features of the rotated key that heads share")
    value_width: Width = Field(description="features of a head's values")
    position: Annotated[Any, Slot(("position",))] = "rope"
    norm: Annotated[Any, Slot(("norm",))] = Field("rms_norm", description="on both latents")
    scale: Annotated[float, Field(gt=0)] | None = Field(
        None, description="factor on scores; 1 / sqrt(nope + rope) by default"
    )
    dropout: Annotated[Rate, Free()] = 0.0

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        query = self.heads * (self.nope_width + self.rope_width)
        first = (
            {"query_down": Matrix(x.width, self.query_rank), "query_up": Matrix(self.query_rank, query)}
            if self.query_rank
            else {"query": Matrix(x.width, query)}
        )
        return first | {
            "kv_down": Matrix(x.width, self.kv_rank + self.rope_width),
            "kv_up": Matrix(self.kv_rank, self.heads * (self.nope_width + self.value_width)),
            "out": Matrix(self.heads * self.value_width, x.width, False, "out"),
        }

    def infer(self, at: Place) -> Stream:
        x = at.one()
        if x.content != "features" or len(x.axes) != 1:
            raise Refused("", f"latent attention reads features along one axis, not {x}")
        at.own(self.matrices(x))
        at.slot("position", x.wide(self.rope_width))
        at.slot("norm", x.wide(self.kv_rank), as_="kv_norm")
        if self.query_rank:
            at.slot("norm", x.wide(self.query_rank), as_="query_norm")
        return x

    def written(self, node: Node, writer: Any) -> dict[str, Any]:
        return super().written(node, writer) | {"norm": writer.slot(node.bodies["kv_norm"], f"{node.name}_norm")}

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept(self.kv_rank + self.rope_width),)
