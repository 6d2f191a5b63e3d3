"""What was measured of a device's kernels, and what whole models said of them; a part of its profile, as plain data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from search.cost.grid import Grid

DType = Literal["float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "int8"]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Kernels(_Data):
    """Times of kernels in one dtype.

    Attributes:
        products: by ``m, k, n``: ``[m, k]`` by a near ``[n, k]``.
        far_products: the same for few rows, the weights in far memory.
        reach: by ``bytes``: a product of one row by one of many matrices that together are so many bytes.
        bias: by ``m, n``: ``[m, 64]`` by a near ``[n, 64]`` with a bias.
        attention, causal: by ``queries, keys, width``, of so many ``heads`` at once.
        decoding: the same of few queries to keys and values that were kept, head by head.
        far_decoding: the same, what was kept in far memory.
        operators: by bytes, for each operator; a name that ends in ``/apart`` where its tensors do not lie alike.
    """

    products: Grid | None = None
    far_products: Grid | None = None
    reach: Grid | None = None
    attention: Grid | None = None
    causal: Grid | None = None
    bias: Grid | None = None
    decoding: Grid | None = None
    far_decoding: Grid | None = None
    heads: int = 1
    operators: dict[str, Grid] = {}


class Whole(_Data):
    """What whole models say, beyond their operators, of the latency in one phase.

    Attributes:
        factors: by kind of work (``host``: being asked for), by which times are multiplied.
        constant: seconds of every pass.
        errors: of models, each predicted from the others: predicted over measured, less one.
    """

    factors: dict[str, Share] = {}
    constant: Share = 0.0
    errors: tuple[float, ...] = ()


class Measured(_Data):
    """All that measurements say of a device.

    Attributes:
        kernels: by dtype.
        whole: by phase.
        canary: seconds of the clock's canary, to which all times are corrected.
        drift: how far it moved meanwhile, as a share.
        residual: how far the two times of a kernel lie from their mean after the canary's correction, in the median.
        fingerprint: of the device and of what ran on it.
    """

    kernels: dict[DType, Kernels] = {}
    whole: dict[str, Whole] = {}
    canary: Share = 0.0
    drift: Share = 0.0
    residual: Share = 0.0
    date: str = ""
    fingerprint: dict[str, str | int] = {}

    def of(self, phase: str) -> Whole:
        """What is known of a phase; where it was not measured, what is known of another."""
        return self.whole.get(phase) or next(iter(self.whole.values()), Whole())
