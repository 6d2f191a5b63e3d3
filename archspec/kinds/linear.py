"""What a weight matrix may be instead of a plain one."""

from typing import Annotated, Any, Literal

from pydantic import Field

from archspec.errors import Refused
from archspec.graph import Node
from archspec.kind import Free, Kind, Matrix, Real, Slot, Width
from archspec.place import Place
from archspec.streams import Stream


class PlainMatrix(Kind, kind="matrix", role="linear"):
    """A plain matrix with first values of its own: ``gain`` times those of the spec's scheme, or times the identity.

    A gain that follows the depth: Wang et al. 2022, "Foundation Transformers", arXiv 2210.06423; identities and zeros:
    He and Hofmann 2023, "Simplifying Transformer Blocks", arXiv 2311.01906.
    """

    start: Annotated[Literal["scheme", "identity"], Free()] = "scheme"
    gain: Annotated[Real, Free()] = Field(1.0, description="what its first values are multiplied by; 0 makes them zero")

    def fit(self, matrix: Matrix, x: Stream) -> None:
        if self.start == "identity" and matrix.inputs != matrix.outputs:
            raise Refused("start", f"an identity cannot map {matrix.inputs} features to {matrix.outputs}", "scheme")


class LowRank(Kind, kind="low_rank", role="linear"):
    """A product of two thin matrices of the given rank.

    Sainath et al. 2013; Khodak et al. 2021, "Initialization and Regularization of Factorized Neural Layers",
    arXiv 2105.01029.
    """

    rank: Width

    def fit(self, matrix: Matrix, x: Stream) -> None:
        if self.rank > min(matrix.inputs, matrix.outputs):
            raise Refused("rank", f"rank {self.rank} of a matrix {matrix.inputs} × {matrix.outputs}",
                          f"at most {min(matrix.inputs, matrix.outputs)}")  # fmt: skip


class Lora(Kind, kind="lora", role="linear"):
    """A matrix and a product of two thin ones beside it, ``W x + scale up(down(x))``.

    Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685. Where several nodes or
    rounds use the same weights, each may have thin matrices of its own: Glorioso et al. 2024, "The Zamba2 Suite", arXiv
    2411.15242; Bae et al. 2024, "Relaxed Recursive Transformers", arXiv 2410.20672.
    """

    rank: Width
    scale: Real = Field(1.0, description="factor on what the thin matrices give")
    shared: bool = Field(True, description="whether users of the same weights share the thin matrices too")

    @property
    def own(self) -> bool:  # type: ignore[override]
        return not self.shared

    def fit(self, matrix: Matrix, x: Stream) -> None:
        if self.rank > min(matrix.inputs, matrix.outputs):
            raise Refused("rank", f"rank {self.rank} of a matrix {matrix.inputs} × {matrix.outputs}",
                          f"at most {min(matrix.inputs, matrix.outputs)}")  # fmt: skip


class NoMatrix(Kind, kind="no_matrix", role="linear"):
    """The identity in place of a matrix: features pass as they are."""

    def fit(self, matrix: Matrix, x: Stream) -> None:
        if matrix.inputs != matrix.outputs:
            raise Refused("", f"an identity cannot map {matrix.inputs} features to {matrix.outputs}")


class ByLabel(Kind, kind="by_label", role=("linear", "norm", "body")):
    """A copy of the weights for each value of a label; a token uses its own label's copy.

    Liang et al. 2024, "Mixture-of-Transformers", arXiv 2411.04996. As a default it wraps every weight matrix or norm.
    """

    wraps = True
    incremental = True
    label: str
    body: Annotated[Any, Slot(("norm", "channel"))] = Field(
        None, description="a norm or channel mixer; not for matrices"
    )

    def copies(self, x: Stream) -> int:
        """Values of the label."""
        count = dict(x.labels).get(self.label)
        if count is None:
            raise Refused("label", f"tokens carry no label {self.label!r}",
                          [name for name, _ in x.labels] or "declare it under labels: of the interface")  # fmt: skip
        return count

    def fit(self, matrix: Matrix, x: Stream) -> None:
        self.copies(x)

    def infer(self, at: Place) -> Stream:
        x = at.one()
        at.scope = at.scope.child()
        at.scope.defaults["norm"] = None  # what is wrapped is not wrapped again
        out = x
        for number in range(self.copies(x)):
            out = at.slot("body", x, as_=f"copies.{number}").output
        return out

    def written(self, node: Node, writer: Any) -> dict[str, Any]:
        return {"body": writer.slot(node.bodies["copies.0"], f"{node.name}_body")}
