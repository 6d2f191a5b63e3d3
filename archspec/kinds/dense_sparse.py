"""A small dense matrix times a sparse one."""

from archspec.errors import Refused
from archspec.kind import Kind, Matrix, Width
from archspec.streams import Stream


class DenseSparse(Kind, kind="dense_sparse", role="linear"):
    """``D S``: a dense ``D`` of ``rank`` columns and an ``S`` with ``nonzeros`` numbers in each of its columns.

    Chand et al. 2023, "DSFormer: Effective Compression of Text-Transformers by Dense-Sparse Weight Factorization",
    arXiv 2312.13211. Each input feature so reads its own few columns of ``D``, where a low rank would give all features
    the same ones. The numbers that count are the largest of each column of a full matrix; its gradients reach all of
    them (straight through), so that others may become the largest. While it trains, the full matrix is stored; what
    counts is ``rank * outputs + nonzeros * inputs`` numbers.
    """

    rank: Width
    nonzeros: Width

    def fit(self, matrix: Matrix, x: Stream) -> None:
        if self.nonzeros > self.rank:
            raise Refused("nonzeros", f"{self.nonzeros} numbers in a column of {self.rank}", f"at most {self.rank}")
