"""Activations that are polynomials with learned weights."""

from typing import Annotated

from pydantic import Field

from archspec.kind import Kind
from archspec.streams import Stream


class Polynomial(Kind):
    """A weighted sum of powers; all weights are ``1 / order`` at first, that of the constant zero."""

    pointwise = True
    order: Annotated[int, Field(ge=1, le=8)] = Field(3, description="the highest power")

    def output(self, x: Stream) -> Stream:
        return x


class PolyRelu(Polynomial, kind="poly_relu", role=("channel", "body")):
    """``a_0 + a_1 relu(x) + a_2 relu(x)^2 + ...`` with learned ``a``; with ``(0, 1, 0, ...)`` it is a relu.

    Zhuo et al. 2024, "Polynomial Composition Activations: Unleashing the Dynamics of Large Language Models", arXiv
    2411.03884.
    """


class PolyNorm(Polynomial, kind="poly_norm", role=("channel", "body")):
    """``a_0 + a_1 n(x) + a_2 n(x^2) + ...`` with learned ``a``; ``n`` divides a token's features by their root mean
    square.

    Zhuo et al. 2024, "Polynomial Composition Activations: Unleashing the Dynamics of Large Language Models", arXiv
    2411.03884.
    """

    eps: Annotated[float, Field(gt=0)] = 1e-6
