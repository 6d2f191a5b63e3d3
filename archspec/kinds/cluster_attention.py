"""Attention inside clusters of alike tokens, whose centres follow the tokens."""

from typing import Annotated, ClassVar

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Kept, Matrix, Rate, Width
from archspec.kinds.heads import Heads
from archspec.streams import Stream


class ClusterAttention(Heads, kind="cluster_attention", role=("mixer", "body")):
    """Multi-head attention of each token to the ``window`` nearest tokens before it that are of its cluster.

    A head's queries are its keys, normalised; a token is of the cluster whose centre they agree with most, and centres
    move in training, without gradients, to the mean of what was given to them. A token reads itself only where it is
    alone. Without causality it reads the nearest of its cluster on both sides. With about ``sqrt(n)`` clusters of a
    window of ``sqrt(n)`` it costs ``n^1.5``. Roy et al. 2020, "Efficient Content-Based Sparse Attention with Routing
    Transformers", arXiv 2003.05997, where a cluster is the ``window`` tokens that agree most with its centre, so that
    whether a token is in it depends on later ones.
    """

    incremental: ClassVar[bool] = True
    clusters: Width
    window: Width = Field(description="tokens that are read, itself among them")
    decay: Annotated[Rate, Free()] = Field(0.999, description="share of a centre that stays in a step of training")
    dropout: Annotated[Rate, Free()] = Field(0.0, description="on the attention weights")

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        found = super().matrices(x)
        return {role: found[role] for role in ("query", "value", "out")}

    def output(self, x: Stream) -> Stream:
        if x.content != "features" or len(x.axes) != 1:
            raise Refused("", f"reads features of tokens along one axis, not {x}")
        if x.segmented:
            raise Refused("", f"does not keep segments apart, which {x} has", "windows without a shift")
        return x

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept(2 * self.inner(x) + self.heads),)
