"""A space around a spec: some of its fields become choices whose default is what the spec says.

The spec is taken as it is written, so that what one block says of all layers is one choice, and a repeat stays a
repeat. An option stands in the space only if the spec with it, and all else as it was, is legal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, get_args

from archspec.errors import Problem, SpecError, did_you_mean
from archspec.kind import Activation, kinds_of
from archspec.source import Map, Seq, as_tree
from archspec.spec import from_tree, header

PORTIONS = (0.5, 0.75, 1, 1.25, 1.5)  # of a width
SHARES = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 1, 3 / 2, 2)  # of a number of heads
ACTIVATIONS = ("relu", "gelu", "silu", "relu_squared")
FEEDING = ("mlp", "glu")


class Place(NamedTuple):
    """A field that becomes a choice: where it stands, and its options with what it says now."""

    container: Any
    key: Any
    options: list[Any]


def derive(tree: Map, vary: Sequence[str]) -> Map:
    """The space of a spec in which some fields vary.

    Args:
        tree: the spec's tree, with ``extends`` and ``set`` resolved.
        vary: of `FIELDS`: ``ffn``, ``heads``, ``kv_heads``, ``depth``, ``width``, ``norms``, ``activations``,
            ``mixers``.

    Errors:
        SpecError: the spec is wrong, a word is unknown, or nothing that it means can vary.
    """
    header(tree, "archspec", "spec")
    for word in vary:
        if word not in FIELDS:
            raise SpecError(Problem(f"nothing to vary is called {word!r}", did_you_mean(word, FIELDS), "--vary"))
    from_tree(tree)
    deriver = _Deriver(tree)
    for word in dict.fromkeys(vary):
        if not deriver.take(FIELDS[word](deriver)):
            raise SpecError(Problem(f"no {word} of this spec can vary", "leave it out of --vary", mark=tree.mark))
    return deriver.space()


class _Deriver:
    def __init__(self, tree: Map) -> None:
        self.plain: dict[str, Any] = _plain(tree)
        self.dims: dict[str, Any] = self.plain.get("dims", {})
        self.places: list[Place] = []

    def take(self, places: Iterator[Place]) -> bool:
        """Keeps the places at which something can vary, with their legal options."""
        kept: list[Place] = []
        found = False
        for container, key, options in places:
            if any(one.container is container and one.key == key for one in self.places + kept):
                found = True  # another word varies it already
                continue
            legal = [option for option in options if self.legal(container, key, option)]
            if len(legal) > 1:
                kept.append(Place(container, key, legal))
        self.places += kept
        return found or bool(kept)

    def legal(self, container: Any, key: Any, option: Any) -> bool:
        present, container[key] = container[key], option
        try:
            from_tree(as_tree(self.plain))
        except SpecError:
            return False
        finally:
            container[key] = present
        return True

    def varied(self, container: Any, key: Any) -> bool:
        found = self.number(container, key)
        return found is not None and any(one.container is found[0] and one.key == found[1] for one in self.places)

    def number(self, container: dict[str, Any], key: str) -> tuple[dict[str, Any], str, int] | None:
        """Where a whole number is written: there, or in the dim that stands there."""
        value = container.get(key)
        if isinstance(value, str) and value in self.dims:
            container, key, value = self.dims, value, self.dims[value]
        return (container, key, value) if isinstance(value, int) and not isinstance(value, bool) else None

    def mappings(self, *kinds: str) -> Iterator[dict[str, Any]]:
        return (raw for raw, _, _ in self.nodes() if isinstance(raw, dict) and raw.get("kind") in kinds)

    def nodes(self) -> Iterator[tuple[Any, Any, Any]]:
        """Everything in the blocks and the graph, with the mapping or list that it stands in and its key there."""
        sections = [section for section in ("graph", "blocks") if section in self.plain]
        stack: list[tuple[Any, Any, Any]] = [(self.plain[section], self.plain, section) for section in sections]
        while stack:
            value, container, key = stack.pop()
            yield value, container, key
            if isinstance(value, dict):
                stack += [(value[inner], value, inner) for inner in reversed(value) if inner != "parameters"]
            elif isinstance(value, list):
                stack += [(item, value, number) for number, item in reversed(list(enumerate(value)))]

    def space(self) -> Map:
        for raw in self.mappings(*kinds_of("mixer")):
            self.tie(raw)
        for container, key, options in self.places:
            present = container[key]
            default = {} if options[0] == present else {"default": present}
            if key == "times":
                container[key] = {"range": [options[0], options[-1]], **default}
            else:
                container[key] = {"choose": options, **default}
        head = {"archspace": 1} | {key: value for key, value in self.plain.items() if key != "archspec"}
        result: Map = as_tree(head)
        return result

    def tie(self, raw: dict[str, Any]) -> None:
        """Heads that vary beside what they have to divide."""
        heads = self.number(raw, "heads")
        if heads is None:
            return
        ties = []
        width = self.number({"width": "width"}, "width")
        if width and "head_width" not in raw and width[2] % heads[2] == 0:
            both = self.varied(raw, "heads") and self.varied({"width": "width"}, "width")
            ties += ["width % heads == 0"] * both
        if self.varied(raw, "kv_heads") and self.varied(raw, "heads"):
            ties.append("heads % kv_heads == 0")
        if ties:
            raw["where"] = ties if len(ties) > 1 else ties[0]


def _ffn(deriver: _Deriver) -> Iterator[Place]:
    for raw in deriver.mappings(*FEEDING):
        for key in ("hidden", "ratio"):
            value = raw.get(key)
            found = deriver.number(raw, key)
            if found is not None and found[:2] != (deriver.dims, "width") and key == "hidden":
                yield Place(found[0], found[1], _around(found[2]))
            elif isinstance(value, (int, float)):
                yield Place(raw, key, [_short(value * portion) if portion != 1 else value for portion in PORTIONS])
            elif isinstance(value, str) and not value.isidentifier():
                yield Place(raw, key, [f"{portion} * ({value})" if portion != 1 else value for portion in PORTIONS])


def _heads(deriver: _Deriver) -> Iterator[Place]:
    for raw in deriver.mappings(*kinds_of("mixer")):
        if (found := deriver.number(raw, "heads")) is not None:
            container, key, heads = found
            options = {heads * share for share in SHARES}
            yield Place(container, key, sorted(int(one) for one in options if one >= 1 and one == int(one)))


def _kv_heads(deriver: _Deriver) -> Iterator[Place]:
    for raw in deriver.mappings(*kinds_of("mixer")):
        heads, found = deriver.number(raw, "heads"), deriver.number(raw, "kv_heads")
        if heads is not None and found is not None:
            yield Place(found[0], found[1], [kv for kv in range(1, heads[2] + 1) if heads[2] % kv == 0])


def _depth(deriver: _Deriver) -> Iterator[Place]:
    for raw in deriver.mappings("repeat", "loop"):
        if (found := deriver.number(raw, "times")) is not None:
            container, key, times = found
            least = max(1, times // 2)
            if key == "times" and all(deriver.legal(container, key, one) for one in {least, times - 1} - {0}):
                yield Place(container, key, [least, times] if least < times else [times])
            elif key != "times":
                yield Place(container, key, list(range(least, times + 1)))


def _width(deriver: _Deriver) -> Iterator[Place]:
    places = [(deriver.dims, "width")] if isinstance(deriver.dims.get("width"), int) else []
    if not places:
        embeddings = deriver.mappings("token_embedding", "patch_embedding")
        places = [(raw, "width") for raw in embeddings if isinstance(raw.get("width"), int)]
    if len(places) == 1:  # several would have to agree
        container, key = places[0]
        yield Place(container, key, _around(container[key]))


def _norms(deriver: _Deriver) -> Iterator[Place]:
    known = ("rms_norm", "layer_norm")
    for value, container, key in deriver.nodes():
        kind = value.get("kind") if isinstance(value, dict) else value
        if kind not in known or not (key == "norm" or isinstance(container, list)):
            continue
        other = known[1 - known.index(kind)]
        placed = {word: value[word] for word in ("name", "from") if word in value} if isinstance(value, dict) else {}
        yield Place(container, key, [value, {**placed, "kind": other} if placed else other])


def _activations(deriver: _Deriver) -> Iterator[Place]:
    for raw in deriver.mappings(*FEEDING):
        present = raw.get("activation")
        if present in get_args(Activation):
            yield Place(raw, "activation", [present, *(one for one in ACTIVATIONS if one != present)])


def _mixers(deriver: _Deriver) -> Iterator[Place]:
    for value, container, key in deriver.nodes():
        if key != "mixer" or not isinstance(value, dict) or value.get("kind") not in kinds_of("mixer"):
            continue
        heads = {"heads": value["heads"]} if "heads" in value else {}
        others: list[dict[str, Any]] = [{"kind": "depthwise_convolution", "size": 4}, {"kind": "mamba2"}]
        if heads:
            others += [{"kind": "linear_attention", **heads}, {"kind": "gated_delta_rule", **heads}]
        yield Place(container, key, [value, *(other for other in others if other["kind"] != value["kind"])])


FIELDS: dict[str, Callable[[_Deriver], Iterator[Place]]] = {
    "ffn": _ffn,
    "heads": _heads,
    "kv_heads": _kv_heads,
    "depth": _depth,
    "width": _width,
    "norms": _norms,
    "activations": _activations,
    "mixers": _mixers,
}


def _around(size: int) -> list[int]:
    """Sizes around one, multiples of the power of two (up to 64) that divides its quarter, or of 1."""
    unit = 64
    while unit > 1 and size % (4 * unit):
        unit //= 2
    return sorted({max(unit, round(size * portion / unit) * unit) for portion in PORTIONS} | {size})


def _short(number: float) -> int | float:
    return int(number) if number == int(number) else round(number, 4)


def _plain(value: Any) -> Any:
    """A tree of plain mappings and lists of its own."""
    if isinstance(value, Map):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, Seq) else value
