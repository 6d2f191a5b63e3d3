"""Interfaces: what goes into a model and what comes out."""

import keyword
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from archspec.errors import Refused
from archspec.kind import Kind, Width
from archspec.streams import Axis, Stream, single


class InputStream(Kind, kind="input_stream", role="input"):
    """One input of a backbone: named axes and a width, or ids of a vocabulary."""

    axes: dict[str, Width | str] = Field(
        default_factory=dict, description="sizes by name; a word is a length known at run time"
    )
    width: Width | None = None
    vocab: Width | None = None
    causal: str | None = Field(None, description="the axis along which nothing looks ahead")
    limit: Width | None = Field(None, description="the largest size of axes known at run time")

    def stream(self, name: str) -> Stream:
        """The input's type."""
        if (self.width is None) == (self.vocab is None):
            raise Refused(f"inputs.{name}", "say either width (features) or vocab (ids)")
        axes = [
            Axis(axis, size, axis == self.causal, self.limit if isinstance(size, str) else None)
            for axis, size in self.axes.items()
        ]
        return Stream(self.width or self.vocab or 0, single(1, name, *axes).spans if axes else (),
                      "features" if self.width else "ids")  # fmt: skip


class State(InputStream, kind="state_stream", role="state"):
    """A stream that one call hands to the next: an input of this name, zeros at first, and an output of this name."""

    next: str = Field(description="the stream that becomes the state of the next call")


class Entry(BaseModel):
    """A part of the model that can be called alone, such as the encoder once and the decoder often."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_: list[str] = Field(alias="from", min_length=1, description="the streams that are handed in")
    to: list[str] = Field(min_length=1, description="the streams that come out")


READ = frozenset(
    "self torch device inf nan getattr slice len abs min max sum round int float bool tuple list dict".split()
)
"""Words that the code of a compiled model reads, so that no argument of it may bear them."""


def spoken_for(name: str) -> bool:
    """Whether a word means something else in Python, or in the code of a compiled model."""
    return keyword.iskeyword(name) or name in READ


NAMES = "letters, digits and _, not starting with a digit"


class Interface(Kind, role="interface"):
    """What all interfaces may declare."""

    labels: dict[str, Annotated[int, Field(gt=0, le=4096)]] = Field(
        default_factory=dict, description="integers that each token carries, and how many values they have"
    )
    padding: bool = Field(
        False, description="an input `valid` tells which tokens are real; one for each input where there are several"
    )
    state: dict[str, State] = Field(default_factory=dict, description="streams carried from one call to the next")
    entries: dict[str, Entry] = Field(default_factory=dict, description="parts that can be called alone")

    def own_streams(self) -> dict[str, Stream]:
        """Types of the inputs, by name, without the state."""
        raise NotImplementedError

    def streams(self) -> dict[str, Stream]:
        """Types of all inputs, by name."""
        inputs = self.own_streams()
        for name in inputs:
            if spoken_for(name):
                of = "Python" if keyword.iskeyword(name) else "compiled code"
                raise Refused(f"inputs.{name}", f"{name!r} is a word of {of}, no name for an input", f"{name}_")
            if not name.isidentifier():
                raise Refused(f"inputs.{name}", f"{name!r} is no name for an input", NAMES)
        for label in self.labels:
            if label in (*inputs, "valid") or not label.isidentifier() or spoken_for(label):
                raise Refused(
                    f"labels.{label}", f"{label!r} is no name for a label beside the inputs {', '.join(inputs)}"
                )
        for name in self.state:
            if name in inputs:
                raise Refused(f"state.{name}", f"there is an input {name!r} already", "call the state otherwise")
            if not name.isidentifier() or spoken_for(name):
                raise Refused(f"state.{name}", f"{name!r} is no name for a state", NAMES)
        return inputs | {name: state.stream(name) for name, state in self.state.items()}

    def carried(self) -> dict[str, dict[str, str]]:
        """For each input, the names of the tensors that tell what its tokens carry: labels, and ``valid``.

        Where several inputs have tokens, each has its own: ``source_valid``, ``target_valid``.
        """
        inputs = [name for name, stream in self.own_streams().items() if stream.spans]
        words = [*self.labels, *(["valid"] if self.padding else [])]
        return {name: {word: f"{name}_{word}" if len(inputs) > 1 else word for word in words} for name in inputs}

    def check(self, outputs: dict[str, Stream]) -> None:
        """Refuses outputs that are not what the interface promises."""

    def marked(self, stream: Stream) -> Stream:
        return Stream(stream.width, stream.spans, stream.content, tuple(self.labels.items()), valid=self.padding)


class CausalLm(Interface, kind="causal_lm"):
    """Token ids to logits for the next token; no token sees a later one."""

    vocab: Width
    length: Width = Field(description="the longest sequence")

    def own_streams(self) -> dict[str, Stream]:
        axis = Axis("token", "length", causal=True, limit=self.length)
        return {"tokens": self.marked(Stream(self.vocab, single(1, "tokens", axis).spans, "ids"))}

    def check(self, outputs: dict[str, Stream]) -> None:
        _per_token(outputs, self.vocab, "length", "token")


class MaskedLm(Interface, kind="masked_lm"):
    """Token ids, some masked, to logits for every token; all tokens see each other."""

    vocab: Width
    length: Width = Field(description="the longest sequence")

    def own_streams(self) -> dict[str, Stream]:
        axis = Axis("token", "length", limit=self.length)
        return {"tokens": self.marked(Stream(self.vocab, single(1, "tokens", axis).spans, "ids"))}

    def check(self, outputs: dict[str, Stream]) -> None:
        _per_token(outputs, self.vocab, "length")


class SequenceClassification(Interface, kind="sequence_classification"):
    """Token ids to class logits."""

    vocab: Width
    length: Width = Field(description="the longest sequence")
    classes: Width

    def own_streams(self) -> dict[str, Stream]:
        axis = Axis("token", "length", limit=self.length)
        return {"tokens": self.marked(Stream(self.vocab, single(1, "tokens", axis).spans, "ids"))}

    def check(self, outputs: dict[str, Stream]) -> None:
        _per_sample(outputs, self.classes)


class ImageClassification(Interface, kind="image_classification"):
    """An image [batch, height, width, channels] to class logits; its pixels are tokens on rows and columns."""

    image: Annotated[list[Width], Field(min_length=3, max_length=3)] = Field(description="height, width, channels")
    classes: Width

    def own_streams(self) -> dict[str, Stream]:
        rows, columns, channels = self.image
        return {"image": self.marked(single(channels, "image", Axis("row", rows), Axis("column", columns)))}

    def check(self, outputs: dict[str, Stream]) -> None:
        _per_sample(outputs, self.classes)


class Seq2SeqLm(Interface, kind="seq2seq_lm"):
    """Source ids and target ids to logits for the next target token."""

    vocab: Width
    length: Width = Field(description="the longest target")
    source_length: Width | None = Field(None, description="the longest source; as the target by default")
    source_vocab: Width | None = Field(None, description="vocabulary of the source; that of the target by default")

    def own_streams(self) -> dict[str, Stream]:
        source = Axis("source", "source_length", limit=self.source_length or self.length)
        target = Axis("token", "length", causal=True, limit=self.length)
        ids = {"source": (source, self.source_vocab or self.vocab), "target": (target, self.vocab)}
        return {n: self.marked(Stream(rows, single(1, n, axis).spans, "ids")) for n, (axis, rows) in ids.items()}

    def check(self, outputs: dict[str, Stream]) -> None:
        _per_token(outputs, self.vocab, "length", "token")


class Backbone(Interface, kind="backbone"):
    """Any named inputs to any named outputs."""

    inputs: dict[str, InputStream] = Field(description="the inputs, by name")
    vocab: Width | None = Field(None, description="for heads over a vocabulary")
    classes: Width | None = Field(None, description="for classifiers")

    def own_streams(self) -> dict[str, Stream]:
        return {name: self.marked(stream.stream(name)) for name, stream in self.inputs.items()}


def _per_token(outputs: dict[str, Stream], vocab: int, length: str, causal: str | None = None) -> None:
    main = next(iter(outputs.values()))
    if main.width < vocab or main.count != length:
        raise Refused("", f"the output is {main}; logits for {length} × {vocab} are promised", "end with lm_head")
    if causal and (causal in main.ahead or causal not in main.causal_axes):
        cause = (
            f"the output knows later tokens: somewhere before it all of the {causal} axis was pooled, joined or read"
        )
        raise Refused("", cause, "archc show FILE marks the streams that are ahead of the axis")


def _per_sample(outputs: dict[str, Stream], classes: int) -> None:
    main = next(iter(outputs.values()))
    if main.width != classes or main.spans:
        raise Refused(
            "", f"the output is {main}; {classes} class logits are promised", "end with a pool and a classifier"
        )
