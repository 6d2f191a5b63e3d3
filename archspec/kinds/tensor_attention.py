"""Attention of third order: a token reads pairs of tokens."""

from archspec.errors import Refused
from archspec.kind import Kept, Matrix
from archspec.kinds.heads import Heads
from archspec.streams import Stream


class TensorAttention(Heads, kind="tensor_attention", role=("mixer", "body")):
    """Softmax over pairs of tokens, ``sum_jl softmax_jl(sum_d q_id k_jd k2_ld / sqrt(head_width)) v_j v2_l``.

    Keys and values are row-wise Kronecker products of two, so that a triple of tokens is matched in one layer. It costs
    the cube of the length. It follows the causality of its stream: both tokens of a pair come before. Alman and Song
    2023, "How to Capture Higher-order Correlations? Generalizing Matrix Softmax Attention to Kronecker Computation",
    arXiv 2310.04064; Sanford, Hsu and Telgarsky 2023, arXiv 2306.02896.
    """

    incremental = True

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        inner = self.inner(x)
        ways = {role: Matrix(x.width, inner, self.bias) for role in ("query", "key", "key_2", "value", "value_2")}
        return ways | {"out": Matrix(inner, x.width, self.bias, "out")}

    def output(self, x: Stream) -> Stream:
        if x.content != "features" or len(x.axes) != 1:
            raise Refused("", f"reads features of tokens along one axis, not {x}")
        if x.segmented:
            raise Refused("", f"does not keep segments apart, which {x} has", "windows without a shift")
        return x

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept(4 * self.inner(x)),)
