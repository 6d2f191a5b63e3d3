"""Matrices that leave what they read beside what they make of it."""

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Kind, Matrix, Width
from archspec.streams import Stream


class IdentityBeside(Kind, kind="identity_beside", role="linear"):
    """For each head a matrix and, beside it, a multiple of the identity: ``(W_h x, gain_h x)``.

    As the query and the key of an attention it makes scores ``x W_q' W_k x + gain x' x``, the product of the matrices
    plus a multiple of the identity; as its value and the matrix out, which adds what it reads of each head,
    ``sum_h W_h y_h + gain_h z_h``, the same of their product. Boix-Adserà et al. 2024, "When can transformers reason
    with abstract symbols?", arXiv 2310.09753. Heads are as wide as W and the tokens together, ``head_width: 16 +
    width_in``; ``scale`` is that of W alone.
    """

    heads: Width
    learned: bool = Field(True, description="a number for each head, zero at first; one otherwise")

    def inner(self, matrix: Matrix) -> int:
        """Features of a head that W makes, or reads where the matrix goes out of the heads."""
        wide, narrow = max(matrix[:2]), min(matrix[:2])
        return wide // self.heads - narrow

    def fit(self, matrix: Matrix, x: Stream) -> None:
        if max(matrix[:2]) % self.heads or self.inner(matrix) < 1:
            shape = f"{matrix.inputs} × {matrix.outputs}"
            raise Refused("heads", f"{self.heads} heads of a matrix {shape} leave no room for the identity",
                          f"head_width: 16 + {min(matrix[:2])}")  # fmt: skip
