"""How a choice is written: its keys, and what people write instead."""

from __future__ import annotations

import difflib

from archspec.errors import Refused, did_you_mean
from archspec.moving import is_course
from archspec.source import Map, Seq

FIELDS = {"choose": ("choose", "bind", "default"), "range": ("range", "step", "log", "of", "bind", "default")}
BINDINGS = ("search", "step", "call")
NEAR = ("choice", "choices", "one_of", "any_of")  # meant as `choose`, and not near enough to be found by spelling


def is_choice(raw: Map) -> bool:
    """Whether a mapping stands for several values of a space; one that is drawn in each training step is one value."""
    return ("choose" in raw or "range" in raw) and not is_course(raw)


def check_fields(raw: Map) -> str:
    """Which choice a mapping is, ``choose`` or ``range``.

    Errors:
        Refused: it has an unknown key, or is bound at a time that is not known or not implemented.
    """
    word = "choose" if "choose" in raw else "range"
    for key in raw:
        if key not in FIELDS[word]:
            hint = did_you_mean(key, FIELDS[word])
            if word == "choose" and (key == "kind" or not (hint or "").startswith("did")):
                hint = "fields belong into the options"
            raise Refused(key, f"{word} has no field {key!r}", hint)
    bind = raw.get("bind", "search")
    if bind not in BINDINGS:
        raise Refused("bind", f"no time of choice is called {bind!r}", did_you_mean(str(bind), BINDINGS))
    if bind != "search":
        raise Refused("bind", f"bind: {bind} is not implemented yet", "bind: search, or bind: step")
    return word


def misspelt(raw: Map) -> tuple[str, str] | None:
    """A key that was meant to be ``choose`` or ``range``, and which."""
    if "kind" in raw or is_course(raw):
        return None
    for key, inner in raw.items():
        if isinstance(inner, Seq) and all(other in FIELDS["range"] for other in raw if other != key):
            near = ["choose"] if key in NEAR else difflib.get_close_matches(key, FIELDS, 1, 0.75)
            if near:
                return key, near[0]
    return None
