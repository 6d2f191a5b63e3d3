"""Attention over parameters in the place of a matrix."""

from typing import Annotated, Literal

from pydantic import Field

from archspec.kind import Kind, Matrix, Width
from archspec.streams import Stream


class TokenParameters(Kind, kind="token_parameters", role="linear"):
    """Attention of a token to ``count`` learned pairs of a key and a value: ``sum f(x k') v``.

    Wang et al. 2024, "TokenFormer: Rethinking Transformer Scaling with Tokenized Model Parameters", arXiv 2410.23168.
    ``f`` of scores ``s``: ``l2_gelu`` is ``gelu(scale s / |s|)``, ``gelu_l2`` is ``scale gelu(s) / |gelu(s)|``,
    ``softmax`` is ``scale^2 softmax(s)``. Of the first two, keys of zero say nothing, so that more of them leave the
    function as it was, while ``scale`` stays (`compiler.grow`).
    """

    count: Width = Field(description="pairs of a key and a value")
    normalize: Literal["l2_gelu", "gelu_l2", "softmax"] = "l2_gelu"
    scale: Annotated[float, Field(gt=0)] | None = Field(None, description="the root of count by default")

    @property
    def scaled(self) -> float:
        """The scale that counts."""
        return self.count**0.5 if self.scale is None else self.scale

    def fit(self, matrix: Matrix, x: Stream) -> None:
        """It fits everywhere."""
