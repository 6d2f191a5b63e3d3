"""Fewer tokens by a linear map along the sequence."""

from dataclasses import replace

from archspec.errors import Refused
from archspec.kind import Matrix, Weighted, Width
from archspec.streams import Axis, Stream


class ProjectTokens(Weighted, kind="project_tokens"):
    """A linear map of the tokens: each new token is a learned sum of all, the same for every feature.

    As the memory of an attention it makes its cost linear: Wang et al. 2020, "Linformer: Self-Attention with Linear
    Complexity", arXiv 2006.04768. The matrix is as long as the longest sequence; shorter ones read its first columns.
    Padding says nothing.
    """

    count: Width
    bias: bool = False

    def output(self, x: Stream) -> Stream:
        if x.content != "features" or len(x.axes) != 1:
            raise Refused("", f"maps tokens of one axis, not those of {x}", "kind: flatten before")
        if x.causal:
            raise Refused("", f"every new token reads all of {x}, which is causal", "an attention with a window")
        if x.segmented:
            raise Refused("", f"does not keep segments apart, which {x} has")
        if x.most is None:
            raise Refused("", f"{x} has no longest sequence", "limit: 512 in the interface")
        axis = Axis(x.axes[0].name, self.count)
        return replace(x.on(replace(x.spans[0], axes=(axis,))), labels=(), placed=False, valid=False)

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        return {"tokens": Matrix(x.most or 1, self.count, self.bias)}
