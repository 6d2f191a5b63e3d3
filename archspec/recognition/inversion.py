"""The search for the configuration of one family that stands for a spec.

Where the family's templates show what a field becomes, its value is read off the spec (`origins`). What is left is
found by changing one field at a time while that lessens the differences: numbers along the slope that a change of them
shows, the number of layers by how many nodes there are, flags, words and lists by trying.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from archspec.errors import SpecError
from archspec.family import Family
from archspec.recognition.forms import Difference, Form, differences, form
from archspec.recognition.origins import Leaf
from archspec.recognition.trials import WEIGHTS, Trials, Try, is_number, items_of
from archspec.spec import Spec

SWEEPS = 4  # how often all fields are tried


class Search(Trials):
    """The search for the configuration of one family.

    Attributes:
        at: the best that was found so far; ``first`` is what could be read off.
        wide: whether unlikely values are tried too.
        full: whether the configuration says defaults.
        counts: fields that decide how many layers there are.
    """

    at: Try
    first: Try

    def __init__(self, family: Family, target: Form) -> None:
        super().__init__(family, target)
        self.wide, self.full = True, True
        self.counts: list[Leaf] = []

    @property
    def cost(self) -> float:
        return self.at.cost

    @property
    def left(self) -> list[Difference]:
        return self.at.left

    @property
    def exact(self) -> bool:
        return all(one.what == "free" for one in self.at.left)

    @property
    def said(self) -> int:
        """How many values are not the family's defaults."""
        return sum(value != self.family.config.get(key) for key, value in self.at.config.items())

    def config(self) -> dict[str, Any]:
        """The best configuration as a ``config.json`` has it."""
        full = {**self.family.config, **self.at.config} if self.full else self.at.config
        kept = {key: value for key, value in full.items()
                if value is not None or self.family.config.get(key) is not None}  # fmt: skip
        return {"architectures": [self.family.architecture], "model_type": self.family.model_type, **_written(kept)}

    def simplify(self) -> None:
        """Leaves out what makes no difference."""
        for key in list(self.at.config):
            less = self.trial({other: value for other, value in self.at.config.items() if other != key})
            if less is not None and less.cost <= self.at.cost:
                self.at = less

    def proven(self, spec: Spec) -> bool:
        """Whether the configuration, as it is written, stands for a spec."""
        self.simplify()
        for self.full in (True, False):  # older configurations say in one field what newer ones say in another
            try:
                found = self.family.expand(self.config()).spec
            except SpecError:
                continue
            if all(one.what == "free" for one in differences(form(found), form(spec))):
                return True
        return False

    def begin(self, config: dict[str, Any]) -> bool:
        """Takes what can be read off the spec; whether there is a configuration to go on from."""
        first = self.trial(config)
        if first is None:
            return False
        self.at = first
        self.first = first
        if self.exact:
            return True
        guess = dict(config)
        for leaf in self.leaves(config):
            found = [one for one in self.hints.get(leaf[-1], ()) if self.fits(leaf, one)]
            if found and (
                is_number(self.value(leaf, config)) or (self.kind(leaf) == "integer" and is_number(found[0]))
            ):
                guess = self.put(leaf, found[0], guess)
        counts = self.repeats(first)
        for numbers in counts[:1]:
            guess = {**guess, **numbers}
        joint = self._mended(guess)
        if joint is not None:
            others = [self.trial({**joint.config, **numbers}) for numbers in counts]
            joint = min([joint, *(one for one in others if one)], key=lambda one: one.cost)
            if joint.cost < self.at.cost:
                self.at = joint
        self.first = self.at
        return True

    def _mended(self, guess: dict[str, Any]) -> Try | None:
        """A guess with other values for the fields that make it one that cannot be said."""
        for _ in range(8):
            found = self.trial(guess)
            if found is not None:
                return found
            unsaid = [leaf for leaf in self.leaves(guess) if leaf[0] not in guess and self.kind(leaf) == "integer"]
            tried = [self.put(leaf, value, guess) for leaf in unsaid for value in (None, 1, 2, 4)]
            tried += [{key: value for key, value in guess.items() if key != one} for one in guess]
            whole = [one for one in map(self.trial, tried) if one]
            if whole:
                return min(whole, key=lambda one: one.cost)
            guess.pop(next(iter(guess), ""), None)
        return self.trial(guess)

    def repeats(self, base: Try) -> list[dict[str, int]]:
        """Values of the fields that decide how many items there are, by how many of each kind the spec has."""
        leaves: dict[str, tuple[int, int, Try]] = {}  # a value, a step up, and what that gives
        for key in self.family.config:
            if key not in self.origins.counted or self.kind((key,)) != "integer":
                continue
            value = self.value((key,), base.config)
            if value is None:
                set_ = self.trial({**base.config, key: 2})
                if set_ is None or Counter(_places(set_.form)) == Counter(_places(base.form)):
                    continue
                base, value = set_, 2
            if not isinstance(value, int) or not 0 < value < 1000:
                continue
            for more in (value + 1, 2 * value):
                other = self.trial(self.put((key,), more, base.config))
                if other is not None:
                    if len(other.form.items) != len(base.form.items):
                        leaves[key] = (value, more - value, other)
                    break
        self.counts = [(key,) for key in leaves]
        if not leaves or len(leaves) > 2:
            return []
        now, wanted = _places(base.form), _places(self.target)
        steps = {key: {word: (_places(other.form)[word] - now[word]) / step for word in {*now, *_places(other.form)}}
                 for key, (_, step, other) in leaves.items()}  # fmt: skip
        words = sorted({word for step in steps.values() for word in step if wanted[word]})
        found: Counter[tuple[int, ...]] = Counter()
        for solution in _solved([[step.get(word, 0.0) for step in steps.values()] for word in words],
                                [float(wanted[word] - now[word]) for word in words]):  # fmt: skip
            numbers = [value + by for (value, _, _), by in zip(leaves.values(), solution, strict=True)]
            if all(abs(number - round(number)) < 1e-6 and 0 < number < 4096 for number in numbers):
                found[tuple(round(number) for number in numbers)] += 1
        if len(leaves) == 1:  # however they look
            ((key, (value, step, other)),) = leaves.items()
            number = value + (len(self.target.items) - len(base.form.items)) * step / (
                len(other.form.items) - len(base.form.items))  # fmt: skip
            found[(max(1, round(number)),)] += 100
        best = found.most_common(1 if len(leaves) == 1 else 4)
        return [dict(zip(leaves, numbers, strict=True)) for numbers, _ in best]

    def improve(self, sweeps: int = SWEEPS, *, both: bool = False) -> bool:
        """Changes one field after another while that lessens the differences; whether none that matters is left."""
        self.wide = sweeps > 0
        self._sweep(max(1, sweeps))
        if both and not self.exact:
            found, self.at, self.spent = self.at, self.first, 0
            self._sweep(sweeps, order=-1)
            self.at = min(found, self.at, key=lambda one: one.cost)
            while not self.exact and self._both():
                self._sweep(sweeps)
        return self.exact

    def _sweep(self, times: int, order: int = 1) -> None:
        for _ in range(times):
            before = self.at.cost
            if not self.at.left:
                break
            for leaf in self.leaves(self.at.config)[::order]:
                for value in self.candidates(leaf):
                    self._take(self.put(leaf, value, self.at.config))
            for config in self.bundles():
                self._take(config)
            if self._matters():
                for numbers in self.repeats(self.at):
                    self._take({**self.at.config, **numbers})
                for config in self.stacked() if self.wide else ():
                    self._take(config)
            if self.at.cost >= before:
                break

    def _both(self) -> bool:
        """Changes two fields at once, where one alone is no step forward; whether that was one."""
        here = self.at
        wrong = {one.path for one in here.left if one.what != "free"}
        for leaf in self.leaves(here.config):
            for value in self.candidates(leaf):
                first = self.trial(self.put(leaf, value, here.config))
                if first is None and self.kind(leaf) == "flag":
                    first = replace(here, config=self.put(leaf, value, here.config))
                elif first is None or wrong <= {one.path for one in first.left}:
                    continue  # it mends nothing
                self.at = first
                for other in self.leaves(first.config):
                    if other != leaf:
                        for second in self.candidates(other):
                            found = self.trial(self.put(other, second, first.config))
                            if found is not None and found.cost < here.cost - 1e-9:
                                self.at = found
                                return True
                self.at = here
        return False

    def _take(self, config: dict[str, Any]) -> bool:
        found = self.trial(config)
        if found is None or found.cost >= self.at.cost - 1e-9:
            return False
        self.at = found
        return True

    def candidates(self, leaf: Leaf) -> Iterator[Any]:
        """Other values of a field, the likeliest first."""
        now, kind = self.value(leaf, self.at.config), self.kind(leaf)
        if kind == "flag":
            yield not now
            return
        yield from (value for value in self.hints.get(leaf[-1], ())[:8] if value != now and self.fits(leaf, value))
        if not self._matters():  # rates and initialisation alone
            if kind == "number" and now:
                yield 0.0
            return
        if isinstance(now, list) and now and all(map(is_number, now)):
            for number in range(len(now)):
                for value in dict.fromkeys((*self.wanted(leaf), *range(1, 9))):
                    held = list(self.value(leaf, self.at.config))
                    held[number] = value
                    yield held
        default = self.value(leaf, {})
        if default != now:
            yield default
        if now is not None:
            yield None
        if kind == "word" and (self.wide or any(isinstance(one.new, str) for one in self.at.left)):
            yield from (word for word in self.words if word != now)
        if kind in ("list", None):
            words = sorted(self.origins.listed.get(leaf[-1], ()))
            yield from ([word] for word in words)
            yield from ([word, other] for word in words for other in words if word < other)
        if kind in ("integer", "number") or (kind is None and now is None):
            for value in self.wanted(leaf):
                yield from (one for one in ((value, 2 * value) if now is None else (value,)) if self.fits(leaf, one))
            if kind == "number" and now:
                yield 0.0
            if kind == "integer" and leaf not in self.counts and self.wide:
                yield from range(7)
        if is_number(now):
            yield from self.sloped(leaf, now)

    def _matters(self) -> bool:
        return any(one.what != "free" for one in self.at.left)

    def wanted(self, leaf: Leaf) -> list[Any]:
        """Numbers that the spec has where the best so far differs."""
        now = self.value(leaf, self.at.config)
        free = now is None or isinstance(now, list)
        found = (one.new for one in self.at.left if is_number(one.new) and (free or one.old == now))
        return list(dict.fromkeys(found))[:6]

    def sloped(self, leaf: Leaf, now: float) -> Iterator[float]:
        """Numbers that bring what a field decides to what the spec has, along a line or a power."""
        whole = self.kind(leaf) == "integer"
        changes: dict[str, tuple[Any, Any]] = {}
        moved: float = now
        for step in (now + 1, now * 2, now * 4) if whole else (now * 1.5 if now else 0.5,):
            other = self.trial(self.put(leaf, step, self.at.config))
            if other is not None:
                moved = step
                changes = {one.path: (one.old, one.new) for one in differences(self.at.form, other.form)
                           if is_number(one.old) and is_number(one.new)}  # fmt: skip
                if any(one.path in changes for one in self.at.left if one.what != "free"):
                    break
        found: list[float] = []
        for one in self.at.left:
            if one.what != "free" and one.path in changes and is_number(one.new):
                old, new = changes[one.path]
                found.append(now + (one.new - old) * (moved - now) / (new - old))
                if min(now, moved, old, new, one.new) > 0 and moved != now:
                    power = math.log(moved / now) / math.log(new / old)
                    found += [now * (one.new / old) ** power] if abs(power) < 9 else []
        for number in dict.fromkeys(found):
            if not math.isfinite(number) or abs(number) > 2**40:
                continue
            if whole:
                yield from dict.fromkeys((round(number), math.floor(number), math.ceil(number)))
                continue
            yield float(f"{number:.12g}")
            yield number

    def bundles(self) -> Iterator[dict[str, Any]]:
        """Configurations with a mapping of several entries at once, as each kind of rotary scaling has its own."""
        for key, default in self.family.config.items():
            if key not in self.family.used:
                continue
            kind = self.family.types.get(key)
            inner: list[Leaf] = [(key,)] if isinstance(default, dict) or kind == "mapping" else []
            if isinstance(default, dict):
                inner += [(key, word) for word, value in default.items() if isinstance(value, dict)]
            for leaf in inner:
                now = self.value(leaf, self.at.config) or {}
                known = {word: self.hints[word][0] for word in sorted(self.origins.entries) if self.hints.get(word)}
                plain = {word: value for word, value in {**now, **known}.items() if word not in self.family.config}
                fixed = {word: value for word, value in now.items() if isinstance(value, (int, float))}
                for word in (word for word in self.words if isinstance(self.origins.words[word], dict)):
                    for name in sorted({"rope_type", "type"} & self.origins.entries):
                        held = {**plain, **fixed, name: word}
                        yield self._pruned(leaf, held)
                        if self.wide:
                            yield from self._beside(leaf, held)

    def _beside(self, leaf: Leaf, held: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """With a mapping, other values of whole numbers: what is scaled shows in several."""
        for other, values in self.hints.items():
            if other in self.family.config and self.kind((other,)) == "integer":
                for value in values[1:3]:
                    if self.fits((other,), value):
                        yield self.put((other,), value, self.put(leaf, held, self.at.config))

    def _pruned(self, leaf: Leaf, value: dict[str, Any]) -> dict[str, Any]:
        """A mapping without the entries that change nothing."""
        found = self.trial(self.put(leaf, value, self.at.config))
        if found is None or found.cost >= self.at.cost:
            return self.at.config
        for key in list(value):
            less = {other: one for other, one in value.items() if other != key}
            without = self.trial(self.put(leaf, less, self.at.config))
            if without is not None and without.cost <= found.cost:
                value, found = less, without
        return self.put(leaf, value, self.at.config)

    def _counted(self) -> Iterator[dict[str, Any]]:
        """Configurations of as many layers as the spec has, where a list of as many words decides that."""
        for key in self.family.config:
            if key not in self.family.used or self.kind((key,)) not in ("list", None):
                continue
            for word in self.words:
                for other in ("", *sorted(self.family.used)):
                    if other and self.kind((other,)) != "integer":
                        continue
                    base = {**self.at.config, **({other: 2} if other else {}), key: [word] * 2}
                    two, three = self.trial(base), None
                    if two is not None:
                        three = self.trial({**base, **({other: 3} if other else {}), key: [word] * 3})
                    if two is None or three is None or len(two.form.items) == len(three.form.items):
                        continue
                    step = len(three.form.items) - len(two.form.items)
                    number = max(1, round(2 + (len(self.target.items) - len(two.form.items)) / step))
                    self.counts = [(other,) if other else (key,)]
                    yield {**base, **({other: number} if other else {}), key: [word] * number}
                    break

    def stacked(self) -> Iterator[dict[str, Any]]:
        """Configurations with a list that says something of each layer: what layers of one sort alone look like shows
        which of them are of that sort."""
        if not self.counts:
            yield from self._counted()
        for key in self.family.config:
            if key not in self.family.used or self.kind((key,)) not in ("list", None):
                continue
            numbers = [self.value(leaf, self.at.config) for leaf in self.counts]
            for count in dict.fromkeys(len(one) if isinstance(one, list) else one for one in numbers):
                sorts = [(word, [word] * count) for word in [*self.origins.words, 0, 1, True, False]]
                found = [
                    (word, one) for word, whole in sorts if (one := self.trial(self.put((key,), whole, self.at.config)))
                ]
                if len(found) > 1:
                    named = [self._likest(count, number, found) for number in range(count)]
                    yield self.put((key,), named, self.at.config)
                every = self.trial(self.put((key,), list(range(count)), self.at.config))
                none = self.trial(self.put((key,), [], self.at.config))
                if every and none:
                    chosen = [n for n in range(count) if self._likest(count, n, [(True, every), (False, none)])]
                    yield self.put((key,), chosen, self.at.config)

    def _likest(self, count: int, number: int, found: list[tuple[Any, Try]]) -> Any:
        """Which of several configurations has a layer most as the spec has it."""

        def part(one: Form) -> Form:
            first = next((n for n, item in enumerate(one.items) if item.label.startswith("residual")), 0)
            last = max((n for n, item in enumerate(one.items) if item.label.startswith("residual")), default=0) + 1
            size = (last - first) / count
            return Form([], one.items[first + int(number * size) : first + int((number + 1) * size)], [])

        wanted = part(self.target)
        return min(found, key=lambda pair: sum(WEIGHTS[d.what] for d in differences(part(pair[1].form), wanted)))[0]


def _written(value: Any) -> Any:
    """A value as a ``config.json`` has it, where infinite numbers are ``{"__float__": "Infinity"}``."""
    if isinstance(value, dict):
        return {key: _written(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_written(one) for one in value]
    infinite = isinstance(value, float) and math.isinf(value)
    return {"__float__": "Infinity" if value > 0 else "-Infinity"} if infinite else value


def _places(form: Form) -> Counter[str]:
    """How many nodes there are of each kind, in rounds one by one."""
    return Counter([*(item.kind for item in items_of(form)), *(f"({item.label})" for item in form.items)])


def _solved(rows: list[list[float]], wanted: list[float]) -> Iterator[list[float]]:
    """Solutions of as many of some linear equations as there are unknowns, of one or two unknowns."""
    if len(rows[0]) == 1 if rows else False:
        yield from ([b / a] for (a,), b in zip(rows, wanted, strict=True) if a)
        return
    for number, ((a, b), x) in enumerate(zip(rows, wanted, strict=True)):
        for (c, d), y in list(zip(rows, wanted, strict=True))[number + 1 :]:
            if a * d != b * c:
                yield [(x * d - b * y) / (a * d - b * c), (a * y - c * x) / (a * d - b * c)]
