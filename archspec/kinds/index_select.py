"""Tokens by their place in another stream."""

from archspec.errors import Refused
from archspec.kind import Kind
from archspec.place import Place
from archspec.streams import Stream


class IndexSelect(Kind, kind="index_select"):
    """For each id of the second stream, the token of the first that stands at that place.

    So phonemes become frames, given which of them sounds in each (Ren et al. 2019, "FastSpeech", arXiv 1905.09263), and
    a pointer's choice the token that it chose. A place that is none gives the last token.
    """

    arity = (2, 2)
    incremental = True

    def infer(self, at: Place) -> Stream:
        x, places = at.inputs
        if x.content != "features" or not x.spans or x.causal:
            raise Refused("from", f"tokens are taken from a finished stream of features, not from {x}")
        if places.content != "ids":
            raise Refused("from", f"places are ids, not {places}", "an input with vocab: the number of places")
        return places.wide(x.width)
