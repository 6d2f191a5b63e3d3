"""How far tokens are from a point."""

from archspec.errors import Refused
from archspec.kind import Kind
from archspec.place import Place
from archspec.streams import Stream


class EuclideanDistance(Kind, kind="euclidean_distance"):
    """The length of the difference of each token of the first stream and the vector, or the token, of the second.

    Moving both alike changes nothing. At a distance of zero the gradient is zero.
    """

    incremental = True
    arity = (2, 2)

    def infer(self, at: Place) -> Stream:
        x, point = at.inputs
        if x.content != "features" or (point.content, point.width) != (x.content, x.width):
            raise Refused("from", f"features of one width are compared, not {x} and {point}")
        if point.spans and point.count not in (1, x.count):
            raise Refused("from", f"{point} are neither one point nor one for each of {x}", "pool it to one vector")
        return x.wide(1)
