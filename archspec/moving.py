"""Numbers that move while a model trains: courses over the progress of training, and values drawn anew in each step.

A field holds such a number as a `Moving`, which counts as its final value wherever a number is read: types, structure
and cost are those of the model that training leaves behind. What computes with it asks for its course.

| written, beside ``bind: step`` | value at progress p from 0 to 1 |
|---|---|
| ``from: 1, to: 8, between: [0, 0.5], shape: linear`` | from one to the other: linear, cosine or exponential |
| ``values: {0: 2, 0.4: 4, 0.8: 8}`` | that of the last step reached |
| ``range: [0, 0.2], default: 0`` (``step``, ``log``) | drawn evenly in each training step, the default outside |
| ``choose: [1, 2, 4], default: 4`` | the same from a list |
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from archspec.errors import Refused, did_you_mean
from archspec.source import Map, Seq

Draw = tuple[int, int]
"""The seed of a training run and the number of its step, which decide what is drawn."""
Reader = Callable[[Map | Seq, Any], Any]

SHAPES: dict[str, Callable[[float, float, float], float]] = {
    "linear": lambda a, b, t: a + (b - a) * t,
    "cosine": lambda a, b, t: b + (a - b) * (1 + math.cos(math.pi * t)) / 2,
    "exponential": lambda a, b, t: a * (b / a) ** t,
}
FORMS = {
    "from": ("from", "to", "between", "shape"),
    "values": ("values",),
    "range": ("range", "step", "log", "default", "seed"),
    "choose": ("choose", "default", "seed"),
}
EXAMPLE = "{bind: step, from: 1, to: 8}"


@dataclass(frozen=True)
class Course:
    """How a number moves.

    Attributes:
        final: its value once training is over; what is drawn is then the default.
        ends: the lowest and the highest that it can be.
        said: all that decides it, as a spec says it, defaults filled.
    """

    final: float
    ends: tuple[float, float]
    said: str

    @property
    def plain(self) -> dict[str, Any]:
        """As plain data, ready to be printed as YAML."""
        found: dict[str, Any] = json.loads(self.said)
        return found

    def at(self, progress: float, draw: Draw | None = None) -> float:
        """The value at a progress from 0 to 1.

        Args:
            draw: of a training step; outside training there is none.
        """
        said = self.plain
        if "from" in said:
            start, stop = said["between"]
            share = (progress - start) / (stop - start)
            found = said["to"] if share >= 1 else said["from"]
            if 0 < share < 1:
                found = SHAPES[said["shape"]](said["from"], said["to"], share)
            return math.floor(found + 0.5) if isinstance(self.final, int) else float(found)
        if "values" in said:
            return [value for reached, value in said["values"].items() if float(reached) <= progress][-1]  # type: ignore[no-any-return]
        return self.final if draw is None else self._drawn(said, draw)

    def _drawn(self, said: Mapping[str, Any], draw: Draw) -> float:
        digest = blake2b(f"{draw[0]}/{draw[1]}/{self.said}".encode(), digest_size=8).digest()
        share = (int.from_bytes(digest) >> 11) / 2**53  # evenly from [0, 1)
        if "choose" in said:
            return said["choose"][int(share * len(said["choose"]))]  # type: ignore[no-any-return]
        low, high = said["range"]
        if "step" in said:
            count = math.floor((high - low) / said["step"] + 1e-9) + 1
            return low + said["step"] * int(share * count)  # type: ignore[no-any-return]
        return low * (high / low) ** share if said["log"] else low + (high - low) * share  # type: ignore[no-any-return]

    def __str__(self) -> str:
        said = self.plain
        if "from" in said:
            when = "" if said["between"] == [0, 1] else f" between {said['between'][0]:g} and {said['between'][1]:g}"
            shape = "" if said["shape"] == "linear" else f" {said['shape']}"
            return f"{said['from']:g} → {said['to']:g}{shape}{when}"
        if "values" in said:
            return " → ".join(f"{value:g} at {reached}" for reached, value in said["values"].items())
        drawn = said.get("choose") or said["range"]
        return f"drawn from {'–'.join(f'{v:g}' for v in drawn) if 'range' in said else drawn}, then {self.final:g}"


class Moving:
    """A number of a spec that moves; it counts as its final value, and equals no number."""

    course: Course

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Moving) and self.course == other.course

    def __ne__(self, other: object) -> bool:
        return not self == other  # that of a number would come first

    def __hash__(self) -> int:
        return hash(self.course)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return str(self.course)

    def __reduce__(self) -> Any:
        return moving, (self.course,)


class MovingFloat(Moving, float):
    """A number."""


class MovingInt(Moving, int):
    """A whole number."""


def moving(course: Course) -> MovingFloat | MovingInt:
    """The number that follows a course."""
    made: Any = (MovingInt if isinstance(course.final, int) else MovingFloat)(course.final)
    made.course = course
    return made  # type: ignore[no-any-return]


def most(number: float) -> float:
    """The highest that a number can be."""
    return number.course.ends[1] if isinstance(number, Moving) else number


def is_course(raw: Any) -> bool:
    """Whether a value of a file is a number that moves in training."""
    return isinstance(raw, Map) and raw.get("bind") == "step"


def course(raw: Map, number: Reader, *, whole: bool) -> Course:
    """Reads how a number moves.

    Args:
        number: the value at a place of the file, expressions evaluated.
        whole: whether it takes whole numbers only; a ramp is then rounded.

    Errors:
        Refused: which key is wrong.
    """
    form = next((form for form in FORMS if form in raw), None)
    if form is None:
        hint = did_you_mean(next((key for key in raw if key != "bind"), ""), FORMS)
        raise Refused("bind", "it is not said how the number moves", hint if hint and "did" in hint else EXAMPLE)
    for key in raw:
        if key not in (*FORMS[form], "bind"):
            raise Refused(key, f"a number that moves by {form}: has no {key!r}", did_you_mean(key, FORMS[form]))

    def read(container: Map | Seq, key: Any, name: str, least: float | None = None, most: float | None = None) -> float:
        value = number(container, key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise Refused(name, f"{value!r} is not a number")
        if (least is not None and value < least) or (most is not None and value > most):
            raise Refused(name, f"{value:g} is not a progress of training", "0 is its beginning, 1 its end")
        return value

    def value_of(container: Map | Seq, key: Any, name: str) -> float:
        value = read(container, key, name)
        if whole and value != int(value):
            raise Refused(name, f"{value:g} is not a whole number")
        return int(value) if whole else float(value)

    made = {"from": _ramp, "values": _steps, "range": _range, "choose": _options}[form]
    said, final, reached = made(raw, read, value_of)
    return Course(final, (min(reached), max(reached)), json.dumps({"bind": "step", **said}))


def again(raw: Map) -> Course:
    """Reads how a number moves from what `Course.plain` gave."""
    first = raw.get("from", raw.get("default", next(iter(raw.get("values", {}).values()), None)))
    return course(raw, lambda container, key: container[key], whole=isinstance(first, int))


Made = tuple[dict[str, Any], float, list[float]]


def _ramp(raw: Map, read: Any, value_of: Any) -> Made:
    if "to" not in raw:
        raise Refused("from", "it is not said where the number moves to", "add to: …")
    first, last = value_of(raw, "from", "from"), value_of(raw, "to", "to")
    between: Any = raw.get("between", [0.0, 1.0])
    if isinstance(between, Seq):
        between = [float(read(between, place, "between", 0, 1)) for place in range(len(between))]
    if not isinstance(between, list) or len(between) != 2 or between[0] >= between[1]:
        raise Refused("between", "between holds the progress at which it starts and stops", "between: [0, 0.8]")
    shape = raw.get("shape", "linear")
    if not isinstance(shape, str) or shape not in SHAPES:
        raise Refused("shape", f"no shape is called {shape!r}", did_you_mean(str(shape), SHAPES))
    if shape == "exponential" and first * last <= 0:
        raise Refused("shape", f"no number of times {first:g} is {last:g}", "shape: linear")
    return {"from": first, "to": last, "between": between, "shape": shape}, last, [first, last]


def _steps(raw: Map, read: Any, value_of: Any) -> Made:
    given = raw["values"]
    if not isinstance(given, Map) or not given:
        raise Refused("values", "values holds a number for each progress", "values: {0: 2, 0.4: 4, 0.8: 8}")
    found: dict[str, float] = {}
    before = -1.0
    for key in given:
        try:
            reached = float(key)
        except ValueError:
            raise Refused(f"values.{key}", f"{key!r} is not a progress of training") from None
        if not 0 <= reached <= 1 or (before < 0) != (reached == 0) or reached <= before:
            raise Refused(f"values.{key}", "the progress starts at 0 and rises to at most 1")
        before = reached
        found[f"{reached:g}" if float(f"{reached:g}") == reached else repr(reached)] = value_of(
            given, key, f"values.{key}"
        )
    return {"values": found}, list(found.values())[-1], list(found.values())


def _drawn(raw: Map, read: Any, value_of: Any) -> dict[str, Any]:
    """What both ways to draw say."""
    if "default" not in raw:
        raise Refused("bind", "a number that is drawn in training has a value outside it", "add default: …")
    seed = read(raw, "seed", "seed") if "seed" in raw else 0
    if seed != int(seed):
        raise Refused("seed", f"{seed:g} is not a whole number")
    return {"default": value_of(raw, "default", "default"), "seed": int(seed)}


def _options(raw: Map, read: Any, value_of: Any) -> Made:
    if not isinstance(raw["choose"], Seq) or not raw["choose"]:
        raise Refused("choose", "choose takes a list of numbers", "choose: [1, 2, 4]")
    options = [value_of(raw["choose"], place, "choose") for place in range(len(raw["choose"]))]
    told = _drawn(raw, read, value_of)
    return {"choose": options, **told}, told["default"], [*options, told["default"]]


def _range(raw: Map, read: Any, value_of: Any) -> Made:
    given = raw["range"]
    if not isinstance(given, Seq) or len(given) != 2:
        raise Refused("range", "range takes the lowest and the highest", "range: [0, 0.2]")
    low, high = (value_of(given, place, "range") for place in (0, 1))
    if low >= high:
        raise Refused("range", f"{low:g} to {high:g} is no range", "the lowest comes first")
    said: dict[str, Any] = {"range": [low, high], "log": raw.get("log", False)}
    if "step" in raw or isinstance(low, int):
        said["step"] = value_of(raw, "step", "step") if "step" in raw else 1
        if said["step"] <= 0:
            raise Refused("step", f"steps of {said['step']:g}", "step: 1")
    if said["log"] is not False and (said["log"] is not True or low <= 0 or "step" in said):
        raise Refused("log", "numbers are drawn by their logarithm where they are above 0 and have no steps")
    told = _drawn(raw, read, value_of)
    return said | told, told["default"], [low, high, told["default"]]
