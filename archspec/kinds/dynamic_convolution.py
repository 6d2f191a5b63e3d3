"""Dynamic convolution: a convolution whose taps each token chooses."""

from archspec.errors import Refused, divisors
from archspec.kind import Kept, Matrix, Weighted, Width
from archspec.kinds.convolution import convolvable
from archspec.place import Place
from archspec.streams import Stream


class DynamicConvolution(Weighted, kind="dynamic_convolution", role=("mixer", "body")):
    """Each head filters its features along the tokens, ``y_i = sum_t softmax(W c_i)_t x_(i+t)``.

    Wu et al. 2019, "Pay Less Attention with Lightweight and Dynamic Convolutions", arXiv 1901.10430. The taps come from
    the token itself, or from a second stream ``c``: from the span around the token in Jiang et al. 2020, "ConvBERT",
    arXiv 2008.02496. Along a causal axis it reads the past alone.
    """

    arity = (1, 2)
    incremental = True
    example = "{kind: dynamic_convolution, heads: 8, size: 3}"
    heads: Width
    size: Width
    bias: bool = True

    def infer(self, at: Place) -> Stream:
        x, source = at.inputs[0], at.inputs[-1]
        if x.content != "features" or len(x.axes) != 1:
            raise Refused("", f"filters features of tokens along one axis, not {x}")
        if x.width % self.heads:
            raise Refused("heads", f"width {x.width} does not divide into {self.heads} heads", divisors(x.width))
        convolvable(x, self.size)
        if source.spans != x.spans:
            raise Refused("from", f"the taps come from {source}, the tokens are {x}", "two streams of the same tokens")
        at.own({"taps": Matrix(source.width, self.heads * self.size, self.bias)})
        return x

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept((self.size - 1) * x.width, per="sequence"),)
