"""What flows between modules: features, and what their tokens carry.

`Tokens` lives only while Python runs a forward. Tracing sees through it: a traced block takes and gives plain tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from torch import Tensor

from archspec.streams import Stream


@dataclass(frozen=True)
class Tokens:
    """Tokens of one stream.

    Attributes:
        features: ``[batch, tokens, width]``; ids ``[batch, tokens]``; a pooled sample ``[batch, width]``.
        stream: their type.
        coordinates: ``[batch or 1, tokens]``, along the stream's only axis, where they are not its indices.
        valid: ``[batch or 1, tokens]`` bool.
        segment: ``[batch or 1, tokens]`` integers; attention stays inside a segment.
        labels: ``[batch or 1, tokens]`` integers by name.
    """

    features: Tensor
    stream: Stream
    coordinates: Tensor | None = None
    valid: Tensor | None = None
    segment: Tensor | None = None
    labels: dict[str, Tensor] = field(default_factory=dict)

    def give(self, features: Tensor, stream: Stream) -> Tokens:
        """Other features; what the tokens carry goes along where they are the same tokens."""
        if stream.spans == self.stream.spans and stream.spans:
            return replace(self, features=features, stream=stream)
        return Tokens(features, stream)

    def span(self, name: str, stream: Stream) -> Tokens:
        """The tokens of one span."""
        start = 0
        for span in self.stream.spans:
            if span.name == name:
                break
            assert isinstance(span.count, int), "a span behind one of unknown length"
            start += span.count
        whole = span is self.stream.spans[-1]
        stop = None if whole else start + int(span.count)

        def cut(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[:, start:stop]

        features = self.features[:, start:stop]
        return Tokens(features, stream, cut(self.coordinates), cut(self.valid), cut(self.segment),
                      {name: value[:, start:stop] for name, value in self.labels.items()})  # fmt: skip

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors, by a suffix for their name."""
        yield "", self.features
        for name in ("coordinates", "valid", "segment"):
            value = getattr(self, name)
            if value is not None:
                yield f"_{name}", value
        for name, value in self.labels.items():
            yield f"_{name}", value


def suffixes(stream: Stream) -> list[str]:
    """Suffixes of the tensors that a stream of this type is made of."""
    flags = (("coordinates", stream.placed), ("valid", stream.valid), ("segment", stream.segmented))
    carried = [f"_{name}" for name, has in flags if has and stream.spans]
    return ["", *carried, *(f"_{name}" for name, _ in stream.labels if stream.spans)]


def pack(stream: Stream, tensors: list[Tensor]) -> Tokens:
    """Tokens from their tensors, in the order of `suffixes`."""
    values = dict(zip(suffixes(stream), tensors, strict=True))
    return Tokens(
        values[""],
        stream,
        values.get("_coordinates"),
        values.get("_valid"),
        values.get("_segment"),
        {name: values[f"_{name}"] for name, _ in stream.labels if f"_{name}" in values},
    )
