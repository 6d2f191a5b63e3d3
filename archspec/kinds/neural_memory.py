"""Neural memory: a small network that learns, while it reads, to give values for keys."""

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused
from archspec.graph import Node
from archspec.kind import Count, Kept, Matrix, Slot, Width
from archspec.kinds.gated_linear_attention import GatedLinearAttention
from archspec.place import Place
from archspec.streams import Stream


class NeuralMemory(GatedLinearAttention, kind="neural_memory", role=("mixer", "body")):
    """``M[t] = keep M[t-1] - rate S[t]``, ``S[t] = hold S[t-1] + sum_i open_i dL_i/dM``, read as ``M[t](f(q))``.

    Behrouz et al. 2025, "Atlas: Learning to Optimally Memorize the Context at Test Time", arXiv 2505.23735. Each head
    has a memory ``M`` with learned first weights: a matrix, or with ``hidden`` a network ``k + W gelu(V f(k))``. The
    sum is over the last ``window`` tokens, ``L = |M(f(k)) - v|^2 / 2``, at the weights with which the ``chunk`` of
    tokens began, so that its tokens are read at once. All gates are sigmoids of the token. With a window of one it is
    Titans' (Behrouz, Zhong and Mirrokni 2025, arXiv 2501.00663); without momentum, in chunks of one, a delta rule.
    """

    incremental = True
    example = "{kind: neural_memory, heads: 4, hidden: 64, window: 4, momentum: true, newton_schulz: 5}"
    hidden: Width | None = Field(None, description="inner width of a memory; by default it is a matrix")
    window: Width = Field(1, description="tokens whose errors a step lessens, the last of them the token itself")
    chunk: Width = Field(16, description="tokens whose errors are those of one state of the memory")
    momentum: bool = Field(False, description="steps go on; how far, a gate says")
    newton_schulz: Count = Field(0, description="iterations that make a step orthogonal; Muon, with momentum, takes 5")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="the most that the gate gives; 1 / (window * chunk) by default"
    )
    convolution: Count = Field(4, description="taps of a convolution of query, key and value; 0 for none")
    features: Annotated[Any, Slot(("feature_map",))] = Field(
        None, description="a map of queries and keys of unit length; none by default"
    )

    def settle(self, node: Node) -> dict[str, Any]:
        return super().settle(node) | {"learning_rate": self.learning_rate or 1 / (self.window * self.chunk)}

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        gates = Matrix(x.width, self.heads * (2 + self.momentum + self.window), True)
        return {"gates" if role == "decay" else role: m for role, m in super().matrices(x).items()} | {"gates": gates}

    def infer(self, at: Place) -> Stream:
        x = super().infer(at)
        _, key_width, value_width = self.shape(x)
        if self.hidden and key_width != value_width:
            raise Refused(
                "value_width", f"keys of {key_width} features are added to values of {value_width}", key_width
            )
        at.apply("features", x.wide(key_width))
        return x

    def layers(self, node: Node) -> list[tuple[int, int]]:
        """Inputs and outputs of the matrices of a head's memory."""
        _, keys, values = self.shape(node.types[0])
        keys = node.bodies["features"].output.width if "features" in node.bodies else keys
        return [(keys, self.hidden), (self.hidden, values)] if self.hidden else [(keys, values)]

    def kept(self, node: Node) -> tuple[Kept, ...]:
        heads, keys, values = self.shape(node.types[0])
        layers = self.layers(node)
        memory = (1 + (self.chunk > 1) + self.momentum) * sum(inputs * outputs for inputs, outputs in layers)
        tails = (self.window - 1) * (layers[0][0] + values) + max(0, self.convolution - 1) * (2 * keys + values)
        return (Kept(heads * (memory + tails), per="sequence"),)
