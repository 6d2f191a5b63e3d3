"""Which stored tensor of a published checkpoint is which weight of a compiled model.

A family's ``tensors`` (docs/families.md) maps stored names to logical names (`compiler.logical`). A tensor may be
rearranged (einops notation), split over several weights along its first axis, all at once or group by group
(``groups``), and unstacked (``each``); several may be the parts of one weight (``parts``). All of it can be undone, and
no number is changed, so that what is exported is bit for bit what was imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import EinopsError, rearrange
from torch import Tensor, fx

from archspec.errors import Problem, SpecError, either
from archspec.family import Imported, pattern
from compiler.logical import logical


@dataclass(frozen=True)
class Rule:
    """One line of a family's ``tensors``.

    Attributes:
        name: their name, with wildcards.
        to: our names.
        layout: einops pattern from theirs to ours, and sizes of its axes.
        each: the wildcard in ``to`` that counts along their first axis.
        groups: equal parts of their first axis, each of which has a share of every weight in ``to``.
        parts: equal parts of our first axis, each of which is a tensor of theirs; counted by the end of ``to``.
        write: whether it is exported; other names that checkpoints have are only read.
        absent: what our weights are filled with where a checkpoint has no such tensor.
    """

    name: str
    to: tuple[str, ...]
    layout: str | None = None
    sizes: Mapping[str, int] | None = None
    each: str | None = None
    groups: int = 1
    parts: int | None = None
    write: bool = True
    absent: float | None = None

    def ours(self, tensor: Tensor) -> Tensor:
        """Their tensor as we lay it out."""
        return tensor if self.layout is None else rearrange(tensor, self.layout, **(self.sizes or {}))

    def theirs(self, tensor: Tensor) -> Tensor:
        """Our tensor as they lay it out."""
        if self.layout is None:
            return tensor
        left, _, right = self.layout.partition("->")
        return rearrange(tensor, f"{right} -> {left}", **(self.sizes or {}))

    def split(self, tensor: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """What each of our weights gets, by the lengths of their first axes."""
        grouped = tensor.unflatten(0, (self.groups, -1))
        return [part.flatten(0, 1) for part in grouped.split([size // self.groups for size in sizes], dim=1)]

    def joined(self, tensors: Sequence[Tensor]) -> Tensor:
        """`split` undone."""
        return torch.cat([part.unflatten(0, (self.groups, -1)) for part in tensors], dim=1).flatten(0, 1)


class Correspondence:
    """Which of their tensors is which of a model's weights.

    Args:
        imported: what the configuration stands for.
        model: its compiled model.
    """

    def __init__(self, imported: Imported, model: fx.GraphModule) -> None:
        self.imported, self.views = imported, logical(model)
        self.rules = list(_rules(imported.tensors))
        self.patterns = [pattern(rule.name) for rule in self.rules]
        self.skipped = [re.compile(text) for text in imported.family.skipped]
        self.renamed = [(re.compile(old), new) for old, new in imported.family.renamed.items()]
        self.places = imported.places
        self.written: dict[int, str] = {}  # their name of what each weight was given
        for rule in self.rules:
            if rule.parts:
                self._part(rule)
        self.first: dict[tuple[int, ...], str] = {}
        self.under: dict[str, list[str]] = {"": list(self.views), **{place: [] for place in self.places["layer"]}}
        for name in self.views:
            parts = name.split(".")
            for length in range(1, len(parts)):
                self.under.get(".".join(parts[:length]), []).append(name)

    def _part(self, rule: Rule) -> None:
        """Gives the parts of weights, which are tensors of theirs, names of their own."""
        for text in rule.to:
            whole = text.rpartition(".")[0]
            stack, places = self.stack(whole)
            for _, place in places:
                form = pattern(_put(whole, {stack: place}))
                for name in [name for name in self.views if form.fullmatch(name)]:
                    for number, part in enumerate(self.views.pop(name).unflatten(0, (rule.parts, -1))):
                        self.views[f"{name}.{number}"] = part

    def find(self, name: str) -> tuple[Rule, dict[str, str]] | None:
        """The rule for one of their tensors, and what its wildcards mean; None if it has no weight to go to."""
        for old, new in self.renamed:
            name = old.sub(new, name)
        prefix = self.imported.family.prefix
        if prefix and not name.startswith(prefix):  # saved without the head
            bare = self._find(prefix + name)
            if bare is not None:
                return bare
        return self._find(name)

    def _find(self, name: str) -> tuple[Rule, dict[str, str]] | None:
        for rule, form in zip(self.rules, self.patterns, strict=True):
            found = form.fullmatch(name)
            if found:
                words = found.groupdict()
                if self.targets(rule, self.placed(words)):
                    return rule, self.placed(words)
        return None

    def placed(self, words: Mapping[str, str]) -> dict[str, str]:
        """Wildcards of a name of theirs, with numbers of layers as the paths of ours."""

        def place(word: str, number: str) -> str:
            places = self.places.get(word, ())
            return places[int(number)] if number.isdigit() and int(number) < len(places) else number

        return {word: place(word, number) for word, number in words.items()}

    def stack(self, text: str) -> tuple[str, list[tuple[int, str]]]:
        """Which layers a name of ours means: the word that counts them, their numbers and paths."""
        word = next((word for word in self.places if f"{{{word}}}" in text), "")
        return word, list(enumerate(self.places.get(word, [""])))

    def ignores(self, name: str) -> bool:
        return any(form.fullmatch(name) for form in self.skipped)

    def targets(self, rule: Rule, words: Mapping[str, str]) -> list[str]:
        """Our names, of the first of the stack if there is one; empty if there are no such weights."""
        first = {**words, **({rule.each: "0"} if rule.each else {})}
        names = [_put(text, first) for text in rule.to]
        return names if all(name in self.views for name in names) else []

    def write(self, name: str, tensor: Tensor, rule: Rule, words: Mapping[str, str]) -> list[str]:
        """Puts their tensor into our weights; gives the names of these.

        Errors:
            ValueError: it has another shape.
        """
        parts = [(words, tensor)]
        if rule.each:
            parts = [({**words, rule.each: str(number)}, part) for number, part in enumerate(tensor)]
        written = []
        for inner, part in parts:
            names = [_put(text, inner) for text in rule.to]
            views = [self.views.get(one) for one in names]
            missing = next((one for one, view in zip(names, views, strict=True) if view is None), None)
            if missing is not None:
                raise ValueError(f"is {_shape(tensor)}; there is no {missing}")
            wanted = [view for view in views if view is not None]
            try:
                value = rule.ours(part)
            except EinopsError:
                raise ValueError(f"is {_shape(tensor)}; expected {self.shape(rule, wanted, len(tensor))}") from None
            whole = [sum(view.shape[0] for view in wanted), *wanted[0].shape[1:]] if wanted[0].ndim else []
            if list(value.shape) != whole:
                raise ValueError(f"is {_shape(tensor)}; expected {self.shape(rule, wanted, len(tensor))}")
            shares = [value] if len(wanted) == 1 else rule.split(value, [view.shape[0] for view in wanted])
            for view, share in zip(wanted, shares, strict=True):
                tied = self.written.setdefault(view.data_ptr(), name)
                if tied != name and not torch.equal(view, share.to(view)):
                    raise ValueError(f"is not {tied}, to which it is tied")
                view.copy_(share)
            written += names
        return written

    def shape(self, rule: Rule, wanted: list[Tensor], count: int) -> str:
        """The shape that their tensor should have."""
        try:
            value = rule.theirs(
                torch.cat([torch.empty(view.shape) for view in wanted]) if wanted[0].ndim else wanted[0]
            )
        except EinopsError:
            return "another shape"
        return _shape(value) if not rule.each else f"{count} × {_shape(value)}"

    def exported(self) -> Iterator[tuple[str, Callable[[], Tensor]]]:
        """Their names, and what makes the tensor of each from our weights."""
        for rule in (rule for rule in self.rules if rule.write):
            found: dict[tuple[tuple[str, str], ...], set[int]] = {}
            stack, places = self.stack(rule.to[0])
            for number, place in places:
                layer = {stack: str(number)} if stack else {}
                form = pattern(_put(rule.to[0], {stack: place}))
                for name in self.under.get(place, ()):
                    match = form.fullmatch(name)
                    if match:
                        self._found(rule, {**match.groupdict(), **layer}, found)
            for key, numbers in found.items():
                words = dict(key)
                ours = self.placed(words)
                if self.targets(rule, ours):
                    yield _put(rule.name, words), lambda r=rule, w=ours, n=numbers: self.read(r, w, len(n))  # type: ignore[misc]

    def repeats(self, name: str) -> bool:
        """Whether a name before it stands for the same weights."""
        if not self.first:
            for one, _ in self.exported():
                self.first.setdefault(self._weights(one), one)
        return self.first.get(self._weights(name)) != name

    def _weights(self, name: str) -> tuple[int, ...]:
        found = self.find(name)
        return tuple(self.views[one].data_ptr() for one in self.targets(*found)) if found else ()

    def _found(
        self, rule: Rule, words: dict[str, str], found: dict[tuple[tuple[str, str], ...], set[int]]
    ) -> None:  # fmt: skip
        number = int(words.pop(rule.each)) if rule.each else 0
        found.setdefault(tuple(sorted(words.items())), set()).add(number)

    def read(self, rule: Rule, words: Mapping[str, str], count: int) -> Tensor:
        """Their tensor, made of our weights."""
        made = []
        for number in range(count):
            inner = {**words, **({rule.each: str(number)} if rule.each else {})}
            views = [self.views[_put(text, inner)] for text in rule.to]
            made.append(rule.theirs(views[0] if len(views) == 1 else rule.joined(views)))
        return torch.stack(made) if rule.each else made[0].contiguous()


def _rules(tensors: Mapping[str, Any]) -> Iterator[Rule]:
    for name, raw in tensors.items():
        raw = raw if isinstance(raw, Mapping) else {"to": raw}
        to = raw["to"] if isinstance(raw["to"], list) else [raw["to"]]
        yield Rule(name, tuple(to), raw.get("rearrange"), raw.get("sizes"), raw.get("each"),
                   raw.get("groups", 1), raw.get("parts"), raw.get("write", True), raw.get("absent"))  # fmt: skip


def _put(text: str, words: Mapping[str, str]) -> str:
    """A name with those of its wildcards replaced that have a meaning."""
    return re.sub(r"\{(\w+)\}", lambda found: words.get(found[1], found[0]), text)


@torch.no_grad()
def fill(model: fx.GraphModule, imported: Imported, tensors: Mapping[str, Callable[[], Tensor]], where: str) -> None:
    """Gives a model with storage the weights of a checkpoint.

    Args:
        tensors: what reads each of their tensors, by name.
        where: the checkpoint, for errors.

    Errors:
        SpecError: a tensor is missing, too much or misshapen; each by name.
    """
    mapping = Correspondence(imported, model)
    written: set[str] = set()
    problems = []
    for name, get in tensors.items():
        found = mapping.find(name)
        if found is None:
            if not mapping.ignores(name):
                problems.append(Problem(f"{name} is no tensor of this {imported.family.model_type}", None, where))
            continue
        try:
            written.update(mapping.write(name, get(), *found))
        except ValueError as error:
            problems.append(Problem(f"{name} {error}", "the configuration describes another model", where))
            written.update(mapping.targets(*found))
    missing = _missing(mapping, written)
    if missing:
        words = either(missing).replace(" or ", " and ")
        problems.append(Problem(f"the checkpoint has no {words}", f"needed for {len(missing)} of the weights", where))
    if problems:
        raise SpecError(*problems[:20])


def _missing(mapping: Correspondence, written: set[str]) -> list[str]:
    """Their names of what was not written and has to be; tied weights are written under any of their names."""
    seen = {mapping.views[name].data_ptr() for name in written if name in mapping.views}
    lacking = {n for n, view in mapping.views.items() if n not in written and view.data_ptr() not in seen}
    if not lacking:
        return []
    found = []
    for name, _ in mapping.exported():
        rule_words = mapping.find(name)
        targets = set(mapping.targets(*rule_words)) & lacking if rule_words else set()
        if targets and rule_words and rule_words[0].absent is not None:
            for one in targets:
                mapping.views[one].fill_(rule_words[0].absent)
        elif targets:
            found.append(name)
        lacking -= targets
    return found or sorted(lacking)


def _shape(value: Any) -> str:
    return " × ".join(map(str, value.shape)) or "a number"
