"""Gated linear attention: a matrix as memory, whose rows fade at the pace that each token sets."""

from typing import Annotated, Any, Literal

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import Activation, Kept, Matrix, Slot, Weighted, Width
from archspec.kinds.recurrence import in_order
from archspec.place import Place
from archspec.streams import Stream


class GatedLinearAttention(Weighted, kind="gated_linear_attention", role=("mixer", "body")):
    """``S[t] = diag(a[t]) S[t-1] + k[t] v[t]'``, read as ``S[t]' q[t] / sqrt(key_width)``.

    Yang et al. 2023, "Gated Linear Attention Transformers with Hardware-Efficient Training", arXiv 2312.06635. Each
    head has a state ``S`` of ``key_width x value_width``; each of its rows fades by a number of its own, ``a =
    sigmoid(decay(x))^(1 / slowness)``. What is read is normalised in each head and gated. Theirs has ``linears:
    {decay: {kind: low_rank, rank: 16}}`` and keys half as wide as values.
    """

    incremental = True
    example = "{kind: gated_linear_attention, heads: 4}"
    heads: Width
    key_width: Width | None = Field(None, description="features of a head's keys; width / heads by default")
    value_width: Width | None = Field(None, description="features of a head's values; key_width by default")
    slowness: Annotated[float, Field(gt=0)] = Field(16.0, description="root that is taken of the decays")
    norm: Annotated[Any, Slot(("norm",))] = Field("rms_norm", description="on what each head reads")
    gate: Activation | Literal["none"] = Field("silu", description="activation of the gate of what is read")

    def shape(self, x: Stream) -> tuple[int, int, int]:
        """Heads, width of a key, width of a value."""
        if self.key_width is None and x.width % self.heads:
            raise Refused("heads", f"width {x.width} does not divide into {self.heads} heads", divisors(x.width))
        key_width = self.key_width or x.width // self.heads
        return self.heads, key_width, self.value_width or key_width

    def settle(self, node: Node) -> dict[str, Any]:
        _, key_width, value_width = self.shape(node.types[0])
        return {"key_width": key_width, "value_width": value_width}

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        heads, key_width, value_width = self.shape(x)
        keys, values = heads * key_width, heads * value_width
        widths = {"query": keys, "key": keys, "value": values} | ({} if self.gate == "none" else {"gate": values})
        owned = {role: Matrix(x.width, width) for role, width in widths.items()}
        return owned | {"decay": Matrix(x.width, keys, True), "out": Matrix(values, x.width, False, "out")}

    def infer(self, at: Place) -> Stream:
        x = in_order(at.one())
        at.own(self.matrices(x))
        if at.has("norm"):
            at.slot("norm", x.wide(self.shape(x)[2]))
        return x

    def written(self, node: Node, writer: Any) -> dict[str, Any]:
        return {"norm": "absent"} | super().written(node, writer)

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        heads, key_width, value_width = self.shape(x)
        return (Kept(heads * key_width * value_width, per="sequence"),)
