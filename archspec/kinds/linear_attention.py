"""Linear attention: a kernel in place of the softmax, so that what was read is one matrix."""

from typing import Annotated, Any, Literal

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import Kept, Matrix, Slot, Weighted, Width
from archspec.place import Place
from archspec.streams import Stream


class LinearAttention(Weighted, kind="linear_attention", role=("mixer", "body")):
    """Attention with weights ``f(q)' f(k)``: ``f(q)' (sum f(k) v') / (f(q)' sum f(k))``, of linear cost.

    Katharopoulos et al. 2020, "Transformers are RNNs", arXiv 2006.16236. It follows the causality of its stream. The
    feature map ``elu`` is theirs, ``elu(x) + 1``; ``softmax`` over a head's features is that of Shen et al. 2018,
    "Efficient Attention", arXiv 1812.01243; ``identity`` without normalisation that of Schlag et al. 2021, "Linear
    Transformers Are Secretly Fast Weight Programmers", arXiv 2102.11174. Keys and values come from ``memory``: the
    input itself, another stream by name, or a body applied to the input; another one is read whole. With ``relu``, a
    ``key_position`` and a ``local`` convolution: Han et al. 2023, "FLatten Transformer", arXiv 2308.00442; Guo et al.
    2024, "SLAB", arXiv 2405.11582.
    """

    incremental = True
    example = "{kind: linear_attention, heads: 4}"
    heads: Width = Field(description="heads")
    head_width: Width | None = Field(
        None, description="features of a head's queries and keys; width / heads by default"
    )
    value_width: Width | None = Field(None, description="features of a head's values; head_width by default")
    feature_map: Literal["elu", "relu", "softmax", "identity"] = Field(
        "elu", description="of queries and keys, unless features has another"
    )
    normalize: bool = Field(True, description="the weights of what a token reads are divided by their sum")
    eps: Annotated[float, Field(ge=0)] = Field(1e-6, description="added to that sum")
    bias: bool = Field(False, description="biases on query, key, value and out")
    key_position: Annotated[Any, Slot(("body",))] = Field(
        None, description="a body applied to the keys before their feature map, such as learned_position"
    )
    local: Annotated[Any, Slot(("body",))] = Field(
        None, description="a body applied to the values, such as a depthwise_convolution, and added to what is read"
    )
    memory: Annotated[Any, Slot(("body",), stream=True)] = Field(
        None, description="what is read: a stream, or a body applied to the input"
    )
    features: Annotated[Any, Slot(("feature_map",))] = Field(
        None, description="a learned map of queries and keys, in the place of feature_map"
    )

    def shape(self, x: Stream) -> tuple[int, int, int]:
        """Heads, width of a head, width of its values."""
        if self.head_width is None and x.width % self.heads:
            raise Refused("heads", f"width {x.width} does not divide into {self.heads} heads", divisors(x.width))
        head_width = self.head_width or x.width // self.heads
        return self.heads, head_width, self.value_width or head_width

    def settle(self, node: Node) -> dict[str, Any]:
        _, head_width, value_width = self.shape(node.types[0])
        return {"head_width": head_width, "value_width": value_width}

    def matrices(self, x: Stream, memory: Stream | None = None) -> dict[str, Matrix]:
        heads, head_width, value_width = self.shape(x)
        source = (memory or x).width
        return {
            "query": Matrix(x.width, heads * head_width, self.bias),
            "key": Matrix(source, heads * head_width, self.bias),
            "value": Matrix(source, heads * value_width, self.bias),
            "out": Matrix(heads * value_width, x.width, self.bias, "out"),
        }

    def infer(self, at: Place) -> Stream:
        x = at.one()
        memory = at.source("memory", x)
        self._readable(at, x, memory)
        at.own(self.matrices(x, memory))
        heads, head_width, value_width = self.shape(x)
        for field, width in (("key_position", heads * head_width), ("local", heads * value_width)):
            expected = memory.wide(width)
            if at.has(field):
                given = at.slot(field, expected).output
                if (given.width, given.spans) != (expected.width, expected.spans):
                    raise Refused(field, f"gives {given}, not {expected}")
        if at.has("features"):
            if self.feature_map != "elu":
                raise Refused("feature_map", f"{self.feature_map}, and features", "one of the two")
            at.slot("features", x.wide(head_width))
        elif self.normalize and self.feature_map == "identity":
            raise Refused("normalize", "weights of both signs may sum to zero", "normalize: false")
        return x

    def _readable(self, at: Place, x: Stream, memory: Stream) -> None:
        """Refuses a memory that is not read as one matrix."""
        for stream in (x, memory):
            if stream.content != "features" or not stream.spans:
                raise Refused("", f"attention reads features of tokens, not {stream}", "embed the tokens first")
            if stream.segmented:
                raise Refused("", f"reads beyond the segments of {stream}", "shift: 0")
        if not at.has("memory"):
            if x.causal and len(x.axes) != 1:
                raise Refused("", f"cannot be causal on {x}", "one axis")
            return
        if memory.causal:
            along = ", ".join(sorted(memory.causal_axes))
            raise Refused("memory", f"a memory is read whole, and this one is causal along {along}",
                          "kind: attention, whose queries see their past of it")  # fmt: skip
        if at.has("local"):
            raise Refused("local", "values are of the memory's tokens, not of those that read", "leave it out")

    def kept(self, node: Node) -> tuple[Kept, ...]:
        if "memory" in node.bodies:
            return ()
        heads, head_width, value_width = self.shape(node.types[0])
        width = node.bodies["features"].output.width if "features" in node.bodies else head_width
        return (Kept(heads * width * (value_width + self.normalize), per="sequence"),)
