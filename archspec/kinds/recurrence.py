"""Linear recurrences of each feature: a state that decays and is written to, token by token."""

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import Activation, Count, Kept, Kind, Matrix, Weighted, Width
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


class QuasiRecurrent(Kind, kind="quasi_recurrent", role=("mixer", "body")):
    """Gates from a convolution, then a recurrence without matrices: ``c[t] = f c[t-1] + (1 - f) z``, ``o c``.

    Bradbury et al. 2017, "Quasi-Recurrent Neural Networks", arXiv 1611.01576, with the pooling that it calls fo:
    ``z = tanh(W * x)``, ``f`` and ``o`` are sigmoids of other convolutions over the same ``size`` tokens, the last of
    which is the token itself.
    """

    incremental = True
    width: Width | None = Field(None, description="features of the recurrence and the output; the input's by default")
    size: Width = Field(2, description="taps of the convolution")
    bias: bool = True

    def output(self, x: Stream) -> Stream:
        return in_order(x).wide(self.width or x.width)

    def settle(self, node: Node) -> dict[str, Any]:
        return {"width": node.output.width}

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept((self.size - 1) * x.width + (self.width or x.width), per="sequence"),)


def in_order(x: Stream) -> Stream:
    """The stream, whose tokens a recurrence reads one after another; refused where they have no such order."""
    if x.content != "features" or len(x.axes) != 1:
        raise Refused("", f"a recurrence reads features along one axis, not {x}", "flatten the grid first")
    if x.segmented:
        raise Refused("", f"a recurrence would go on from one segment of {x} into the next", "shift: 0")
    return x
