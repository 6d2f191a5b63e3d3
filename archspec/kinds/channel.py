"""Channel mixers: what a token does with itself."""

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused
from archspec.graph import Node
from archspec.kind import LARGEST, Activation, Free, Kind, Matrix, Moves, Rate, Real, Slot, Weighted, Width
from archspec.place import Place
from archspec.streams import Stream


class Inner(Weighted):
    """A channel mixer with an inner width: ``hidden``, or ``ratio`` times the width of the tokens."""

    hidden: Width | Annotated[float, Field(gt=0)] | None = Field(None, description="inner width")
    ratio: Annotated[float, Field(gt=0)] | None = Field(
        None, description="inner width as a multiple of the input width"
    )
    multiple_of: Width = Field(1, description="the inner width is rounded up to a multiple of this")
    width: Width | None = Field(None, description="output width; the input's by default")
    activation: Activation = "gelu"
    activate: Annotated[Any, Slot(("channel",))] = Field(
        None, description="a body in the place of activation, such as poly_relu, which may have weights of its own"
    )
    bias: bool = False
    dropout: Annotated[Rate, Free(), Moves()] = Field(0.0, description="on the inner features")

    def inner(self, x: Stream) -> int:
        if (self.hidden is None) == (self.ratio is None):
            raise Refused("hidden", "say either hidden or ratio", "hidden: 4 * width_in")
        field = "ratio" if self.hidden is None else "hidden"
        size = self.hidden if self.hidden is not None else x.width * (self.ratio or 0)
        if size > LARGEST:
            raise Refused(field, f"an inner width of {size:g}", f"at most {LARGEST:,}")
        if self.multiple_of == 1 and size != int(size):
            raise Refused(field, f"an inner width of {size:g}", "add multiple_of: 64, or floor(…)")
        return -(-int(size) // self.multiple_of) * self.multiple_of

    def output(self, x: Stream) -> Stream:
        return x.wide(self.width or x.width)

    def infer(self, at: Place) -> Stream:
        x = at.one()
        at.own(self.matrices(x))
        if at.has("activate"):
            usual = type(self).model_fields["activation"].default
            if self.activation != usual:
                raise Refused("activate", f"{self.activation} is the activation already", f"activation: {usual}")
            inner = x.wide(self.inner(x))
            given = at.slot("activate", inner).output
            if (given.width, given.spans) != (inner.width, inner.spans):
                raise Refused("activate", f"gives {given}, not {inner}")
        return self.output(x)

    def settle(self, node: Node) -> dict[str, Any]:
        return {"hidden": self.inner(node.types[0]), "ratio": None, "multiple_of": 1, "width": node.output.width}


class Mlp(Inner, kind="mlp", role=("channel", "body")):
    """Two-layer perceptron, ``down(activation(up(x)))``, optionally with a depthwise convolution between.

    Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762. With ``depthwise``: Wang et al. 2022, "PVT v2",
    arXiv 2106.13797.
    """

    example = "{kind: mlp, ratio: 4, activation: gelu, bias: true}"

    @property
    def pointwise(self) -> bool:  # type: ignore[override]
        return self.depthwise is None

    depthwise: Width | None = Field(None, description="size of a depthwise convolution over the tokens' grid, after up")

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        inner = self.inner(x)
        return {
            "up": Matrix(x.width, inner, self.bias),
            "down": Matrix(inner, self.width or x.width, self.bias, "out"),
        }

    def infer(self, at: Place) -> Stream:
        x = at.one()
        if self.depthwise and (len(x.spans) != 1 or any(axis.causal for axis in x.axes)):
            raise Refused("depthwise", f"needs one grid of tokens without a causal axis, not {x}")
        return super().infer(at)


class Glu(Inner, kind="glu", role=("channel", "body")):
    """Gated linear unit, ``down(f(gate(x)) * (up(x) + up_offset))`` with ``f(z) = activation(alpha z) / alpha``.

    Shazeer 2020, "GLU Variants Improve Transformer", arXiv 2002.05202. With ``limit``, the gate is cut off above it,
    and up on both sides: OpenAI 2025, "gpt-oss-120b & gpt-oss-20b", arXiv 2508.10925.
    """

    pointwise = True
    rare = ("alpha", "limit", "up_offset")
    example = "{kind: glu, hidden: 8 * width_in / 3, multiple_of: 64}"
    activation: Activation = "silu"
    alpha: Annotated[Real, Field(gt=0)] = Field(1.0, description="steepness of the activation; silu becomes swish")
    limit: Annotated[Real, Field(gt=0)] | None = Field(None, description="largest gate and size of up")
    up_offset: Real = Field(0.0, description="added to up")

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        inner = self.inner(x)
        return {
            "gate": Matrix(x.width, inner, self.bias),
            "up": Matrix(x.width, inner, self.bias),
            "down": Matrix(inner, self.width or x.width, self.bias, "out"),
        }


class Project(Weighted, kind="project", role=("channel", "body")):
    """A linear map of each token to another width."""

    pointwise = True
    width: Width
    bias: bool = False
    activation: Activation = "identity"

    def output(self, x: Stream) -> Stream:
        return x.wide(self.width)

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        return {"weight": Matrix(x.width, self.width, self.bias)}


class Activate(Kind, kind="activation", role=("channel", "body")):
    """A function of each feature."""

    pointwise = True
    function: Activation = "gelu"

    def output(self, x: Stream) -> Stream:
        return x


class GatedActivation(Kind, kind="gated_activation", role=("channel", "body")):
    """The first half of the features gates the second, ``activation(a) * b``.

    Dauphin et al. 2017, "Language Modeling with Gated Convolutional Networks", arXiv 1612.08083.
    """

    pointwise = True
    function: Activation = "sigmoid"

    def output(self, x: Stream) -> Stream:
        if x.width % 2:
            raise Refused("", f"{x.width} features have no halves")
        return x.wide(x.width // 2)
