"""Monarch matrices: block-diagonal ones with a permutation between them."""

from archspec.errors import Refused
from archspec.kind import Kind, Matrix, Width
from archspec.streams import Stream


class Monarch(Kind, kind="monarch", role="linear"):
    """``P' L P R``: two block-diagonal matrices of ``blocks`` blocks, with permutations after each.

    Dao et al. 2022, "Monarch: Expressive Structured Matrices", arXiv 2204.00595; Fu et al. 2023, "Monarch Mixer",
    arXiv 2310.12109. ``P`` turns ``[blocks, features]`` into ``[features, blocks]``. Of a matrix that is not square the
    features between the two are as many as on its narrower side. With about ``sqrt(width)`` blocks it has
    ``2 width^1.5`` numbers, and every output reads every input.
    """

    blocks: Width

    def fit(self, matrix: Matrix, x: Stream) -> None:
        if matrix.inputs % self.blocks or matrix.outputs % self.blocks:
            raise Refused("blocks", f"a matrix {matrix.inputs} × {matrix.outputs} has no {self.blocks} equal blocks",
                          "a number that divides both")  # fmt: skip
