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
        far: by ``m, bytes``: one product of many whose weights together are so many bytes.
        attention, causal: by ``queries, keys, width``, of so many ``heads`` at once.
        operators: by bytes, for each operator; a name that ends in ``/apart`` where its tensors do not lie alike.
    """

    products: Grid | None = None
    far: Grid | None = None
    attention: Grid | None = None
    causal: Grid | None = None
    heads: int = 1
    operators: dict[str, Grid] = {}


class Measured(_Data):
    """All that measurements say of a device.

    Attributes:
        kernels: by dtype.
        factors: by kind of work (``host``: being asked for), and by which times are multiplied.
        constant: seconds of every pass.
        errors: of whole models, each predicted from the others: measured over predicted, less one.
        drift: how far the canary moved meanwhile.
    """

    kernels: dict[DType, Kernels] = {}
    factors: dict[str, Share] = {}
    constant: Share = 0.0
    errors: tuple[float, ...] = ()
    drift: Share = 0.0
    date: str = ""
    versions: dict[str, str] = {}
