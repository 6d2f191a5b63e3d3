"""What flows between modules: features, and what their tokens carry.

`Tokens` lives only while Python runs a forward. Tracing sees through it: a traced block takes and gives plain tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        names = [span.name for span in self.stream.spans]
        counts = [span.count for span in self.stream.spans]
        place = names.index(name)
        before, after = _total(counts[:place]), _total(counts[place + 1 :])
        count = counts[place]
        if before is not None:
            start = before
            stop = None if not counts[place + 1 :] else before + count if isinstance(count, int) else -(after or 0)
        else:  # counted from the end
            assert after is not None and isinstance(count, int), "a span between two of unknown length"
            start, stop = -(after + count), -after or None

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
            yield f"_label_{name}", value


def suffixes(stream: Stream) -> list[str]:
    """Suffixes of the tensors that a stream of this type is made of."""
    flags = (("coordinates", stream.placed), ("valid", stream.valid), ("segment", stream.segmented))
    carried = [f"_{name}" for name, has in flags if has and stream.spans]
    return ["", *carried, *(f"_label_{name}" for name, _ in stream.labels if stream.spans)]


def pack(stream: Stream, tensors: list[Tensor]) -> Tokens:
    """Tokens from their tensors, in the order of `suffixes`."""
    values = dict(zip(suffixes(stream), tensors, strict=True))
    return Tokens(
        values[""],
        stream,
        values.get("_coordinates"),
        values.get("_valid"),
        values.get("_segment"),
        {name: values[f"_label_{name}"] for name, _ in stream.labels if f"_label_{name}" in values},
    )


def _total(counts: Sequence[int | str]) -> int | None:
    return None if any(isinstance(count, str) for count in counts) else sum(int(count) for count in counts)
