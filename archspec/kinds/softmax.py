"""Features as shares of one."""

from archspec.kind import Kind
from archspec.streams import Stream


class Softmax(Kind, kind="softmax", role=("channel", "body")):
    """A token's features become positive and one in sum, as a posterior over classes."""

    pointwise = True

    def output(self, x: Stream) -> Stream:
        return x
