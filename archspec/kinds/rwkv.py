"""RWKV: an average of all earlier tokens whose weights fade, and a channel mixer that sees the token before."""

from typing import Any

from pydantic import Field

from archspec.graph import Node
from archspec.kind import Kept, Matrix, Weighted, Width
from archspec.kinds.recurrence import in_order
from archspec.streams import Stream


class RwkvTimeMixing(Weighted, kind="rwkv_time_mixing", role=("mixer", "body")):
    """RWKV's time mixing, ``out(sigmoid(receptance) * wkv)``, with ``wkv[t] = sum w v / sum w`` of each feature.

    Peng et al. 2023, "RWKV: Reinventing RNNs for the Transformer Era", arXiv 2305.13048 (version 4). The weights are
    ``w[s] = exp(key[s] - (t - 1 - s) exp(decay))`` for earlier tokens, ``exp(key[t] + bonus)`` for the token itself.
    Receptance, key and value are linear in mixtures of a token and the one before it, ``mix x[t] + (1 - mix) x[t-1]``.
    """

    incremental = True
    width: Width | None = Field(None, description="features that are averaged; the input's width by default")

    def inner(self, x: Stream) -> int:
        """Features that are averaged."""
        return self.width or x.width

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        inner = self.inner(x)
        read = {role: Matrix(x.width, inner) for role in ("receptance", "key", "value")}
        return read | {"out": Matrix(inner, x.width, False, "out")}

    def output(self, x: Stream) -> Stream:
        return in_order(x)

    def settle(self, node: Node) -> dict[str, Any]:
        return {"width": self.inner(node.types[0])}

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept(x.width + 3 * self.inner(x), per="sequence"),)


class RwkvChannelMixing(Weighted, kind="rwkv_channel_mixing", role=("channel", "body")):
    """RWKV's channel mixing, ``sigmoid(receptance) * value(relu(key)^2)``.

    Peng et al. 2023, "RWKV: Reinventing RNNs for the Transformer Era", arXiv 2305.13048. Receptance and key are linear
    in mixtures of a token and the one before it, as in `rwkv_time_mixing`.
    """

    incremental = True
    hidden: Width | None = Field(None, description="inner width; 4 times the input's by default")

    def inner(self, x: Stream) -> int:
        """The inner width."""
        return self.hidden or 4 * x.width

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        return {
            "receptance": Matrix(x.width, x.width),
            "key": Matrix(x.width, self.inner(x)),
            "value": Matrix(self.inner(x), x.width, False, "out"),
        }

    def output(self, x: Stream) -> Stream:
        return in_order(x)

    def settle(self, node: Node) -> dict[str, Any]:
        return {"hidden": self.inner(node.types[0])}

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept(x.width, per="sequence"),)
