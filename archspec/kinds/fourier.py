"""Fourier mixing: tokens mix by a transform without weights."""

from archspec.errors import Refused
from archspec.kind import Kind
from archspec.streams import Stream


class Fourier(Kind, kind="fourier", role=("mixer", "body")):
    """The real part of the discrete Fourier transform along tokens and features, ``Re(F x F')``.

    Lee-Thorp et al. 2021, "FNet: Mixing Tokens with Fourier Transforms", arXiv 2105.03824. Over a grid it transforms
    along every axis. Of a padded sequence the real tokens alone are transformed, as if nothing stood between them.
    """

    def output(self, x: Stream) -> Stream:
        if x.content != "features" or len(x.spans) != 1 or not x.axes:
            raise Refused("", f"transforms features of tokens on one grid, not {x}")
        if x.causal:
            raise Refused("", f"every frequency reads all tokens; {x} is causal along {', '.join(x.causal_axes)}")
        if x.valid and len(x.axes) > 1:
            raise Refused("", f"padding has no place on a grid of {len(x.axes)} axes", "transform one axis")
        return x
