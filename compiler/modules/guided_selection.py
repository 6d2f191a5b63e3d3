"""A body that reads what a slow copy of it finds worth reading (schema in archspec.kinds.guided_selection)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from archspec.errors import Problem, SpecError
from archspec.kinds import guided_selection as kinds
from compiler.build import Blocks, Make, main
from compiler.modules.route import gather
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens, pack, suffixes


@builds(kinds.GuidedSelection)
class GuidedSelection(nn.Module):
    def __init__(self, spec: kinds.GuidedSelection, make: Make) -> None:
        super().__init__()
        self.guided, self.out = Guided(spec, make), make.node.output

    def forward(self, x: Tokens, outer: object = None) -> Tokens:
        found = self.guided(*(tensor for _, tensor in x.tensors()))
        return pack(self.out, [found[number] for number in range(len(suffixes(self.out)))])


class Guided(Leaf):
    """The tensors of a stream to those of the body's output. What are parameters of the body are buffers of the copy.

    Attributes:
        steps: how often the copy has followed the body.
    """

    steps: Tensor

    def __init__(self, spec: kinds.GuidedSelection, make: Make) -> None:
        super().__init__()
        self.spec_, self.stream, self.kept = spec, make.stream, next(iter(make.node.bodies["body"].inputs.values()))
        self.body, self.score = make.body("body"), make.body("score")
        self.copy = Blocks().body(make.node.bodies["copy"])  # whose blocks nobody else uses
        self.seen: list[int] = []  # whose weights, and which version of them
        self.register_buffer("steps", torch.empty((), dtype=torch.int64, device="meta"))
        for module in self.copy.modules():
            for name, parameter in list(module._parameters.items()):
                del module._parameters[name]
                module.register_buffer(name, None if parameter is None else parameter.detach())
        for name, parameter in self.body.named_parameters():
            if parameter.shape != self.copy.get_buffer(name).shape:
                cause = f"{name} has another shape for all tokens than for those that are read"
                raise SpecError(Problem(cause, "weights that do not depend on the length", make.node.path))

    def pairs(self) -> Iterator[tuple[nn.Module, str, Tensor]]:
        """Where the copy has the counterpart of each parameter of the body."""
        for path, parameter in self.body.named_parameters(remove_duplicate=False):
            place, _, name = path.rpartition(".")
            yield self.copy.get_submodule(place), name, parameter

    def fill(self) -> None:
        self.steps.zero_()
        made: dict[int, Tensor] = {}
        for module, name, parameter in self.pairs():
            module._buffers[name] = made.setdefault(id(parameter), parameter.detach().clone())

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the copy's weights towards the body's, if those have changed since it was called last."""
        found = {id(parameter): (module.get_buffer(name), parameter) for module, name, parameter in self.pairs()}
        seen = [next(iter(found), 0), sum(parameter._version for _, parameter in found.values())]
        if self.seen[:1] == seen[:1] and self.seen != seen:
            self.steps += 1
            for own, parameter in found.values():
                own.lerp_(parameter.to(own.dtype), 1 - self.spec_.momentum)
        self.seen = seen

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        x = pack(self.stream, list(tensors))
        if self.training and not x.features.is_meta:
            self.follow()
        scores = main(self.score, self.look(x), outer={}).features[..., 0]
        ranking = scores.detach() if x.valid is None else scores.detach().masked_fill(~x.valid, float("-inf"))
        places = ranking.topk(self.spec_.count(scores.shape[1]), dim=1).indices.sort(dim=1).values
        read, share = gather(x, places, self.kept), scores.gather(1, places).sigmoid()[..., None]
        out = main(self.body, read.give(read.features * (1 + (share - share.detach())), self.kept), outer={})
        return tuple(tensor for _, tensor in out.tensors())

    @torch.no_grad()
    def look(self, x: Tokens) -> Tokens:
        """What the copy gives for all tokens."""
        weights = next((b for b in self.copy.buffers() if b.is_floating_point()), x.features)
        self.copy.eval()
        out = main(self.copy, replace(x, features=x.features.to(weights.dtype)), outer={})
        return replace(out, features=out.features.to(x.features.dtype))
