"""Rounds: a body several times, with weights of its own each time (`repeat`) or the same (`loop`)."""

from typing import Annotated, Any, Literal

from pydantic import Field

from archspec.errors import Refused, did_you_mean
from archspec.graph import Graph, Node
from archspec.kind import Free, Kind, Matrix, Moves, Real, Slot, Width
from archspec.kinds.combinator import BODY, ports
from archspec.kinds.route import ExpertChoice
from archspec.place import Place
from archspec.source import Map, Seq
from archspec.streams import Axis, Span, Stream

MAX_ROUNDS = 4096
Times = Annotated[int, Field(ge=0, le=MAX_ROUNDS)]


class Rounds(Kind):
    """What `repeat` and `loop` share: the rounds, how one's outputs become the next one's inputs, and the taps."""

    carries = True
    arity = (1, 99)

    @property
    def incremental(self) -> bool:  # type: ignore[override]
        return self.router is None

    times: Times | None = Field(None, description="how many rounds")
    body: Annotated[Any, BODY] = None
    overrides: Annotated[dict[str, Any], BODY] = Field(
        default_factory=dict, description="other bodies for single rounds, by number"
    )
    history: Annotated[Any, Slot(("history",))] = Field(
        "last", description="how a round's input is made from earlier outputs"
    )
    router: Annotated[Any, Slot(("selector",))] = Field(None, description="which tokens go on to the next round")
    share: list[str] | None = Field(
        None, description="nodes of the body whose weights all rounds share; in a loop all of them by default"
    )
    weigh: Literal["delta", "output", "none"] = Field(
        "delta", description="what the router's score multiplies, as in a route"
    )
    cache: Literal["per_round", "shared"] = Field("per_round", description="whether rounds keep keys of their own")

    def infer(self, at: Place) -> dict[str, Stream]:
        places = self._places(at)
        streams = at.inputs
        outputs: dict[str, Stream] = ports(dict(zip(at.names, streams, strict=True)))
        mains = [streams[0]]
        known: dict[Any, tuple[Graph, int]] = {}
        for number, place in enumerate(places):
            if number:
                streams = (self._history(at, mains, number, len(places)), *streams[1:])
            given = (self._routed(at, streams[0], number, len(places)), *streams[1:])
            graph = self._round(at, place, given, number, len(places), known)
            if at.has("router"):
                if (graph.output.width, graph.output.spans) != (streams[0].width, given[0].spans) or len(
                    graph.types
                ) > 1:
                    raise Refused("body", f"gives {graph.output}; routed tokens must come back as {given[0]}")
                streams = (streams[0].knowing(graph.output), *streams[1:])
                outputs = {"": streams[0]}
            else:
                streams = self._fed(graph, streams, last=number + 1 == len(places))
                outputs = ports(graph.types)
            mains.append(outputs[""])
        taps = {str(number): stream for number, stream in enumerate(mains[1:])}
        if len(set(taps.values())) == 1 and len(mains[1].spans) == 1:
            span = mains[1].spans[0]
            taps["each"] = mains[1].on(Span(span.name, (Axis("round", len(taps)), *span.axes)))
        return {**taps, **outputs}

    def _round(
        self,
        at: Place,
        place: tuple[Map | Seq, Any],
        given: tuple[Stream, ...],
        number: int,
        times: int,
        known: dict[Any, tuple[Graph, int]],
    ) -> Graph:
        """The body of one round; rounds that neither read their number nor differ in what they are given are one."""
        container, key = place
        found = known.get((id(container), key, given))
        if found is None:
            scope, before = at.rounds_scope(number, times), at.layers
            graph = at.round_in(container, key, scope, given)
            if not scope.touched:
                known[id(container), key, given] = (graph, at.layers - before)
        else:
            graph = found[0]
            at.layers += found[1]
        at.keep(f"rounds.{number}", graph)
        nodes = [node.name for node in graph.nodes]
        for word in self.share or ():
            if word not in nodes:
                raise Refused("share", f"the body has no node {word!r}", did_you_mean(word, nodes))
        return graph

    def _routed(self, at: Place, stream: Stream, number: int, times: int) -> Stream:
        """The tokens that enter a round."""
        if not at.has("router"):
            return stream
        graph = at.body_in(at.raws, "router", "router", at.rounds_scope(number, times), (stream,), ())
        if not isinstance(graph.nodes[0].kind, ExpertChoice):
            raise Refused("router", f"{graph.nodes[0].kind.name_} chooses for a route, not for rounds",
                          "expert_choice, or a route as the body")  # fmt: skip
        at.keep(f"router.{number}", graph)
        return graph.output

    def _fed(self, graph: Graph, streams: tuple[Stream, ...], *, last: bool) -> tuple[Stream, ...]:
        """What the next round is given: outputs feed the inputs of the same name, a single one the first."""
        if len(graph.types) == 1:
            return (graph.output, *streams[1:])
        wanted = list(graph.inputs)[: graph.given]
        missing = [name for name in graph.outputs if name not in wanted]
        if missing and not last:
            cause = f"the output {missing[0]!r} feeds no input of the next round"
            raise Refused("body", cause, f"call the outputs {', '.join(wanted)}")
        return tuple(graph.types.get(name, old) for name, old in zip(wanted, streams, strict=True))

    def _places(self, at: Place) -> list[tuple[Map | Seq, Any]]:
        """Where the body of each round stands."""
        raise NotImplementedError

    def bodies(self, node: Node) -> list[Graph]:
        """The body of each round."""
        return [body for key, body in node.bodies.items() if key.startswith("rounds.")]

    def written(self, node: Node, writer: Any) -> dict[str, Any]:
        slots = super().written(node, writer)
        for field in ("router", "history"):
            bodies = [body for key, body in node.bodies.items() if key.startswith(f"{field}.")]
            forms = [writer.slot(body, f"{node.name}_{field}") for body in bodies]
            if forms:
                slots[field] = forms[0] if all(form == forms[0] for form in forms) else {"each": forms}
        return slots

    def settle(self, node: Node) -> dict[str, Any]:
        return {"times": len(self.bodies(node)), "overrides": None}

    def _history(self, at: Place, mains: list[Stream], number: int, times: int) -> Stream:
        raw = at.raw("history")
        if raw is None or raw == "last":
            return mains[-1]
        for stream in mains:
            if stream != mains[0]:
                raise Refused("history", f"mixes outputs of one type, not {mains[0]} and {stream}")
        graph = at.body_in(at.raws, "history", "history", at.rounds_scope(number, times), tuple(mains), ())
        at.keep(f"history.{number}", graph)
        return graph.output

    def _counted(self, at: Place) -> list[tuple[Map | Seq, Any]]:
        if self.body is None:
            raise Refused("body", "rounds need a body", "body: the node or block to repeat")
        if self.times is None:
            raise Refused("times", "how many rounds?", "times: 12")
        places: list[tuple[Map | Seq, Any]] = [(at.raws, "body")] * self.times
        overrides = at.raw("overrides") or Map()
        for key in self.overrides:
            if not key.isdigit() or int(key) >= self.times:
                raise Refused(f"overrides.{key}", f"there is no round {key}", f"rounds are 0 to {self.times - 1}")
            places[int(key)] = (overrides, key)
        return places


class Repeat(Rounds, kind="repeat"):
    """A body several times, each round with weights of its own.

    ``times`` rounds of ``body``, or ``rounds``, a list with the body of each; outputs feed the inputs of the same name.
    Outside, ``name.3`` is the output of round 3 and ``name.each`` all of them along a new axis ``round``.
    """

    rounds: Annotated[list[Any] | None, Slot(("body",), many=True)] = Field(None, description="the body of every round")

    def _places(self, at: Place) -> list[tuple[Map | Seq, Any]]:
        if self.rounds is None:
            return self._counted(at)
        for field in ("times", "body"):
            if getattr(self, field) is not None:
                raise Refused(field, f"rounds says every body; {field} says it again", f"leave out {field}")
        rounds = at.raw("rounds")
        return [(rounds, number) for number, body in enumerate(rounds) if body != "absent"]

    def written(self, node: Node, writer: Any) -> dict[str, Any]:
        slots = super().written(node, writer)
        return {**slots, "times": None, "rounds": slots.get("rounds", [])}


class Loop(Rounds, kind="loop"):
    """A body several times with the same weights.

    Dehghani et al. 2019, "Universal Transformers", arXiv 1807.03819. ``router`` selects the tokens that go on
    (Bae et al. 2025, "Mixture-of-Recursions", arXiv 2507.10524); ``share`` limits the sharing to some nodes of
    the body.
    """

    def _places(self, at: Place) -> list[tuple[Map | Seq, Any]]:
        return self._counted(at)

    def written(self, node: Node, writer: Any) -> dict[str, Any]:
        rounds = [writer.slot(body, f"{node.name}_body") for body in self.bodies(node)]
        others = {str(number): body for number, body in enumerate(rounds) if body != rounds[0]}
        return {**super().written(node, writer), "body": rounds[0] if rounds else None, "overrides": others or None}


class LearnedMix(Kind, kind="learned_mix", role="history"):
    """A learned convex combination of all earlier outputs, one weight each.

    Georges Gabriel Charpentier and Samuel 2023, "Not all layers are equally as important: Every Layer Counts BERT",
    arXiv 2311.02265. ``init: last`` starts near a plain stack, ``even`` with equal weights; ``normalize: softmax``
    keeps the weights positive and their sum one.
    """

    incremental = True

    arity = (1, MAX_ROUNDS + 1)
    init: Annotated[Literal["last", "even"], Free()] = "last"
    normalize: Literal["softmax", "none"] = "softmax"

    def infer(self, at: Place) -> Stream:
        return at.inputs[0]


class AddInput(Kind, kind="add_input", role="history"):
    """The last output plus the stream that the rounds began with.

    Yang et al. 2024, "Looped Transformers are Better at Learning Learning Algorithms", arXiv 2311.12424.
    """

    incremental = True

    arity = (1, MAX_ROUNDS + 1)
    factor: Annotated[Real, Moves()] = 1.0

    def infer(self, at: Place) -> Stream:
        return at.inputs[-1]


class ConcatHistory(Kind, kind="concat_history", role="history"):
    """All earlier outputs side by side, projected to one width (dense connections).

    Huang et al. 2017, "Densely Connected Convolutional Networks", arXiv 1608.06993.
    """

    incremental = True

    arity = (1, MAX_ROUNDS + 1)
    width: Width | None = None

    def infer(self, at: Place) -> Stream:
        streams = at.inputs
        width = self.width or streams[0].width
        at.own({"weight": Matrix(sum(stream.width for stream in streams), width)})
        return streams[0].wide(width)
