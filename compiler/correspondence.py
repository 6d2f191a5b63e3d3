"""Which stored tensor of a published checkpoint is which weight of a compiled model.

A family's ``tensors`` (docs/families.md) maps stored names to logical names (`compiler.logical`). A tensor may be
rearranged (einops notation), split over several weights along its first axis, all at once or group by group
(``groups``), and unstacked (``each``); several may be the parts of one weight (``parts``). All of it can be undone, and
no number is changed, so that what is exported is bit for bit what was imported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn

import torch
from einops import rearrange
from torch import Tensor, fx

from archspec.blame import name as shown
from archspec.errors import Problem, SpecError
from archspec.family import Imported, pattern
from compiler.logical import logical
from compiler.stored import Stored, extent, few

WEIGHTS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
OTHER = "the configuration describes another model"
NAME = 200  # characters of a tensor's name that are told
QUANTISED = "transformers can save it without: model.dequantize()"


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
        self.imported, self.views = imported, _renamed(logical(model), model, imported)
        self.rules = list(_rules(imported.tensors))
        self.patterns = [pattern(rule.name) for rule in self.rules]
        self.skipped = [re.compile(text) for text in imported.family.skipped]
        self.renamed = [(re.compile(old), new) for old, new in imported.family.renamed.items()]
        self.places = imported.places
        self.numbered = {word: {str(n): place for n, place in enumerate(of)} for word, of in self.places.items()}
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

        return {word: self.numbered.get(word, {}).get(number, number) for word, number in words.items()}

    def stack(self, text: str) -> tuple[str, list[tuple[int, str]]]:
        """Which layers a name of ours means: the word that counts them, their numbers and paths."""
        word = next((word for word in self.places if f"{{{word}}}" in text), "")
        return word, list(enumerate(self.places.get(word, [""])))

    def ignores(self, name: str) -> bool:
        return any(form.fullmatch(name) for form in self.skipped)

    def targets(self, rule: Rule, words: Mapping[str, str]) -> list[str]:
        """Our names, of the first of the stack if there is one; empty if there are no such weights."""
        names = self.names(rule, words, 0)
        return names if all(name in self.views for name in names) else []

    def names(self, rule: Rule, words: Mapping[str, str], number: int) -> list[str]:
        """Our names, of one of the stack if there is one."""
        inner = {**words, rule.each: str(number)} if rule.each else words
        return [_put(text, inner) for text in rule.to]

    def stacked(self, rule: Rule, words: Mapping[str, str]) -> Iterator[list[str]]:
        """Our names, of all of the stack."""
        number = 0
        while number == 0 or (rule.each and self.names(rule, words, number)[0] in self.views):
            yield self.names(rule, words, number)
            number += 1

    def write(self, name: str, tensor: Tensor | Stored, rule: Rule, words: Mapping[str, str]) -> list[str]:
        """Puts their tensor into our weights; gives the names of these.

        Errors:
            SpecError: it has another shape, holds more than the weights' type can, or is not what it is tied to.
        """
        wanted = self.read(rule, words, blank=True)
        if tuple(tensor.shape) != tuple(wanted.shape):
            _refuse(f"{name} is {extent(tensor.shape)}; expected {extent(wanted.shape)}", OTHER)
        parts: Iterable[Tensor | Stored] = [tensor]
        if rule.each:
            parts = tensor if isinstance(tensor, Tensor) else tensor.parts()
        written = []
        for names, part in zip(self.stacked(rule, words), parts, strict=True):
            views = [self.views[one] for one in names]
            if isinstance(part, Stored) and (rule.layout or rule.groups > 1):
                part = part.tensor()
            sizes = [view.shape[0] for view in views] if len(views) > 1 else []
            shares: Iterable[Tensor | Stored]
            if isinstance(part, Stored):
                shares = part.split(sizes) if sizes else [part]
            else:
                shares = rule.split(rule.ours(part), sizes) if sizes else [rule.ours(part)]
            for view, share in zip(views, shares, strict=True):
                self._put(name, view, share)
            written += names
        return written

    def _put(self, name: str, view: Tensor, share: Tensor | Stored) -> None:
        tied = self.written.setdefault(view.data_ptr(), name)
        if tied != name:
            value = share if isinstance(share, Tensor) else share.tensor()
            if not torch.allclose(view, value.to(view), rtol=0, atol=0, equal_nan=True):
                _refuse(f"{name} is not {tied}, to which it is tied", OTHER)
        elif isinstance(share, Stored):
            share.into(view)
        else:
            view.copy_(share)
        if share.dtype in WEIGHTS and torch.finfo(share.dtype).max > torch.finfo(view.dtype).max:
            _check_range(name, view, share)

    def exported(self) -> Iterator[tuple[str, Outgoing]]:
        """Their names, and what makes the tensor of each from our weights."""
        for rule in (rule for rule in self.rules if rule.write):
            found: dict[tuple[tuple[str, str], ...], None] = {}
            stack, places = self.stack(rule.to[0])
            for number, place in places:
                layer = {stack: str(number)} if stack else {}
                form = pattern(_put(rule.to[0], {stack: place}))
                for name in self.under.get(place, ()):
                    match = form.fullmatch(name)
                    if match:
                        words = {**match.groupdict(), **layer}
                        words.pop(rule.each or "", None)
                        found[tuple(sorted(words.items()))] = None
            for words in map(dict, found):
                ours = self.placed(words)
                if self.targets(rule, ours):
                    yield _put(rule.name, words), Outgoing(self, rule, ours)

    def repeats(self, name: str) -> bool:
        """Whether a name before it stands for the same weights."""
        if not self.first:
            for one, _ in self.exported():
                self.first.setdefault(self._weights(one), one)
        return self.first.get(self._weights(name)) != name

    def _weights(self, name: str) -> tuple[int, ...]:
        found = self.find(name)
        return tuple(self.views[one].data_ptr() for one in self.targets(*found)) if found else ()

    def read(self, rule: Rule, words: Mapping[str, str], *, blank: bool = False) -> Tensor:
        """Their tensor, made of our weights; ``blank`` gives one of its shape without numbers."""
        made = []
        for names in self.stacked(rule, words):
            views = [self.views[one].to("meta") if blank else self.views[one] for one in names]
            made.append(rule.theirs(views[0] if len(views) == 1 else rule.joined(views)))
        return torch.stack(made) if rule.each else made[0].contiguous()


@dataclass(frozen=True)
class Outgoing:
    """A tensor of theirs; calling it makes the numbers from our weights."""

    mapping: Correspondence
    rule: Rule
    words: Mapping[str, str]

    def __call__(self) -> Tensor:
        return self.mapping.read(self.rule, self.words)

    def blank(self) -> Tensor:
        """A tensor of its shape and type without numbers."""
        return self.mapping.read(self.rule, self.words, blank=True)


def _check_range(name: str, view: Tensor, share: Tensor | Stored) -> None:
    """Refuses numbers that became infinite in the type of the weights."""
    if not view.numel() or all(math.isfinite(one) for one in view.aminmax()):
        return
    value = share if isinstance(share, Tensor) else share.tensor()
    lost = value[view.isinf() & value.isfinite()]
    if len(lost):
        kind, wider = (str(one).removeprefix("torch.") for one in (view.dtype, share.dtype))
        most = torch.finfo(view.dtype).max
        _refuse(f"{name} holds {lost[0].item():.4g}; {kind} holds at most {most:.5g}", f"a wider dtype, as {wider}")


def _renamed(views: dict[str, Tensor], model: fx.GraphModule, imported: Imported) -> dict[str, Tensor]:
    """Weights of a model under the names that the spec of its configuration has for them."""
    spec: Any = model.spec
    if spec.graph.digest("layout") == imported.spec.graph.digest("layout"):
        return views
    from archspec.recognition.forms import form as form_of  # what was imported has its own names

    names = dict(zip(form_of(spec).named(), form_of(imported.spec).named(), strict=True))
    found = {}
    for name, view in views.items():
        parts = name.split(".")
        length = next(n for n in range(len(parts), -1, -1) if ".".join(parts[:n]) in names)
        found[".".join(part for part in (names[".".join(parts[:length])], *parts[length:]) if part)] = view
    return found


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
def fill(
    model: fx.GraphModule, imported: Imported, tensors: Mapping[str, Callable[[], Tensor | Stored]], where: str
) -> None:  # fmt: skip
    """Gives a model with storage the weights of a checkpoint.

    Args:
        tensors: what reads each of their tensors, by name.
        where: the checkpoint, for errors.

    Errors:
        SpecError: a tensor is missing, too much, misshapen or quantised; each by name.
    """
    mapping = Correspondence(imported, model)
    written: set[str] = set()
    problems: list[Problem] = []
    extra, quantised = [], []
    for name, get in tensors.items():
        found = mapping.find(name)
        if found is None:
            extra += [] if mapping.ignores(name) else [shown(name, NAME)]
            continue
        value = get()
        if value.dtype not in WEIGHTS and mapping.views[mapping.targets(*found)[0]].is_floating_point():
            quantised.append(f"{name} ({str(value.dtype).removeprefix('torch.')})")
        try:
            written.update(mapping.write(name, value, *found))
        except SpecError as error:
            problems += [problem._replace(path=where) for problem in error.problems]
            written.update(mapping.targets(*found))
    missing = _missing(mapping, written)
    if quantised:
        cause = f"{few(quantised)} {'is' if len(quantised) == 1 else 'are'} quantised"
        problems.append(Problem(cause, QUANTISED, where))
    if extra:
        cause = f"{few(extra)} {'is no tensor' if len(extra) == 1 else 'are no tensors'} of this"
        near = get_close_matches(extra[0], missing, n=1)
        hint = f"did you mean {near[0]}?" if near else OTHER
        problems.append(Problem(f"{cause} {imported.family.model_type}", hint, where))
    if missing:
        cause = f"the checkpoint has no {few([f'{name} ({shape})' for name, shape in missing.items()])}"
        problems.append(Problem(cause, OTHER, where))
    if len(problems) > MOST:
        problems[MOST:] = [Problem(f"and {len(problems) - MOST} more", None, where)]
    if problems:
        raise SpecError(*problems)


MOST = 5  # problems that are told


def _missing(mapping: Correspondence, written: set[str]) -> dict[str, str]:
    """Their names and shapes of what was not written and has to be; tied weights are written under any name."""
    seen = {mapping.views[name].data_ptr() for name in written if name in mapping.views}
    lacking = {n for n, view in mapping.views.items() if n not in written and view.data_ptr() not in seen}
    if not lacking:
        return {}
    found = {}
    for name, one in mapping.exported():
        targets = set().union(*mapping.stacked(one.rule, one.words)) & lacking
        if targets and one.rule.absent is not None:
            for target in targets:
                mapping.views[target].fill_(one.rule.absent)
        elif targets:
            found[name] = extent(one.blank().shape)
        lacking -= targets
    return found | {name: extent(mapping.views[name].shape) for name in sorted(lacking)}


def _refuse(cause: str, hint: str) -> NoReturn:
    raise SpecError(Problem(cause, hint)) from None
