"""Axes with round ticks, and the plane between two of them, as inline SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from search.drawing import line, svg, text
from search.progress import shown

GREY, DARK = "#e6e6e6", "#555"


@dataclass(frozen=True)
class Scale:
    """Numbers along an axis; logarithmic where they span more than ten times."""

    low: float
    high: float
    log: bool = False
    unit: str = ""
    whole: bool = False  # between two whole numbers there is nothing

    @classmethod
    def of(
        cls,
        values: Iterable[float],
        unit: str = "",
        *,
        log: bool | None = None,
        room: float = 0.04,
        whole: bool = False,
    ) -> Scale:
        """A scale that has all of the values, with some room at its ends."""
        found = [value for value in values if isfinite(value)]
        low, high = min(found, default=0.0), max(found, default=1.0)
        far = low > 0 and high > 10 * low
        if (far if log is None else log) and low > 0:
            ratio = 10 ** (room * (log10(high) - log10(low))) if high > low else 1.5
            return cls(low / ratio, high * ratio, True, unit, whole)
        more = (high - low) * room if high > low else abs(high) * 0.1 or 1.0
        return cls(low - more, high + more, False, unit, whole)

    def share(self, value: float) -> float:
        """Where a value lies, from 0 at the low end to 1 at the high one."""
        if self.log:
            return (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self, about: int = 5) -> list[tuple[float, str]]:
        """Round values and how they are told."""
        if self.log:
            first, last = floor(log10(self.low)), ceil(log10(self.high))
            every = max(1, ceil((last - first) / (2 * about)))
            subs = (1, 2, 5) if last - first <= about / 2 else (1, 3) if last - first <= about else (1,)
            found = [sub * 10.0**power for power in range(first, last + 1, every) for sub in subs]
        else:
            rough = (self.high - self.low) / about
            power = 10.0 ** floor(log10(rough))
            step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
            found = [step * number for number in range(ceil(self.low / step), floor(self.high / step) + 1)]
        if self.whole:
            found = [value for value in found if value == round(value)]
        unit = self.unit if self.unit == "bytes" else ""
        inside = [value for value in found if self.low <= value <= self.high]
        told = [shown(value, unit) for value in inside]
        if len(set(told)) < len(told):  # far from zero, and near each other
            told = [f"{value:.8g}" for value in inside]
        return list(zip(inside, told, strict=True))


@dataclass(frozen=True)
class Plane:
    """A plane for points: ``x`` and ``y`` give the places of values."""

    across: Scale
    up: Scale
    width: float = 450
    height: float = 300
    left: float = 62
    bottom: float = 48
    right: float = 14
    top: float = 12

    def x(self, value: float) -> float:
        return self.left + self.across.share(value) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        return self.height - self.bottom - self.up.share(value) * (self.height - self.bottom - self.top)

    def drawn(self, x: str, y: str, marks: Sequence[str], *, label: str) -> str:
        """The plane with its axes named, and marks on it."""
        foot, end = self.height - self.bottom, self.width - self.right
        parts, last = [], -1e9
        for value, words in self.across.ticks():
            parts.append(line(self.x(value), foot, self.x(value), self.top, colour=GREY))
            if self.x(value) - last > 6.2 * len(words) + 8:
                at = min(self.x(value), self.width - 3.2 * len(words))
                parts.append(text(at, foot + 16, words, anchor="middle", colour=DARK, size=11))
                last = self.x(value)
        for value, words in self.up.ticks(6):
            parts.append(line(self.left, self.y(value), end, self.y(value), colour=GREY))
            parts.append(text(self.left - 6, self.y(value) + 4, words, anchor="end", colour=DARK, size=11))
        middle = (self.top + foot) / 2
        parts += [
            line(self.left, foot, end, foot, colour="#999"),
            line(self.left, foot, self.left, self.top, colour="#999"),
            text((self.left + end) / 2, self.height - 8, x, anchor="middle"),
            f'<g transform="rotate(-90 12 {middle:.0f})">{text(12, middle, y, anchor="middle")}</g>',
        ]
        return svg(self.height, *parts, *marks, label=label, width=self.width)


def path(points: Iterable[tuple[float, float]], *, colour: str, width: float = 1.4, more: str = "") -> str:
    """A line through points."""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="{width}" {more}/>'


def stairs(points: Sequence[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """The corners of a line that keeps a value until the next point, up to an end."""
    corners: list[tuple[float, float]] = []
    for x, y in points:
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    return [*corners, (end, corners[-1][1])] if corners else []
