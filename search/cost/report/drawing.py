"""Drawings of a breakdown as inline SVG: a roofline, bars of memory, a waterfall of latency."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import ceil, floor, log10, sqrt

from search.cost.devices import Device
from search.cost.parts import Pass
from search.cost.report.text import duration, large, short
from search.drawing import WIDTH, box, line, svg, text
from search.memory import shown

COLOURS = {"compute": "#1b6ca8", "memory": "#c8553d", "overhead": "#8a8a8a"}
SHADES = ("#27496d", "#4f86b0", "#93b7cf", "#d9a24b", "#ecd9b4", "#9a9a9a")


def legend() -> str:
    """What the colours of the roofline and of the waterfall say."""
    drawn = []
    for number, (verdict, colour) in enumerate(COLOURS.items()):
        drawn += [box(130 * number, 3, 12, 12, colour, verdict), text(130 * number + 17, 13, f"{verdict}-bound")]
    return svg(22, *drawn, label="colours")


def roofline(found: Pass, device: Device, dtype: str) -> str:
    """FLOP/s over FLOP/byte of the classes of operators that compute, under what the device can do at best."""
    points = [part for part in found.operators if part.flops and part.bytes and part.seconds]
    peak = device.peak_flops(dtype)
    xs = [part.intensity for part in points] + [peak / device.memory[-1].bandwidth]
    ys = [part.flops / part.seconds for part in points] + [peak]
    left, right = floor(log10(min(xs)) - 0.3), ceil(log10(max(xs)) + 0.3)
    high = ceil(log10(max(ys)) + 0.1)
    low = min(high - 3, floor(log10(min(ys)) - 0.3))
    x0, x1, y0, y1 = 80.0, WIDTH - 30.0, 380.0, 20.0

    def x(value: float) -> float:
        return x0 + (log10(value) - left) / (right - left) * (x1 - x0)

    def y(value: float) -> float:
        return y0 - (log10(value) - low) / (high - low) * (y0 - y1)

    drawn = []
    for power in range(left, right + 1):
        drawn += [line(x(10.0**power), y0, x(10.0**power), y1),
                  text(x(10.0**power), y0 + 18, f"{10.0**power:g}", anchor="middle", colour="#666")]  # fmt: skip
    for power in range(low, high + 1):
        drawn += [line(x0, y(10.0**power), x1, y(10.0**power)),
                  text(x0 - 8, y(10.0**power) + 4, short(10.0**power), anchor="end", colour="#666")]  # fmt: skip
    drawn += [text((x0 + x1) / 2, y0 + 38, "FLOP for each byte moved", anchor="middle"),
              f'<g transform="rotate(-90 18 200)">{text(18, 200, "FLOP/s", anchor="middle")}</g>']  # fmt: skip
    for number, level in enumerate(reversed(device.memory)):
        corner = peak / level.bandwidth
        start = max(10.0**left, 10.0**low / level.bandwidth)
        if start < corner:
            dash = 'stroke-width="1.6"' if not number else 'stroke-width="1" stroke-dasharray="4 3"'
            drawn.append(line(x(start), y(start * level.bandwidth), x(min(corner, 10.0**right)), y(peak),
                              colour="#222", more=dash))  # fmt: skip
            place = 10 ** (0.85 * log10(start) + 0.15 * log10(corner))
            words = f"{level.name} {large(level.bandwidth)}B/s"
            drawn.append(text(x(place) + 10, y(place * level.bandwidth) + 10, words, colour="#444"))
    start = max(10.0**left, peak / max(level.bandwidth for level in device.memory))
    drawn.append(line(x(start), y(peak), x1, y(peak), colour="#222", more='stroke-width="1.6"'))
    drawn.append(text(x1, y(peak) - 6, f"{dtype} {large(peak)}FLOP/s", anchor="end", colour="#444"))
    taken: list[tuple[float, float]] = []
    for part in sorted(points, key=lambda part: -part.flops / part.seconds):
        px, py = x(part.intensity), y(part.flops / part.seconds)
        radius = 3 + 14 * sqrt(part.share)
        title = f"{part.name}: {duration(part.seconds)}, {part.share:.1%}, {part.verdict}-bound"
        drawn.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{radius:.1f}" fill="{COLOURS[part.verdict]}" '
                     f'fill-opacity="0.75" stroke="#fff"><title>{escape(title)}</title></circle>')  # fmt: skip
        side = 1 if px < x1 - 220 else -1
        place = py + 4
        while any(abs(place - other) < 14 and abs(px - where) < 230 for where, other in taken):
            place += 14
        if place > py + 8:  # a label that had to move
            drawn.append(line(px, py, px + side * (radius + 3), place - 4, colour="#999"))
        taken.append((px, place))
        words = f"{part.name.removeprefix('aten.')} {part.share:.0%}"
        drawn.append(text(px + side * (radius + 4), place, words, anchor="start" if side > 0 else "end"))
    return svg(y0 + 48, *drawn, label="roofline")


def bars(rows: Sequence[tuple[str, Sequence[tuple[str, int]], int]], limit: float) -> str:
    """Memory: for each row its name, what it consists of, and its peak; the device's memory is a line."""
    names = list(dict.fromkeys(name for _, parts, _ in rows for name, _ in parts))
    shade = dict(zip(names, SHADES, strict=False))
    widest = max([sum(size for _, size in parts) for _, parts, _ in rows] + [peak for *_, peak in rows])
    inside = limit <= 3 * widest
    scale = (WIDTH - 250) / max(widest, limit if inside else 0)
    drawn, top = [], 14.0
    for name, parts, peak in rows:
        drawn.append(text(0, top + 18, name))
        at = 130.0
        for what, size in parts:
            drawn.append(box(at, top, scale * size, 28, shade[what], f"{what}: {shown(size)}"))
            if scale * size > 58:
                light = what in names[:2]
                drawn.append(text(at + 6, top + 18, shown(size), colour="#fff" if light else "#222"))
            at += scale * size
        mark = 130 + scale * peak
        drawn += [line(mark, top - 5, mark, top + 33, colour="#111", more='stroke-width="2"'),
                  text(max(at, mark) + 6, top + 18, f"peak {shown(peak)}")]  # fmt: skip
        top += 46
    if inside:
        place = 130 + scale * limit
        drawn += [line(place, 0, place, top, colour="#c8553d", more='stroke-dasharray="5 3"'),
                  text(place - 4, top + 8, f"the device's {shown(limit)}", anchor="end", colour="#c8553d")]  # fmt: skip
        top += 12
    at = 130.0
    for name in names:
        drawn += [box(at, top + 8, 12, 12, shade[name], name), text(at + 17, top + 18, name)]
        at += 40 + 7.0 * len(name)
    return svg(top + 28, *drawn, label="memory")


def waterfall(rows: Iterable[tuple[str, float, str]], constant: float) -> str:
    """Latency: each part's name, seconds and verdict, from where the one before it ends."""
    found = [*rows, *([("a pass", constant, "overhead")] if constant else [])]
    total = sum(seconds for _, seconds, _ in found) or 1.0
    height = 22 if len(found) <= 30 else 15
    left, scale = 190.0, (WIDTH - 290) / total
    drawn, at = [], 0.0
    size = 12 if height > 15 else 10
    for number, (name, seconds, verdict) in enumerate(found):
        top = 4 + number * height
        words = f"{duration(seconds)}  {seconds / total:.0%}"
        drawn += [
            text(left - 8, top + height - 7, name, anchor="end", size=size),
            box(left + scale * at, top, scale * seconds, height - 5, COLOURS[verdict], f"{name}: {words}"),
            text(
                left + scale * (at + seconds) + 5, top + height - 7, words, colour="#666", size=11 if height > 15 else 9
            ),
        ]
        at += seconds
    bottom = 4 + len(found) * height
    drawn += [line(left, 0, left, bottom, colour="#999"), text(left, bottom + 14, "0", anchor="middle", colour="#666"),
              text(left + scale * at, bottom + 14, duration(at), anchor="middle", colour="#666")]  # fmt: skip
    return svg(bottom + 22, *drawn, label="latency")
