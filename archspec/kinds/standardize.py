"""Samples freed of their mean and deviation, and given them back."""

from typing import Annotated

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Kind
from archspec.place import Place
from archspec.streams import Stream


class Standardize(Kind, kind="standardize"):
    """Takes a sample's mean and standard deviation, over all its tokens and their features, from it.

    The port ``statistics`` gives both, for `restore`: Kim et al. 2022, "Reversible Instance Normalization for Accurate
    Time-Series Forecasting against Distribution Shift", without learned gains. Padding has no part in them.
    """

    eps: Annotated[float, Field(gt=0)] = Field(1e-5, description="added to the variance")

    def infer(self, at: Place) -> dict[str, Stream]:
        x = at.one()
        if x.content != "features" or not x.spans:
            raise Refused("from", f"needs features of tokens, not {x}")
        if x.causal:
            raise Refused("from", f"the mean of {x} would tell of later tokens; it is causal", "a norm of each token")
        return {"": x, "statistics": Stream(2, ())}


class Restore(Kind, kind="restore"):
    """Gives what was made of a standardized sample its mean and standard deviation back; reads it and the statistics.

    Kim et al. 2022, "Reversible Instance Normalization for Accurate Time-Series Forecasting".
    """

    arity = (2, 2)

    def infer(self, at: Place) -> Stream:
        x, statistics = at.inputs
        if (statistics.width, statistics.spans) != (2, ()):
            raise Refused("from", f"{statistics} is no mean and deviation", "the port statistics of standardize")
        return x
