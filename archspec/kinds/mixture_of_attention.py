"""Mixtures of attention: a router chooses the heads by which a token asks; all read the same keys and values."""

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import Free, Kept, Matrix, Rate, Slot, Weighted, Width
from archspec.kinds.router import Scored
from archspec.moving import Moving
from archspec.place import Place
from archspec.streams import SCALAR, Stream


class MixtureOfAttention(Weighted, kind="mixture_of_attention", role=("mixer", "body")):
    """Attention whose heads are experts, ``sum of weight_e * out_e(softmax(query_e(x) k' / sqrt(head_width)) v)``.

    Zhang et al. 2022, "Mixture of Attention Heads", arXiv 2210.05144. An expert is ``heads`` heads with a query and an
    output matrix of their own; keys and values are the same for all experts: Shen et al. 2024, "JetMoE", arXiv
    2404.07413. Each of ``kv_heads`` serves as many heads of every expert.
    """

    incremental = True
    example = "{kind: mixture_of_attention, experts: 8, heads: 2, head_width: 64, position: rope}"
    experts: Width = Field(description="how many experts there are")
    heads: Width = Field(description="heads of an expert")
    kv_heads: Width | None = Field(None, description="key/value heads; as many as an expert has heads by default")
    head_width: Width | None = Field(None, description="features of a head; width / heads by default")
    router: Annotated[Any, Slot(("router",))] = "top_k"
    position: Annotated[Any, Slot(("position",))] = "none"
    window: Width | None = Field(None, description="a token reads this many tokens, itself among them")
    scale: Annotated[float, Field(gt=0)] | None = Field(
        None, description="factor on scores; 1 / sqrt(head_width) by default"
    )
    bias: bool = Field(False, description="a vector added to what the experts say together")
    dropout: Annotated[Rate, Free()] = Field(0.0, description="on the attention weights")

    def shape(self, x: Stream) -> tuple[int, int]:
        """Key/value heads, width of a head."""
        kv_heads = self.kv_heads or self.heads
        if self.heads % kv_heads:
            raise Refused("kv_heads", f"{self.heads} heads cannot be shared by {kv_heads} key/value heads",
                          divisors(self.heads))  # fmt: skip
        if self.head_width is None and x.width % self.heads:
            raise Refused("heads", f"width {x.width} does not divide into {self.heads} heads", "head_width: 64")
        return kv_heads, self.head_width or x.width // self.heads

    def settle(self, node: Node) -> dict[str, Any]:
        kv_heads, head_width = self.shape(node.types[0])
        return {"kv_heads": kv_heads, "head_width": head_width}

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        kv_heads, head_width = self.shape(x)
        return {name: Matrix(x.width, kv_heads * head_width) for name in ("key", "value")}

    def infer(self, at: Place) -> dict[str, Stream]:
        x = at.one()
        if x.content != "features" or (len(x.axes) != 1 and (x.causal or self.window is not None)):
            raise Refused("", f"a mixture of attention reads features along one axis, not {x}")
        at.own(self.matrices(x))
        router = at.slot("router", x, experts=self.experts).nodes[0].kind
        if isinstance(getattr(router, "k", None), Moving):
            raise Refused("router", "as many heads as k times heads cannot move in training", "state one k")
        if at.has("position") and not at.is_kind("position", "none"):
            position = at.slot("position", x.wide(self.shape(x)[1])).nodes[0].kind
            if position.name_ != "rope":
                raise Refused("position", f"{position.name_} knows heads by their number", "position: rope")
        return {"": x} | ({"loss": SCALAR} if isinstance(router, Scored) and router.loses else {})

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        kv_heads, head_width = self.shape(x)
        return (Kept(2 * kv_heads * head_width, window=self.window),)
