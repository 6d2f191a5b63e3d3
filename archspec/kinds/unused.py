"""Which places may still be chosen."""

from archspec.errors import Refused
from archspec.kind import Kind
from archspec.place import Place
from archspec.streams import Axis, Span, Stream


class Unused(Kind, kind="unused"):
    """For each step and each token, one where the token was not chosen up to this step and is open, else zero.

    The first stream has the place that was chosen before each step, the second one feature for each token, above zero
    where it is open. A place beyond the tokens is no choice. Attention takes it as a ``mask``, and so does a pointer
    (Vinyals et al. 2015, "Pointer Networks", arXiv 1506.03134; Kool et al. 2018, "Attention, Learn to Solve Routing
    Problems!", arXiv 1803.08475).
    """

    arity = (2, 2)
    carries = True

    def infer(self, at: Place) -> Stream:
        chosen, tokens = at.inputs
        if chosen.content != "ids" or len(chosen.axes) != 1:
            raise Refused("from", f"choices are ids along one axis, not {chosen}")
        if (tokens.content, tokens.width) != ("features", 1) or not tokens.spans:
            raise Refused("from", f"tokens are open or not by one feature each, not {tokens}")
        return Stream(1, (Span("pairs", (chosen.axes[0], Axis("memory", tokens.count))),))
