"""Which family a spec is of, and the configuration that says it: `archspec.family` the other way round.

A family is data that maps configurations to specs; each is searched for one whose spec computes the same with the same
weights (`forms`, `inversion`). Nothing is believed: a configuration is given only if its expansion is the spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from archspec.errors import Problem, SpecError
from archspec.family import families, family, family_of
from archspec.recognition.forms import Form, form
from archspec.recognition.inversion import SWEEPS, Search
from archspec.recognition.trials import kinds_of, origins_of
from archspec.spec import Spec

FIRST = "llama"  # of families that say a spec equally well
FAMILIES = 8  # that are asked
NEAR = 8.0  # differences that leave all nodes as they are
STAGES = ((FAMILIES, 0, False), (2, 1, False), (1, SWEEPS, True), (4, SWEEPS, False), (3, SWEEPS, True))
"""How many families, how often all their fields are tried (first the likeliest values alone), and whether by twos."""


def recognise(spec: Spec, start: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The ``config.json`` of `transformers` that stands for a spec.

    Of several families that can say it, the one that needs the fewest values that are not its defaults. Rates and
    initialisation are said where the family has fields for them.

    Args:
        start: a configuration that stood for it before it was changed; its family is asked first.

    Errors:
        SpecError: no family can say it; tells the nearest and the first thing that this says otherwise.
    """
    target = form(spec)
    if start is not None:
        search = Search(family_of(start), target)
        known = {key: value for key, value in search.family.named(start).items() if key in search.family.config}
        if search.begin(known) and search.improve(both=True) and search.proven(spec):
            return {**search.config(), **{key: value for key, value in start.items() if key in search.family.ignored}}
    alone = Search(family(FIRST), target)
    likely = kinds_of(target) <= _known(FIRST) and alone.begin({}) and alone.cost < 2 * NEAR
    if likely and alone.improve(2) and alone.proven(spec):
        return alone.config()
    searches = _begun(target)
    direct = sorted((one for one in searches if one.exact), key=lambda one: one.said)
    nearest = [*direct, *(one for one in searches if one not in direct)]
    for most, sweeps, both in STAGES:
        for search in nearest[: max(most, len(direct)) if not sweeps else most]:
            if search.improve(sweeps, both=both) and search.proven(spec):
                return _plainer(search, nearest, spec).config()
        nearest.sort(key=lambda one: one.cost)
    raise SpecError(_nearest(spec, searches))


def _begun(target: Form) -> list[Search]:
    """Searches of all families that know the kinds of a spec, most alike first."""
    used = kinds_of(target)
    lacking: dict[str, int] = {name: len(used - _known(name)) for name in families()}
    fewest = min(lacking.values())
    names = sorted((name for name in lacking if lacking[name] == fewest), key=lambda name: (name != FIRST, name))
    searches = [Search(family(name), target) for name in names]
    return sorted((one for one in searches if one.begin({})), key=lambda one: (round(one.cost, 2), one.said))


def _plainer(found: Search, others: list[Search], spec: Spec) -> Search:
    """Of families that say a spec, one that can say less: T5 rather than one that may route its tokens as well."""
    for other in sorted(others, key=lambda one: len(one.family.used)):
        simpler = len(other.family.used) < len(found.family.used) and other.cost < NEAR
        if simpler and other.improve() and other.proven(spec):
            return other
    return found


def _nearest(spec: Spec, searches: list[Search]) -> Problem:
    tried = sorted(searches[:FAMILIES], key=lambda one: (round(one.cost, 1), one.family.name != FIRST))
    cause = f"{spec.name} is no model of a known family"
    hint = "docs/families.md tells how a family is added"
    if not tried:
        return Problem(cause, hint)
    order = ("kind", "item", "field", "read", "shape", "free")
    found = min(tried[0].left, key=lambda one: order.index(one.what), default=None)
    if found is None:
        return Problem(cause, hint)
    said, wanted = _shown(found.old), _shown(found.new)
    name = tried[0].family.name
    if found.what == "item" and found.old is None:
        return Problem(f"{cause}; nearest is {name}, which has no {wanted} there", hint, found.path)
    if found.new is None:
        return Problem(f"{cause}; nearest is {name}, which has {said} there", hint, found.path)
    return Problem(f"{cause}; nearest is {name}, which has {said} there and not {wanted}", hint, found.path)


def _shown(value: Any) -> str:
    return {None: "nothing", True: "true", False: "false"}.get(value, str(value)) if not isinstance(
        value, (dict, list)) else str(value)  # fmt: skip


@cache
def _known(name: str) -> frozenset[str]:
    """Kinds that a family's specs may have."""
    one = family(name)
    return frozenset(origins_of(name).kinds | kinds_of(form(one.sketch({}))) | {"residual", "repeat", "sequence"})
