"""Attention: each query token reads a weighted mean of what the memory tokens say."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import Activation, Free, Kept, Matrix, Rate, Slot, Weighted, Width
from archspec.place import Place
from archspec.streams import Axis, Span, Stream

SHARPENED = "queries are multiplied by 1 + factor log(1 + floor((place + offset) / length))"
SUBSAMPLE = (
    "in training one in ratio tokens of the memory is read, drawn anew each time: the same for all queries; with "
    "spread, each of ratio blocks of queries reads those that lie beside it once places are disturbed by spread of "
    "the length"
)
GATE = "function of a linear map of the query token that multiplies what it reads, before out"
GATE_PER = "what has a number of its own in the gate"


class Temperature(BaseModel):
    """How the scores of far queries are sharpened. Nakanishi 2025, "Scalable-Softmax", arXiv 2501.19399."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    factor: Annotated[float, Field(ge=0)] = 0.1
    length: Width = 8192
    offset: Annotated[int, Field(ge=0)] = 0


class Subsample(BaseModel):
    """Which keys and values are read in training; all are in inference. Hussain, Zaki and Subramanian 2023, "The
    Information Pathways Hypothesis: Transformers are Dynamic Self-Ensembles", arXiv 2306.01705.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    ratio: Annotated[int, Field(ge=1, le=4096)] = 4
    spread: Annotated[float, Field(ge=0)] | None = None


class Attention(Weighted, kind="attention", role=("mixer", "body")):
    """Multi-head attention, ``softmax(q k' / sqrt(head_width) + bias) v``.

    Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762. With fewer ``kv_heads`` than heads: grouped
    queries (Ainslie et al. 2023, arXiv 2305.13245); with one, multi-query (Shazeer 2019, arXiv 1911.02150). It follows
    the causality of its stream. Queries come from the input (or its span ``query``), keys and values from ``memory``:
    the input itself, another stream by name, or a body applied to the input, such as a pool. The port ``scores`` gives
    what goes into the softmax, a stream of pairs of tokens with a feature for each head.

    ``sinks``: OpenAI 2025, "gpt-oss", arXiv 2508.10925; Xiao et al. 2023, arXiv 2309.17453. ``chunk`` and
    ``temperature``: Meta 2025, Llama 4. ``gate``: Qiu et al. 2025, "Gated Attention", arXiv 2505.06708.
    """

    arity = (1, 1)
    incremental = True
    rare = ("sinks", "gate_per", "qk_norm_over", "qk_norm_place")
    example = "{kind: attention, heads: 4, kv_heads: 2, position: rope}"
    heads: Width | None = Field(None, description="query heads; the output width divided by head_width by default")
    kv_heads: Width | None = Field(None, description="key/value heads; as many as heads by default")
    head_width: Width | None = Field(None, description="features of a head; width / heads by default")
    value_width: Width | None = Field(None, description="features of a head's values; head_width by default")
    width_out: Width | None = Field(None, description="output width; the input's by default")
    bias: bool = Field(False, description="biases on query, key, value and out")
    qkv_bias: bool | None = Field(None, description="biases on query, key and value alone; as bias by default")
    position: Annotated[Any, Slot(("position",))] = "none"
    window: Width | None = Field(
        None, description="a token reads this many tokens, itself among them, back along its axis"
    )
    chunk: Width | None = Field(None, description="a token reads only tokens of its own run of this many places")
    sinks: bool = Field(
        False, description="a learned number for each head takes part in the softmax and gives nothing to read"
    )
    temperature: Temperature | None = Field(None, description=SHARPENED)
    subsample: Subsample | None = Field(None, description=SUBSAMPLE)
    qk_norm: Annotated[Any, Slot(("norm",))] = Field(None, description="a norm on queries and keys")
    qk_norm_over: Literal["head", "heads"] = Field(
        "head",
        description="head: each head alone, all with one weight; heads: a token's heads together (each alone with a "
        "weight of its own under the norm's group_size: head_width)",
    )
    qk_norm_place: Literal["before", "after"] = Field("before", description="before or after positions turn them")
    value_norm: Annotated[Any, Slot(("norm",))] = Field(None, description="a norm on each head's values")
    clip: Annotated[float, Field(gt=0)] | None = Field(
        None, description="queries, keys and values are cut off at this magnitude, after norms"
    )
    gate: Activation | None = Field(None, description=GATE)
    gate_per: Literal["feature", "head"] = Field("feature", description=GATE_PER)
    sharing: Annotated[Any, Slot(("sharing",))] = Field(
        None, description="how many query heads read each key head; equally many by default"
    )
    score: Annotated[Any, Slot(("score",))] = Field(
        None,
        description="a map of queries and keys to features whose product is the score; the plain product by default",
    )
    softcap: Annotated[float, Field(gt=0)] | None = Field(None, description="scores s become cap * tanh(s / cap)")
    scale: Annotated[float, Field(gt=0)] | None = Field(
        None, description="factor on scores; 1 / sqrt(head_width) by default"
    )
    talking_heads: bool = Field(
        False, description="heads mix before and after the softmax (Shazeer et al. 2020, arXiv 2003.02436)"
    )
    dropout: Annotated[Rate, Free()] = Field(0.0, description="on the attention weights")
    query: str | None = Field(None, description="the span whose tokens ask; all by default")
    memory: Annotated[Any, Slot(("body",), stream=True)] = Field(
        None, description="what is read: a stream, or a body applied to the input"
    )
    values: Annotated[Any, Slot(("mask",), stream=True)] = Field(
        None, description="a stream of the memory's tokens that values are made of, where keys are made of another"
    )
    score_bias: Annotated[Any, Slot(("mask",), stream=True)] = Field(
        None, description="a stream of pairs that is added to the scores, such as another attention's port scores"
    )
    mask: Annotated[Any, Slot(("mask",), stream=True)] = Field(
        None,
        description="which of the memory's tokens may be read: a stream of one feature for each of them, or for "
        "each pair, above zero where they may",
    )

    @property
    def among(self) -> bool:  # type: ignore[override]
        alone = self.memory is None or (isinstance(self.memory, str) and self.position == "none")
        return alone and not (self.temperature or self.sharing or self.score_bias or self.mask)

    def asked(self, x: Stream) -> Stream:
        """The stream of the tokens that ask."""
        if self.query is None:
            return x
        span = x.span(self.query)
        if span is None:
            raise Refused("query", f"there is no span {self.query!r} in {x}", [s.name for s in x.spans])
        return x.on(span)

    def shape(self, x: Stream) -> tuple[int, int, int, int]:
        """Heads, key/value heads, width of a head, width of its values."""
        width = self.width_out or x.width
        if self.heads is None and self.head_width is None:
            raise Refused("heads", "how many heads?", [d for d in divisors(width) if 16 <= width // d <= 256])
        if self.heads is None:
            assert self.head_width is not None
            if width % self.head_width:
                raise Refused("head_width", f"width {width} does not divide into heads of {self.head_width}",
                              [d for d in divisors(width) if 8 <= d <= 256])  # fmt: skip
            heads = width // self.head_width
        else:
            heads = self.heads
        if self.head_width is None and width % heads:
            raise Refused("heads", f"width {width} does not divide into {heads} heads",
                          [d for d in divisors(width) if 8 <= width // d <= 256])  # fmt: skip
        head_width = self.head_width or width // heads
        kv_heads = self.kv_heads or heads
        if heads % kv_heads:
            raise Refused("kv_heads", f"{heads} heads cannot be shared by {kv_heads} key/value heads", divisors(heads))
        return heads, kv_heads, head_width, self.value_width or head_width

    def settle(self, node: Node) -> dict[str, Any]:
        heads, kv_heads, head_width, value_width = self.shape(node.types[0])
        shape = {"heads": heads, "kv_heads": kv_heads, "head_width": head_width, "value_width": value_width}
        bias = self.bias if self.qkv_bias is None else self.qkv_bias
        return {**shape, "width_out": node.output.width, "qkv_bias": bias}

    def matrices(self, x: Stream, memory: Stream | None = None, values: Stream | None = None) -> dict[str, Matrix]:
        heads, kv_heads, head_width, value_width = self.shape(x)
        source = (memory or x).width
        bias = self.bias if self.qkv_bias is None else self.qkv_bias
        gate = {}
        if self.gate is not None:
            gate["gate"] = Matrix(x.width, heads * (value_width if self.gate_per == "feature" else 1), bias)
        return {
            "query": Matrix(x.width, heads * head_width, bias),
            "key": Matrix(source, kv_heads * head_width, bias),
            "value": Matrix(values.width if values else source, kv_heads * value_width, bias),
            **gate,
            "out": Matrix(heads * value_width, self.width_out or x.width, self.bias, "out"),
        }

    def infer(self, at: Place) -> dict[str, Stream]:
        x = at.one()
        if x.content != "features":
            raise Refused("", f"attention reads features, not {x}", "embed the tokens first")
        memory = at.source("memory", x)
        heads, kv_heads, head_width, value_width = self.shape(x)
        at.own(self.matrices(x, memory, self._values(at, memory)))
        asked = self.asked(x)
        if self.window is not None and self.chunk is not None:
            raise Refused("chunk", "a window and chunks", "one of the two")
        if self.subsample is not None and (self.window or self.chunk):
            raise Refused("subsample", "a window or chunks, and a part of the memory", "one of the two")
        if self.subsample is not None and self.subsample.spread is not None and memory.spans != asked.spans:
            raise Refused("subsample.spread", f"{asked} have no place in {memory}", "subsample without spread")
        if self.chunk is not None and (len(memory.axes) != 1 or memory.spans != asked.spans):
            raise Refused("chunk", f"chunks need tokens along one axis, not {memory}",
                          "put the attention into a partition with chunks")  # fmt: skip
        if self.window is not None and (len(memory.axes) != 1 or len(asked.axes) != 1):
            raise Refused("window", f"a window needs tokens along one axis, not {memory}",
                          "put the attention into a partition with windows")  # fmt: skip
        if at.has("position") and not at.is_kind("position", "none"):
            at.slot("position", asked.wide(head_width))
        if at.has("qk_norm"):
            together = self.qk_norm_over == "heads"
            at.slot("qk_norm", asked.wide(heads * head_width if together else head_width), head_width=head_width)
            if together:
                at.slot("qk_norm", memory.wide(kv_heads * head_width), as_="key_norm", head_width=head_width)
        if at.has("value_norm"):
            at.slot("value_norm", memory.wide(value_width))
        for field in ("qk_norm", "value_norm"):
            if at.has(field) and at.bodies[field].outer:
                raise Refused(
                    field, f"a norm that reads {at.bodies[field].outer[0]}", "one of the heads' features alone"
                )
        if at.has("sharing"):
            at.slot("sharing", memory.wide(head_width))
        if at.has("score"):
            at.slot("score", asked.wide(head_width))
        if at.has("position") and memory.spans != asked.spans and not at.is_kind("position", "none"):
            names = [axis.name for axis in asked.axes]
            if len(memory.spans) != 1 or [axis.name for axis in memory.axes] != names:
                raise Refused("position", f"positions of {asked} mean nothing in {memory}", "position: none")
        pairs = self.pairs(asked, memory)
        for field in ("mask", "score_bias"):
            if at.has(field):
                named = at.stream(field)
                if named is None:
                    raise Refused(field, f"no stream is called {at.raw(field)!r}")
                alike = [axis.size for axis in named.axes] == [axis.size for axis in pairs.axes]
                if field == "mask" and (named.width != 1 or not (alike or named.count == memory.count)):
                    cause = f"{at.raw(field)} is {named}; the memory is {memory}, the scores are {pairs}"
                    raise Refused("mask", cause, "one feature for each token of the memory, or for each pair")
                if field == "score_bias" and (not alike or named.width not in (1, pairs.width)):
                    raise Refused("score_bias", f"{at.raw(field)} is {named}; the scores are {pairs}")
        self._maskable(at, asked, memory)
        return {"": asked.wide(self.width_out or x.width), "scores": pairs}

    def _maskable(self, at: Place, asked: Stream, memory: Stream) -> None:
        """Refuses a causal memory whose later tokens could not be told from the earlier ones."""
        if not memory.causal:
            return
        field = "memory" if at.has("memory") else "query" if self.query else ""
        causal = ", ".join(sorted(memory.causal_axes))
        if not asked.causal:
            raise Refused(field, f"the memory is causal along {causal}; the query has no place along it")
        others = [axis for span in memory.spans for axis in span.axes if not axis.causal]
        many = len(memory.spans) > 1 and any(len(span.axes) > 1 for span in memory.spans)
        if many or (len(memory.spans) == 1 and any(isinstance(axis.size, str) for axis in others)):
            raise Refused(field, f"the places along {causal} are not known in {memory}")
        if at.has("memory"):
            mine, theirs = asked.axes, memory.axes
            placed = asked.placed and not memory.placed and bool(mine) and mine[0].most == theirs[0].most
            if [axis.name for axis in mine] != [axis.name for axis in theirs] or not (mine == theirs or placed):
                raise Refused("memory", f"the memory is causal along {causal}; its places are not those of the query",
                              "read a stream of the same tokens")  # fmt: skip

    def pairs(self, asked: Stream, memory: Stream) -> Stream:
        """The type of the scores: pairs of a query and a memory token, a feature for each head."""
        axes = (Axis("query", asked.count), Axis("memory", memory.count))
        return Stream(self.shape(asked)[0], (Span("pairs", axes),))

    def _values(self, at: Place, memory: Stream) -> Stream | None:
        if not at.has("values"):
            return None
        named = at.stream("values")
        if named is None:
            raise Refused("values", f"no stream is called {at.raw('values')!r}")
        if named.spans != memory.spans or named.content != "features":
            raise Refused("values", f"{at.raw('values')} is {named}; keys are made of {memory}", "the same tokens")
        return named

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        _, kv_heads, head_width, value_width = self.shape(x)
        return (Kept(kv_heads * (head_width + value_width), window=self.window or self.chunk),)
