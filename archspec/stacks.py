"""A list of layers as a graph of repeats, as a person would write it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from archspec.errors import Refused

MOST_LAYERS = 4096


def rounds(layers: list[Any], word: str, stacks: dict[str, list[str]]) -> list[Any]:
    """Layers, each the name of a block or a call of one, as repeats; ``stacks`` get the path of each."""
    nodes: list[Any] = []
    if len(layers) > MOST_LAYERS:
        raise Refused("", f"{len(layers):,} layers; at most {MOST_LAYERS:,} can be said")
    places = stacks.setdefault(word, [])
    for number, (pattern, times) in enumerate(_segments(list(layers)), 1):
        name = word if number == 1 else f"{word}_{number}"
        if times == 1:
            nodes.append({"name": name, **(pattern[0] if isinstance(pattern[0], dict) else {"kind": pattern[0]})})
            places.append(name)
            continue
        items, inner = _pattern(pattern)
        nodes.append({"name": name, "kind": "repeat", "times": times, "body": items[0] if len(items) == 1 else items})
        for turn in range(times):
            places += [f"{name}.{turn}{path}" for path in inner]
    stacks["layer"] += places
    return nodes


def _pattern(pattern: list[Any]) -> tuple[list[Any], list[str]]:
    """One round of several layers, and their paths in it."""
    if len(pattern) == 1:
        return pattern, [""]
    runs: list[tuple[Any, int]] = []
    for layer in pattern:
        if runs and runs[-1][0] == layer:
            runs[-1] = (layer, runs[-1][1] + 1)
        else:
            runs.append((layer, 1))
    items: list[Any] = []
    paths: list[str] = []
    taken: set[str] = set()
    for layer, count in runs:
        name = base = layer["kind"] if isinstance(layer, dict) else layer
        number = 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        if count > 1:
            items.append({"name": name, "kind": "repeat", "times": count, "body": layer})
            paths += [f".{name}.{turn}" for turn in range(count)]
        else:
            items.append({"name": name, **(layer if isinstance(layer, dict) else {"kind": layer})})
            paths.append(f".{name}")
    return items, paths


def _segments(layers: list[Any]) -> Iterator[tuple[list[Any], int]]:
    """Layers as patterns and how often each is repeated; a single layer is a pattern once."""
    start = 0
    while start < len(layers):
        best, times = 1, 1
        for period in range(1, (len(layers) - start) // 2 + 1):
            pattern, count = layers[start : start + period], 1
            while layers[start + count * period : start + (count + 1) * period] == pattern:
                count += 1
            if count > 1 and count * period > best * times:
                best, times = period, count
        yield layers[start : start + best], times
        start += best * times
