"""Matrices that are mixtures of shared ones."""

from archspec.kind import Kind, Matrix, Width
from archspec.streams import Stream


class SharedAtoms(Kind, kind="shared_atoms", role="linear"):
    """A mixture of ``count`` matrices of its size, ``sum_s c_s A_s``, with learned numbers ``c``.

    Where several nodes or rounds use the same weights, as under ``share`` of a repeat, the matrices ``A`` are one, and
    the numbers (and the bias) each user's own. Zhussip et al. 2025, "Share Your Attention: Transformer Weight Sharing
    via Matrix-based Dictionary Learning", arXiv 2508.04581.
    """

    own = True
    count: Width

    def fit(self, matrix: Matrix, x: Stream) -> None:
        """Any matrix has atoms."""
