"""Delta rules: a matrix as memory, of which each token rewrites what it holds under the token's key."""

from typing import Annotated, Any, Literal

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import Activation, Count, Kept, Matrix, Slot, Weighted, Width
from archspec.kinds.recurrence import in_order
from archspec.place import Place
from archspec.streams import Stream


class GatedDeltaRule(Weighted, kind="gated_delta_rule", role=("mixer", "body")):
    """Gated delta networks: ``S[t] = a S[t-1] + b k (v - a S[t-1]' k)'``, read as ``S[t]' q / sqrt(key_width)``.

    Yang, Kautz and Hatamizadeh 2024, "Gated Delta Networks", arXiv 2412.06464. Each head has a state ``S`` of
    ``key_width x value_width``. Queries, keys and values go through a causal convolution and an activation, queries and
    keys then to unit length. ``a = exp(-exp(rate) softplus(decay(x) + step))``, ``b = strength sigmoid(beta(x))``. What
    is read is normalised in each head and gated. With strength 2 eigenvalues of the transition may be negative (Grazzi
    et al. 2024, arXiv 2411.12537).
    """

    incremental = True
    example = "{kind: gated_delta_rule, heads: 4, key_heads: 2, key_width: 32}"
    heads: Width = Field(description="heads, each with values of its own")
    key_heads: Width | None = Field(None, description="heads of queries and keys; as many as heads by default")
    key_width: Width | None = Field(None, description="features of a head's keys; width / heads by default")
    value_width: Width | None = Field(None, description="features of a head's values; key_width by default")
    convolution: Count = Field(4, description="taps of the convolution of query, key and value; 0 for none")
    activation: Activation = Field("silu", description="of query, key and value, after the convolution")
    strength: Annotated[float, Field(gt=0, le=2)] = Field(1.0, description="the most that a token may rewrite")
    norm: Annotated[Any, Slot(("norm",))] = Field("rms_norm", description="on what each head reads")
    gate: Activation | Literal["none"] = Field("silu", description="activation of the gate of what is read")

    def shape(self, x: Stream) -> tuple[int, int, int, int]:
        """Heads, heads of keys, width of a key, width of a value."""
        if self.key_width is None and x.width % self.heads:
            raise Refused("heads", f"width {x.width} does not divide into {self.heads} heads", divisors(x.width))
        key_heads = self.key_heads or self.heads
        if self.heads % key_heads:
            raise Refused("key_heads", f"{self.heads} heads cannot be shared by {key_heads} heads of keys",
                          divisors(self.heads))  # fmt: skip
        key_width = self.key_width or x.width // self.heads
        return self.heads, key_heads, key_width, self.value_width or key_width

    def settle(self, node: Node) -> dict[str, Any]:
        _, key_heads, key_width, value_width = self.shape(node.types[0])
        return {"key_heads": key_heads, "key_width": key_width, "value_width": value_width}

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        heads, key_heads, key_width, value_width = self.shape(x)
        keys, values = key_heads * key_width, heads * value_width
        widths = {"query": keys, "key": keys, "value": values, "gate": values, "beta": heads, "decay": heads}
        owned = {
            role: Matrix(x.width, width) for role, width in widths.items() if role != "gate" or self.gate != "none"
        }
        return owned | {"out": Matrix(values, x.width, False, "out")}

    def infer(self, at: Place) -> Stream:
        x = in_order(at.one())
        at.own(self.matrices(x))
        if at.has("norm"):
            at.slot("norm", x.wide(self.shape(x)[3]))
        return x

    def written(self, node: Node, writer: Any) -> dict[str, Any]:
        return {"norm": "absent"} | super().written(node, writer)

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        heads, key_heads, key_width, value_width = self.shape(x)
        convolved = 2 * key_heads * key_width + heads * value_width
        tail = max(0, self.convolution - 1) * convolved
        return (Kept(tail + heads * key_width * value_width, per="sequence"),)
