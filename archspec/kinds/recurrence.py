"""Linear recurrences of each feature: a state that decays and is written to, token by token."""

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import Activation, Count, Kept, Matrix, Weighted, Width
from archspec.streams import Stream


class RgLru(Weighted, kind="rg_lru", role=("mixer", "body")):
    """Griffin's recurrent block around a real-gated linear recurrent unit, ``out(activation(gate(x)) * h)``.

    De et al. 2024, "Griffin: Mixing Gated Linear Recurrences with Local Attention", arXiv 2402.19427. The value goes
    through a causal convolution; of what comes out, ``v``, each feature has a state ``h[t] = a[t] h[t-1] +
    sqrt(1 - a[t]^2) i[t] v[t]`` with ``a = exp(-sharpness softplus(decay) r)``. The gates ``i`` and ``r`` are sigmoids
    of block-diagonal maps of ``v``. The first token of a sequence is written as it is, without the square root.
    """

    incremental = True
    width: Width | None = Field(None, description="features of the recurrence; the input's width by default")
    heads: Width = Field(1, description="blocks on the diagonal of the maps of the two gates")
    convolution: Count = Field(4, description="taps of the convolution before the recurrence; 0 for none")
    activation: Activation = Field("gelu_tanh", description="of the gate of the output")
    sharpness: Annotated[float, Field(gt=0)] = Field(8.0, description="factor on the exponent of the decay")
    bias: bool = Field(
        True, description="biases on the matrices and the convolution; the block-diagonal maps have some"
    )

    def inner(self, x: Stream) -> int:
        """Features of the recurrence."""
        return self.width or x.width

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        inner = self.inner(x)
        return {
            "gate": Matrix(x.width, inner, self.bias),
            "value": Matrix(x.width, inner, self.bias),
            "out": Matrix(inner, x.width, self.bias, "out"),
        }

    def output(self, x: Stream) -> Stream:
        if self.inner(x) % self.heads:
            width = self.inner(x)
            raise Refused("heads", f"width {width} does not divide into {self.heads} blocks", divisors(width))
        return in_order(x)

    def settle(self, node: Node) -> dict[str, Any]:
        return {"width": self.inner(node.types[0])}

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept(max(1, self.convolution) * self.inner(x), per="sequence"),)


def in_order(x: Stream) -> Stream:
    """The stream, whose tokens a recurrence reads one after another; refused where they have no such order."""
    if x.content != "features" or len(x.axes) != 1:
        raise Refused("", f"a recurrence reads features along one axis, not {x}", "flatten the grid first")
    if x.segmented:
        raise Refused("", f"a recurrence would go on from one segment of {x} into the next", "shift: 0")
    return x
