"""Tables that are looked up in the place of a matrix."""

from typing import Annotated

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.kind import Kind, Matrix
from archspec.streams import Stream


class HashMemory(Kind, kind="hash_memory", role="linear"):
    """The sum of a row of each of ``inputs / bits`` tables of ``2^bits`` rows, which the signs of its inputs choose.

    Ding et al. 2024, "MemoryFormer: Minimize Transformer Computation by Removing Fully-Connected Layers", arXiv
    2411.12992. A row is weighed by ``sum |z| / prod (1 + exp(-2 |z|))`` over the ``bits`` inputs ``z`` of its table:
    how like they are to their signs, times the chance of these signs among all. So the inputs get gradients, and of
    each table the row that was read. It multiplies ``outputs * inputs / bits`` numbers and stores ``2^bits`` as many.
    """

    bits: Annotated[int, Field(ge=1, le=16)] = Field(8, description="inputs of each table")

    def fit(self, matrix: Matrix, x: Stream) -> None:
        if matrix.inputs % self.bits:
            raise Refused("bits", f"{matrix.inputs} inputs do not divide into tables of {self.bits}",
                          [bits for bits in divisors(matrix.inputs) if bits <= 16])  # fmt: skip
