"""Rounds (schemas in archspec.kinds.rounds)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from archspec.kinds import rounds as kinds
from compiler.build import Make, call, main, project, tie, weight
from compiler.modules.combinator import named
from compiler.modules.route import ExpertChoice, scatter, weighed
from compiler.moving import now
from compiler.moving import number as kept
from compiler.registry import builds
from compiler.tokens import Tokens

Outer = Mapping[str, Tokens]


@builds(kinds.Repeat, kinds.Loop)
class Rounds(nn.Module):
    """The rounds are children by number; a loop's rounds are one child, or share their weights."""

    def __init__(self, spec: kinds.Rounds, make: Make) -> None:
        super().__init__()
        self.node, self.weigh = make.node, spec.weigh
        self.places = []
        shared: dict[str, str] = {}
        for number, slot in enumerate(make.slots("rounds")):
            body = make.node.bodies[slot]
            one = isinstance(spec, kinds.Loop) and spec.share is None and not body.apart
            key = body.digest("full") if one else slot
            place = shared.setdefault(key, str(number))
            self.places.append(place)
            if place == str(number):
                self.add_module(place, make.block(slot))
        self.shared = self._shared(spec)
        for place in dict.fromkeys(self.places[1:]):
            tie(self._modules[place], self._modules[self.places[0]], self.shared)
        self.history = nn.ModuleDict({slot.replace(".", "_"): make.body(slot)
                                      for slot in make.slots("history")})  # fmt: skip

        self.routers = nn.ModuleDict({slot.split(".")[1]: make.body(slot) for slot in make.slots("router")})

    def _shared(self, spec: kinds.Rounds) -> list[str] | None:
        return spec.share if isinstance(spec, kinds.Loop) else spec.share or []

    def forward(self, *inputs: Tokens, outer: Outer | None = None) -> dict[str, Tokens]:
        node, streams, outer = self.node, list(inputs), outer or {}  # without rounds, without bodies
        names = [str(ref).rsplit(".", 1)[-1] for ref in node.inputs]
        mains = [inputs[0]]
        outputs: dict[str, Tokens] = dict(zip(names, inputs, strict=True))
        taps: dict[str, Tokens] = {}
        whole = inputs[0].features
        active: Tokens = inputs[0]
        places: Tensor | None = None
        for number, place in enumerate(self.places):
            key = f"history_{number}"
            if key in self.history:
                streams[0] = main(self.history[key], *mains, outer=outer)
            block = self._modules[place]
            assert block is not None
            if self.routers:
                active, places, streams[0] = self.routed(number, block, active, places, streams[0], whole, outer)
                mains.append(streams[0])
                taps[str(number)] = streams[0]
                outputs = {"": streams[0]}
                continue
            outputs = call(block, *streams, outer=outer)
            if len(outputs) == 1:
                streams[0] = next(iter(outputs.values()))
            else:
                wanted = node.bodies[f"rounds.{number}"].inputs
                streams = [outputs.get(name, old) for name, old in zip(wanted, streams, strict=False)]
            mains.append(next(iter(outputs.values())))
            taps[str(number)] = mains[-1]
        result = named(outputs)
        if "each" in node.reads:
            together = torch.cat([out.features for out in mains[1:]], dim=1)
            taps["each"] = Tokens(together, node.outputs["each"])
        return {**{port: tap for port, tap in taps.items() if port in node.reads}, **result}

    def routed(
        self, number: int, block: nn.Module, active: Tokens, places: Tensor | None, stream: Tokens, whole: Tensor,
        outer: Outer,
    ) -> tuple[Tokens, Tensor | None, Tokens]:  # fmt: skip
        """One round on the tokens that go on, chosen among those of the round before; the others stay as they are."""
        take = self.routers[str(number)]
        assert isinstance(take, ExpertChoice)
        inside, chosen, weights = take.select(active, whole)
        out = main(block, inside, outer=outer).features
        if chosen is None or weights is None:
            return replace(active, features=out), places, stream.give(out, stream.stream)
        out = weighed(self.weigh, inside.features, out, weights)
        places = chosen if places is None else places.gather(1, chosen)
        return replace(inside, features=out), places, stream.give(scatter(stream.features, places, out), stream.stream)


@builds(kinds.LearnedMix)
class LearnedMix(nn.Module):
    def __init__(self, spec: kinds.LearnedMix, make: Make) -> None:
        super().__init__()
        count = len(make.node.types)
        self.weight = weight(count)
        self.normalize = spec.normalize
        high = 1.0 if spec.normalize == "none" else 4.0
        self.initial = {"weight": [0.0] * (count - 1) + [high if spec.init == "last" else 0.0]}

    def forward(self, *inputs: Tokens) -> Tensor:
        shares = self.weight.softmax(0) if self.normalize == "softmax" else self.weight
        total = inputs[0].features * shares[0]
        for number, tokens in enumerate(inputs[1:], 1):
            total = total + tokens.features * shares[number]
        return total


@builds(kinds.AddInput)
class AddInput(nn.Module):
    def __init__(self, spec: kinds.AddInput, make: Make) -> None:
        super().__init__()
        self.factor = kept(spec.factor)

    def forward(self, *inputs: Tokens) -> Tensor:
        return inputs[-1].features + now(self.factor) * inputs[0].features


@builds(kinds.ConcatHistory)
class ConcatHistory(nn.Module):
    def __init__(self, spec: kinds.ConcatHistory, make: Make) -> None:
        super().__init__()
        self.linear = make.linear("weight")

    def forward(self, *inputs: Tokens) -> Tensor:
        return project(self.linear, torch.cat([tokens.features for tokens in inputs], dim=-1), inputs[0])
