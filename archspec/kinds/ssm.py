"""Selective state spaces: a state that decays and is written to at a pace that each token sets."""

from typing import Annotated, Any, Literal

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import LARGEST, Activation, Count, Kept, Matrix, Slot, Weighted, Width
from archspec.kinds.recurrence import in_order
from archspec.place import Place
from archspec.streams import Stream

EXPAND = 2
HEAD_WIDTH = 64


class StateSpace(Weighted):
    """A state space behind a causal convolution, and what is gated of what it gives."""

    incremental = True
    expand: Annotated[float, Field(gt=0)] | None = Field(
        None, description=f"inner width as a multiple of the input width; {EXPAND} by default"
    )
    state: Width = Field(16, description="numbers that each inner feature keeps")
    convolution: Count = Field(4, description="taps of the convolution before the state; 0 for none")
    convolution_bias: bool = True
    activation: Activation = Field("silu", description="after the convolution")
    bias: bool = Field(False, description="biases on the matrices that read the input and on out")

    def expanded(self, x: Stream) -> int:
        """The input width times ``expand``."""
        size = x.width * (EXPAND if self.expand is None else self.expand)
        if size != int(size) or size > LARGEST:
            raise Refused("expand", f"an inner width of {size:g}", "a multiple that gives whole features")
        return int(size)


class Mamba(StateSpace, kind="mamba", role=("mixer", "body")):
    """Selective state space (S6): ``h[t] = exp(dt A) h[t-1] + dt B v``, ``out((C h[t] + D v) silu(gate))``.

    Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv 2312.00752. Each inner
    feature ``v``, behind the convolution, has a state of its own, which decays at the rates ``A = -exp(A_log)``. ``B``
    and ``C``, which inner features share, and ``dt = softplus(dt_up(dt_down(v)) + dt_bias)`` depend on the token. With
    a ``norm`` on ``dt_down(v)``, ``B`` and ``C``: Lieber et al. 2024, "Jamba", arXiv 2403.19887.
    """

    example = "{kind: mamba, state: 16}"
    hidden: Width | None = Field(None, description="inner width; expand * width by default")
    dt_rank: Width | None = Field(None, description="width of what the time steps are made of; width / 16 by default")
    norm: Annotated[Any, Slot(("norm",))] = Field(None, description="on what the time steps are made of, B and C")

    def shape(self, x: Stream) -> tuple[int, int]:
        """Inner width and rank of the time steps."""
        if self.hidden is not None and self.expand is not None:
            raise Refused("hidden", "say either hidden or expand", "hidden: 2 * width_in")
        return self.hidden or self.expanded(x), self.dt_rank or -(-x.width // 16)

    def settle(self, node: Node) -> dict[str, Any]:
        hidden, rank = self.shape(node.types[0])
        return {"hidden": hidden, "dt_rank": rank, "expand": None}

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        inner, rank = self.shape(x)
        return {
            "value": Matrix(x.width, inner, self.bias),
            "gate": Matrix(x.width, inner, self.bias),
            "dt_down": Matrix(inner, rank),
            "B": Matrix(inner, self.state),
            "C": Matrix(inner, self.state),
            "dt_up": Matrix(rank, inner),
            "out": Matrix(inner, x.width, self.bias, "out"),
        }

    def infer(self, at: Place) -> Stream:
        x = in_order(at.one())
        at.own(self.matrices(x))
        if at.has("norm"):
            for name, width in (("dt", self.shape(x)[1]), ("B", self.state), ("C", self.state)):
                at.slot("norm", x.wide(width), as_=f"{name}_norm")
        return x

    def written(self, node: Node, writer: Any) -> dict[str, Any]:
        found = super().written(node, writer)
        if "B_norm" in node.bodies:
            found["norm"] = writer.slot(node.bodies["B_norm"], f"{node.name}_norm")
        return found

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        inner = self.shape(x)[0]
        return (Kept(inner * (self.state + max(0, self.convolution - 1)), per="sequence"),)


class Mamba2(StateSpace, kind="mamba2", role=("mixer", "body")):
    """State space dual (SSD): ``H[t] = exp(dt A) H[t-1] + dt v B'``, ``out(norm((H[t] C + D v) silu(gate)))``.

    Dao and Gu 2024, "Transformers are SSMs", arXiv 2405.21060. Each head has a state of ``head_width x state`` that
    decays at one rate ``A = -exp(A_log)``. Values, ``B`` and ``C``, which the heads of a group share, go through the
    convolution; ``dt = softplus(dt(x) + dt_bias)``, one for each head.
    """

    example = "{kind: mamba2, heads: 8, groups: 2, state: 64}"
    heads: Width | None = Field(None, description="heads; inner width / head_width by default")
    head_width: Width | None = Field(
        None, description=f"features of a head; inner width / heads by default, {HEAD_WIDTH} without either"
    )
    groups: Width = Field(1, description="B and C; heads of a group share them")
    state: Width = Field(128, description="columns of a head's state")
    dt_min: Annotated[float, Field(ge=0)] = Field(0.0, description="the shortest time step")
    dt_max: Annotated[float, Field(gt=0)] | None = Field(None, description="the longest time step")
    norm: Annotated[Any, Slot(("norm",))] = Field("rms_norm", description="on what is read, of all heads")
    gated: Literal["before_norm", "after_norm"] = Field("before_norm", description="where the gate is applied")
    chunk: Width = Field(64, description="tokens that are computed at once as attention; does not change the result")

    def shape(self, x: Stream) -> tuple[int, int]:
        """Heads and width of a head."""
        heads, head_width = self.heads, self.head_width
        if heads is None or head_width is None:
            inner = self.expanded(x)
            if heads is None:
                head_width = head_width or HEAD_WIDTH
                if inner % head_width:
                    raise Refused("head_width", f"inner width {inner} does not divide into heads of {head_width}",
                                  [d for d in divisors(inner) if d <= 256])  # fmt: skip
                heads = inner // head_width
            elif inner % heads:
                raise Refused("heads", f"inner width {inner} does not divide into {heads} heads", divisors(inner))
            else:
                head_width = inner // heads
        elif self.expand is not None:
            raise Refused("expand", "heads and head_width say the inner width already")
        if heads % self.groups:
            raise Refused("groups", f"{heads} heads cannot be divided into {self.groups} groups", divisors(heads))
        return heads, head_width

    def settle(self, node: Node) -> dict[str, Any]:
        heads, head_width = self.shape(node.types[0])
        return {"heads": heads, "head_width": head_width, "expand": None}

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        heads, head_width = self.shape(x)
        inner, shared = heads * head_width, self.groups * self.state
        widths = {"gate": inner, "value": inner, "B": shared, "C": shared, "dt": heads}
        owned = {role: Matrix(x.width, width, self.bias) for role, width in widths.items()}
        return owned | {"out": Matrix(inner, x.width, self.bias, "out")}

    def infer(self, at: Place) -> Stream:
        x = in_order(at.one())
        heads, head_width = self.shape(x)
        if self.dt_max is not None and self.dt_max <= self.dt_min:
            raise Refused("dt_max", f"the longest time step is {self.dt_max}, the shortest {self.dt_min}")
        at.own(self.matrices(x))
        if at.has("norm"):
            at.slot("norm", x.wide(heads * head_width))
        return x

    def written(self, node: Node, writer: Any) -> dict[str, Any]:
        return {"norm": "absent"} | super().written(node, writer)

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        heads, head_width = self.shape(x)
        inner = heads * head_width
        tail = max(0, self.convolution - 1) * (inner + 2 * self.groups * self.state)
        return (Kept(tail + inner * self.state, per="sequence"),)
