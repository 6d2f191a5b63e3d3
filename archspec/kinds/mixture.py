"""Mixtures of experts: a router sends each token to a few of many bodies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import Free, Kind, Real, Slot, Width
from archspec.place import Place
from archspec.source import Map, Seq
from archspec.streams import SCALAR, Stream

EXPERT = Slot(("body",), many=True)


class TopK(Kind, kind="top_k", role="router"):
    """Each token goes to the k experts with the highest scores, and adds up what they say by their scores.

    Shazeer et al. 2017, "Outrageously Large Neural Networks", arXiv 1701.06538; sigmoid scores, groups of experts and
    balancing by a bias: DeepSeek-AI 2024, "DeepSeek-V3", arXiv 2412.19437. ``balance: loss`` adds the loss of Fedus et
    al. 2021, "Switch Transformers", arXiv 2101.03961; ``z_loss`` that of Zoph et al. 2022, "ST-MoE", arXiv 2202.08906.
    """

    exempt = {
        "causality": "with a capacity, a later token's first choice may take the room of an earlier one's second",
        "batch": "with a capacity, samples share the room of each expert",
    }

    @property
    def incremental(self) -> bool:  # type: ignore[override]
        return self.capacity is None

    k: Width = 2
    score: Literal["softmax", "sigmoid"] = "softmax"
    normalize: bool = Field(True, description="the k scores are divided by their sum")
    groups: Width = Field(1, description="groups of experts, of which only the best are looked into")
    top_groups: Width = Field(1, description="how many groups are looked into")
    scale: Real = Field(1.0, description="factor on the weights")
    balance: Literal["none", "loss", "bias"] = "loss"
    balance_weight: Annotated[Real, Free()] = Field(0.01, description="factor on the load-balancing loss")
    balance_rate: Annotated[Real, Free()] = Field(0.001, description="how fast the balancing bias moves in a step")
    z_loss: Annotated[Real, Free()] = Field(0.0, description="factor on the squared log-partition of the scores")
    capacity: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="an expert takes at most this many times its even share; others are dropped. Dropless by default",
    )

    def infer(self, at: Place) -> Stream:
        experts = at.scope["experts"]
        if self.k > experts:
            raise Refused("k", f"{self.k} of {experts} experts", f"at most {experts}")
        if experts % self.groups:
            raise Refused("groups", f"{experts} experts do not divide into {self.groups} groups", divisors(experts))
        if self.top_groups > self.groups or self.k > experts // self.groups * self.top_groups:
            raise Refused(
                "top_groups", f"{self.top_groups} of {self.groups} groups hold too few experts for k {self.k}"
            )
        return at.one().wide(experts)


class ByLabelRouter(Kind, kind="label_router", role="router"):
    """A token goes to the expert of its label."""

    incremental = True
    label: str

    def infer(self, at: Place) -> Stream:
        count = dict(at.one().labels).get(self.label)
        if count is None:
            raise Refused("label", f"tokens carry no label {self.label!r}", [name for name, _ in at.one().labels])
        if count > at.scope["experts"]:
            raise Refused("label", f"{count} labels for {at.scope['experts']} experts")
        return at.one().wide(at.scope["experts"])


class Mixture(Kind, kind="mixture", role=("channel", "body")):
    """Routed experts: any bodies, alike or not, of which each token meets a few; ``shared`` ones it always meets.

    ``experts: {count: 8, body: …}`` are alike, a list are what they are. The port ``loss`` carries the router's losses;
    a model in training gives their sum as an output of that name. ``gates`` is the weight of every expert for each
    token.
    """

    incremental = True
    experts: Annotated[Any, EXPERT]
    router: Annotated[Any, Slot(("router",), stream=True)] = Field(
        "top_k", description="what sends tokens to experts, or a stream of a weight for each expert"
    )
    shared: Annotated[Any, Slot(("body",))] = Field(None, description="an expert that every token meets")

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
        outputs = {"": x, "gates": x.wide(count)}
        spec = router.nodes[0].kind if router is not None else None
        if isinstance(spec, TopK) and (spec.balance == "loss" or spec.z_loss):
            outputs["loss"] = SCALAR
        return outputs

    def _count(self, at: Place, raw: Map) -> int:
        for key in raw:
            if key not in ("count", "body"):
                raise Refused(f"experts.{key}", f"unknown field {key!r}", "experts have count and body")
        count = at.number(raw, "count")
        if not isinstance(count, int) or not 1 <= count <= 65536:
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
