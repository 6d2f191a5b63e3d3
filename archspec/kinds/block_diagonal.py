"""Block-diagonal matrices: groups of features that do not mix."""

from archspec.errors import Refused
from archspec.kind import Kind, Matrix, Width
from archspec.streams import Stream


class BlockDiagonal(Kind, kind="block_diagonal", role="linear"):
    """A matrix of blocks along its diagonal: each of the ``groups`` of features has a smaller matrix of its own.

    Jiang et al. 2020, "ConvBERT", arXiv 2008.02496, as grouped linear operator; Dao et al. 2022, "Monarch",
    arXiv 2204.00595.
    """

    groups: Width

    def fit(self, matrix: Matrix, x: Stream) -> None:
        if matrix.inputs % self.groups or matrix.outputs % self.groups:
            raise Refused("groups", f"a matrix {matrix.inputs} × {matrix.outputs} has no {self.groups} equal blocks",
                          "a number that divides both")  # fmt: skip
