"""Several specs side by side, each figure with its ratio to the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search.cost.breakdown import Breakdown
from search.cost.report.text import aligned, at, between, duration, joules, large, short
from search.cost.setting import PHASES, Phase
from search.memory import shown

Figure = tuple[str, Callable[[Breakdown], float | None], Callable[[float], str]]


def _seconds(phase: Phase) -> Callable[[Breakdown], float | None]:
    return lambda found: found.passes[phase].seconds if phase in found.passes else None


def _energy(phase: Phase) -> Callable[[Breakdown], float | None]:
    return lambda found: found.passes[phase].energy if phase in found.passes else None


def _backward(found: Breakdown) -> float | None:
    return found.passes["step"].backward if "step" in found.passes else None


def _most(what: str) -> Callable[[Breakdown], float | None]:
    def most(found: Breakdown) -> float | None:
        fit = getattr(found.fits, what) if found.fits else None
        return fit.most if fit else None

    return most


def _number(value: float) -> str:
    return f"{value:,.0f}" if value else "none"


FIGURES: list[Figure] = [
    ("parameters", lambda found: found.cost.parameters, _number),
    ("  active", lambda found: found.cost.active, _number),
    ("FLOPs forward", lambda found: found.cost.forward, large),
    ("  backward", _backward, large),
    ("weights", lambda found: found.memory.weights, shown),
    ("peak, inference", lambda found: found.memory.inference, shown),
    ("  training", lambda found: found.memory.training, shown),
    ("  checkpointed", lambda found: found.memory.peak_checkpointed, shown),
    ("cache", lambda found: found.memory.cache, shown),
    *((f"{phase}", _seconds(phase), duration) for phase in PHASES),
    *((f"energy, {phase}", _energy(phase), joules) for phase in PHASES),
    ("batch, training", _most("training"), _number),
    ("  serving", _most("serving"), _number),
]


def comparison(names: Sequence[str], found: Sequence[Breakdown]) -> str:
    """A column for each spec, with the ratios to the first."""
    heads = [""]
    for number, name in enumerate(names):
        heads += [name, ""] if number else [name]
    rows = [tuple(heads)]
    for name, figure, told in FIGURES:
        values = [figure(one) for one in found]
        if not any(values):
            continue
        cells = [name]
        for number, value in enumerate(values):
            cells.append("–" if value is None else told(value).strip())
            if number:
                first = values[0]
                cells.append(f"× {short(float(f'{value / first:.3g}'))}" if value and first else "")
        rows.append(tuple(cells))
        if name in PHASES:
            bounds = [""]
            for number, one in enumerate(found):
                bounds += [between(one.passes[name]) if name in one.passes else ""] + [""] * bool(number)
            rows.append(tuple(bounds))
    lines = aligned(rows, 1)
    settings = dict.fromkeys(f"{name}:{at(one).removeprefix(' of')}" for name, one in zip(names, found, strict=True))
    return "\n".join([*lines, "", f"on {found[0].profile.title}", *settings])
