"""Mixtures of experts: a router sends each token to a few of many bodies."""

from typing import Annotated, Any, Literal

from pydantic import Field

from archspec.errors import Refused
from archspec.graph import Node
from archspec.kind import Free, Kind, Moves, Rate, Slot
from archspec.kinds.router import Scored
from archspec.place import Place
from archspec.source import Map, Seq
from archspec.streams import SCALAR, Stream

EXPERT = Slot(("body",), many=True)


class Mixture(Kind, kind="mixture", role=("channel", "body")):
    """Routed experts: any bodies, alike or not, of which each token meets a few; ``shared`` ones it always meets.

    ``sum of weight * expert(x)`` over a token's experts, or ``expert(weight * x)`` with ``weigh: input`` (Meta 2025,
    "Llama 4"). ``experts: {count: 8, body: …}`` are alike, a list are what they are. ``shared_gate`` multiplies what
    the shared expert says by ``sigmoid(w x)`` (Qwen Team 2024, "Qwen1.5-MoE"). The port ``loss`` carries the router's
    losses; a model in training gives their sum as an output of that name. ``gates`` is the weight of every expert for
    each token.
    """

    incremental = True
    rare = ("shared_gate", "weigh", "bias", "jitter")
    experts: Annotated[Any, EXPERT]
    router: Annotated[Any, Slot(("router",), stream=True)] = Field(
        "top_k", description="what sends tokens to experts, or a stream of a weight for each expert"
    )
    shared: Annotated[Any, Slot(("body",))] = Field(None, description="an expert that every token meets")
    shared_gate: bool = Field(False, description="a learned share of the shared expert for each token")
    weigh: Literal["output", "input"] = Field("output", description="where an expert's weight is applied")
    bias: bool = Field(False, description="a vector added to what the experts say together")
    jitter: Annotated[Rate, Free(), Moves()] = Field(
        0.0, description="in training, what router and experts read is multiplied by uniform noise around one"
    )

    def infer(self, at: Place) -> dict[str, Stream]:
        x = at.one()
        raw = at.raw("experts")
        if isinstance(raw, Map) and "kind" not in raw:
            count = self._count(at, raw)
            if "body" not in raw:
                raise Refused("experts", "experts need a body", "experts: {count: 8, body: {kind: glu, ratio: 4}}")
            graph = at.body_in(raw, "body", "experts", at.scope.child(expert=0, experts=count), (x,), ())
            at.keep("expert", graph)
            bodies = [graph]
        elif isinstance(raw, Seq) and raw:
            count = len(raw)
            bodies = [at.slot("experts", x, item=number, experts=count) for number in range(count)]
        else:
            raise Refused("experts", "experts are a count and a body, or a list of bodies",
                          "experts: {count: 8, body: {kind: glu, ratio: 4}}")  # fmt: skip
        for number, graph in enumerate(bodies):
            if (graph.output.width, graph.output.spans) != (x.width, x.spans):
                raise Refused("experts" if len(bodies) == 1 else f"experts.{number}", f"gives {graph.output}, not {x}")
        gates = at.stream("router")
        if gates is not None and (gates.width != count or gates.spans != x.spans):
            raise Refused("router", f"{at.raw('router')} is {gates}; {count} experts need a weight each for {x}")
        router = at.slot("router", x, experts=count) if gates is None else None
        if at.has("shared"):
            shared = at.slot("shared", x).output
            if (shared.width, shared.spans) != (x.width, x.spans):
                raise Refused("shared", f"gives {shared}, not {x}")
        elif self.shared_gate:
            raise Refused("shared_gate", "there is no shared expert", "shared: {kind: glu, ratio: 4}")
        outputs = {"": x, "gates": x.wide(count)}
        spec = router.nodes[0].kind if router is not None else None
        if isinstance(spec, Scored) and spec.loses:
            outputs["loss"] = SCALAR
        return outputs

    def _count(self, at: Place, raw: Map) -> int:
        for key in raw:
            if key not in ("count", "body"):
                raise Refused(f"experts.{key}", f"unknown field {key!r}", "experts have count and body")
        count = at.number(raw, "count")
        if type(count) is not int or not 1 <= count <= 65536:
            raise Refused("experts.count", f"{count!r} experts", "count: a whole number from 1")
        return count

    @staticmethod
    def size(node: Node) -> int:
        """How many experts an elaborated node has."""
        return node.outputs["gates"].width

    def settle(self, node: Node) -> dict[str, Any]:
        return {"count": self.size(node)}

    def written(self, node: Node, writer: Any) -> dict[str, Any]:
        slots = super().written(node, writer) | {"count": None}
        if "expert" in node.bodies:
            slots["experts"] = {
                "count": self.size(node),
                "body": writer.slot(node.bodies["expert"], f"{node.name}_expert"),
            }
        return slots
