"""Latent attention: keys and values are read from one small vector for each token."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from archspec.errors import Refused
from archspec.graph import Node
from archspec.kind import Activation, Free, Kept, Matrix, Rate, Slot, Weighted, Width
from archspec.kinds.attention import GATE, GATE_PER, SHARPENED, Temperature
from archspec.kinds.rope import Rope
from archspec.place import Place
from archspec.streams import Stream


class LatentAttention(Weighted, kind="latent_attention", role=("mixer", "body")):
    """Multi-head latent attention: a token keeps a latent of ``kv_rank`` and one rotated key for all heads.

    DeepSeek-AI 2024, "DeepSeek-V2", arXiv 2405.04434. Queries go through a latent of ``query_rank``, if there is one.
    Under YaRN scores have a factor too, ``scale: m^2 / sqrt(nope + rope)`` with m = 1 + 0.1 mscale_all log(factor).
    """

    incremental = True
    rare = ("bias", "gate_per")
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
    kv_factor: Annotated[float, Field(gt=0)] | None = Field(None, description="on the normed latent of keys and values")
    temperature: Temperature | None = Field(None, description=SHARPENED)
    gate: Activation | None = Field(None, description=GATE)
    gate_per: Literal["feature", "head"] = Field("feature", description=GATE_PER)
    bias: bool = Field(False, description="biases on query_down, kv_down and out")
    dropout: Annotated[Rate, Free()] = 0.0

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        query = self.heads * (self.nope_width + self.rope_width)
        first = (
            {"query_down": Matrix(x.width, self.query_rank, self.bias), "query_up": Matrix(self.query_rank, query)}
            if self.query_rank
            else {"query": Matrix(x.width, query)}
        )
        per = self.value_width if self.gate_per == "feature" else 1
        gate = {} if self.gate is None else {"gate": Matrix(x.width, self.heads * per)}
        return first | {
            "kv_down": Matrix(x.width, self.kv_rank + self.rope_width, self.bias),
            "kv_up": Matrix(self.kv_rank, self.heads * (self.nope_width + self.value_width)),
            **gate,
            "out": Matrix(self.heads * self.value_width, x.width, self.bias, "out"),
        }

    def infer(self, at: Place) -> Stream:
        x = at.one()
        if x.content != "features" or len(x.axes) != 1:
            raise Refused("", f"latent attention reads features along one axis, not {x}")
        at.own(self.matrices(x))
        if not at.is_kind("position", "none"):
            rotation = at.slot("position", x.wide(self.rope_width)).nodes[0].kind
            if not isinstance(rotation, Rope):
                raise Refused("position", f"{rotation.name_} turns no keys", ["rope", "none"])
        at.slot("norm", x.wide(self.kv_rank), as_="kv_norm")
        if self.query_rank:
            at.slot("norm", x.wide(self.query_rank), as_="query_norm")
        return x

    def written(self, node: Node, writer: Any) -> dict[str, Any]:
        norm = writer.slot(node.bodies["kv_norm"], f"{node.name}_norm")
        return {"position": "none"} | super().written(node, writer) | {"norm": norm}

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept(self.kv_rank + self.rope_width),)
