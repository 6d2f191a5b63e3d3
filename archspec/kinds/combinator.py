"""Combinators that arrange bodies: sequence, residual, parallel, and the layer that is sugar over them."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archspec.errors import Refused
from archspec.graph import Node
from archspec.kind import Free, Kind, Matrix, Moves, Rate, Real, Slot
from archspec.place import Place
from archspec.source import Map, Seq
from archspec.streams import Stream

BODY = Slot(("body",))
NORM = Slot(("norm",))


class Sequence(Kind, kind="sequence"):
    """A body as one node: a list of nodes, or a block with inputs, a graph and outputs."""

    carries = True
    pointwise = True
    arity = (0, 99)
    body: Annotated[Any, BODY]

    def infer(self, at: Place) -> dict[str, Stream]:
        graph = at.slot("body", *at.inputs, names=at.names)
        return ports(graph.types)


class Residual(Kind, kind="residual"):
    """``x + scale(body(norm(x)))``, the norm before, after, or on both sides.

    He et al. 2016, "Identity Mappings in Deep Residual Networks", arXiv 1603.05027. ``place``: ``pre`` norms what the
    body reads, ``post`` the sum, ``sandwich`` what the body reads and what it gives (Ding et al. 2021, "CogView",
    arXiv 2105.13290), ``after`` what it gives. The norm, one set of weights, applies to every stream in ``from``; the
    first is added to.
    """

    pointwise = True
    arity = (1, 99)
    body: Annotated[Any, BODY]
    norm: Annotated[Any, NORM] = None
    place: Literal["pre", "post", "sandwich", "after"] = "pre"
    scale: Annotated[Any, Slot(("scale",))] = Field(None, description="a gain on the branch, such as layer_scale")
    factor: Annotated[Real, Moves()] = Field(1.0, description="a number that multiplies the branch")
    skip: Annotated[Real, Moves()] = Field(1.0, description="a number that multiplies the input that is added")
    dropout: Annotated[Rate, Free(), Moves()] = Field(0.0, description="on the branch's output")
    drop_path: Annotated[Rate, Free(), Moves()] = Field(0.0, description="chance that a sample skips the branch")
    on: str | None = Field(None, description="the span that the branch changes; the others pass")

    def infer(self, at: Place) -> dict[str, Stream]:
        x = at.inputs[0]
        read = at.inputs
        if at.has("norm"):
            inner = self.place in ("pre", "sandwich")
            if inner:
                for stream in read:
                    if stream.width != x.width:
                        raise Refused("norm", f"one norm for streams of widths {x.width} and {stream.width}")
                at.slot("norm", x)
            if self.place != "pre":
                at.slot("norm", x, as_="norm_after")
        graph = at.slot("body", *read, names=at.names)
        y = graph.output
        target = x
        if self.on is not None:
            span = x.span(self.on)
            if span is None:
                raise Refused("on", f"there is no span {self.on!r} in {x}", [s.name for s in x.spans])
            target = x.on(span)
        if (y.width, y.spans) != (target.width, target.spans):
            raise Refused("body", f"gives {y}, which cannot be added to {target}",
                          f"add {{kind: project, width: {x.width}}}" if y.spans == target.spans else None)  # fmt: skip
        at.apply("scale", target)
        return {"": x, **{name: stream for name, stream in ports(graph.types).items() if name}}

    def written(self, node: Node, writer: Any) -> dict[str, Any]:
        slots = super().written(node, writer)
        if "norm_after" in node.bodies:
            slots["norm"] = writer.slot(node.bodies["norm_after"], f"{node.name}_norm")
        return slots


class Parallel(Kind, kind="parallel"):
    """Several bodies of one input; their outputs are added, concatenated or mixed by a learned gate.

    ``gate`` weighs the branches by a softmax of a linear map of each token. Without any branch the input passes.
    """

    pointwise = True
    arity = (1, 99)
    branches: Annotated[list[Any], Slot(("body",), many=True)]
    merge: Literal["sum", "concat", "gate", "mean"] = "sum"
    dropout: Annotated[Rate, Free(), Moves()] = Field(0.0, description="on the output of each branch")

    def settle(self, node: Node) -> dict[str, Any]:
        return {"dropout": self.dropout or None}

    def infer(self, at: Place) -> Stream:
        outs: list[Stream] = []
        for number, branch in enumerate(self.branches):
            if branch != "absent":
                key = f"branches.{len(outs)}"
                outs.append(at.slot("branches", *at.inputs, names=at.names, item=number, as_=key).output)
        if not outs:
            return at.inputs[0]
        for number, out in enumerate(outs[1:], 1):
            if out.spans != outs[0].spans or (self.merge != "concat" and out.width != outs[0].width):
                raise Refused(f"branches.{number}", f"gives {out}, the first branch {outs[0]}")
        if self.merge == "gate":
            at.own({"gate": Matrix(at.inputs[0].width, len(outs))})
        return outs[0].wide(sum(out.width for out in outs)) if self.merge == "concat" else outs[0]

    def written(self, node: Node, writer: Any) -> dict[str, Any]:
        return {"branches": [], **super().written(node, writer)}


class TransformerLayer(Kind, kind="transformer_layer"):
    """A layer as most papers mean it: a residual around a mixer, then one around a channel mixer.

    Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762. ``place: parallel`` reads both from one norm
    (Wang and Komatsuzaki 2021, GPT-J).
    """

    layer: ClassVar[bool] = True
    mixer: Annotated[Any, BODY] = "absent"
    channel: Annotated[Any, BODY] = "absent"
    norm: Annotated[Any, NORM] = "layer_norm"
    place: Literal["pre", "post", "sandwich", "after", "parallel"] = "pre"
    scale: Annotated[Any, Slot(("scale",))] = None
    factor: Annotated[Real, Moves()] = 1.0
    skip: Annotated[Real, Moves()] = 1.0
    dropout: Annotated[Rate, Free(), Moves()] = 0.0
    drop_path: Annotated[Rate, Free(), Moves()] = 0.0

    def expand(self, raw: Map) -> Seq:
        """The residuals that it stands for."""
        present = [slot for slot in ("mixer", "channel") if raw.get(slot, "absent") != "absent"]
        items = Seq(mark=raw.mark, path=raw.path)
        shared = raw.move("norm", "scale", "dropout", "drop_path", "factor", "skip")
        if "norm" not in shared:
            shared.put("norm", "layer_norm", raw.mark, raw.mark)
        for name, kind in (("factor", self.factor), ("skip", self.skip), ("dropout", self.dropout),
                           ("drop_path", self.drop_path)):  # fmt: skip
            if name in shared:  # evaluated here, where the layer's own depth is known
                shared.put(name, kind, None, None)
        if self.place == "parallel" and len(present) == 2:
            both = Map(mark=raw.mark, path=raw.path)
            both.put("kind", "parallel", raw.mark, raw.mark)
            branches = Seq(mark=raw.mark, path=raw.path)
            for slot in present:
                branches.put(raw[slot], raw.where(slot))
            both.put("branches", branches, raw.mark, raw.mark)
            if self.dropout:  # on each branch, not on their sum
                both.put("dropout", shared.pop("dropout"), shared.where("dropout"), shared.where("dropout"))
            items.put(self._residual(shared, "both", both, "pre", raw), raw.mark)
            return items
        for slot in present:
            place = "pre" if self.place == "parallel" else self.place
            items.put(self._residual(shared, slot, raw[slot], place, raw), raw.where(slot))
        if not present:
            items.put("identity", raw.mark)
        return items

    @staticmethod
    def _residual(shared: Map, name: str, body: Any, place: str, raw: Map) -> Map:
        node = Map(shared)
        mark = raw.where(name) or raw.mark
        node.put("kind", "residual", mark, mark)
        node.put("name", name, mark, mark)
        node.put("place", place, raw.where("place"), raw.where("place"))
        node.put("body", body, mark, mark)
        node.key_paths["body"] = raw.path_of(name)
        return node


def ports(types: dict[str, Stream]) -> dict[str, Stream]:
    """A body's outputs as ports: the first is the main one; several keep their names."""
    main = next(iter(types.values()))
    return {"": main} | (types if len(types) > 1 else {})
