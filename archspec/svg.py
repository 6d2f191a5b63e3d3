"""A spec drawn as SVG: boxes for nodes, their bodies inside them, edges from top to bottom."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from html import escape

import networkx as nx

from archspec.graph import Graph, Node
from archspec.layered import GAP_Y, Layout, Point, layout
from archspec.show import brief, groups, runs, says
from archspec.spec import Spec

LINE, PAD, WIDE = 15.0, 9.0, 44  # height of a text line, space inside a box, longest line in characters
SIZES = {"title": 12.0, "note": 10.5, "type": 10.0}
COLOURS = {  # fill by family of kinds
    "attention": "#dbe9f9", "latent_attention": "#dbe9f9", "channel": "#dff1de", "mixture": "#e9f6e4",
    "convolution": "#d9f0ef", "embedding": "#fbe7d0", "position": "#fdf0dc", "norm": "#fdf6cf", "head": "#f6dbe2",
    "tokens": "#e8e2f5", "interface": "#ffffff",
}  # fmt: skip
STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1c2430}"
    ".title{font-size:12px;font-weight:600}.kind{font-weight:400;fill:#5a6675}.note{font-size:10.5px;fill:#3a4656}"
    ".type{font-size:10px;fill:#7b8694}rect{stroke:#8d99a8;stroke-width:1}"
    ".edge{fill:none;stroke:#56616f;stroke-width:1.2}.skip{fill:none;stroke:#9aa5b2;stroke-width:1.2}"
)


@dataclass
class _Box:
    """A node: text lines, and the pictures of its bodies."""

    lines: list[tuple[str, str, str]]  # class, text, a paler text behind it
    fill: str
    inside: list[_Drawing] = field(default_factory=list)
    stacked: bool = False  # the bodies one below the other
    skip: bool = False  # an edge runs past the body
    width: float = 0.0
    height: float = 0.0

    def __post_init__(self) -> None:
        text = max(_length(a + b, kind) for kind, a, b in self.lines)
        widths, heights = [d.width for d in self.inside], [d.height for d in self.inside]
        self.head = LINE * len(self.lines) + PAD
        gaps = PAD * max(0, len(self.inside) - 1)
        inner = (
            (max(widths, default=0.0), sum(heights) + gaps)
            if self.stacked
            else (sum(widths) + gaps, max(heights, default=0.0))
        )
        self.width = max(text, inner[0] + (28 if self.skip else 0)) + 2 * PAD
        self.height = self.head + (inner[1] + PAD + (26 if self.skip else 0) if self.inside else PAD / 2)

    def draw(self, x: float, y: float) -> Iterable[str]:
        size = f'width="{self.width:.1f}" height="{self.height:.1f}"'
        yield f'<rect x="{x:.1f}" y="{y:.1f}" {size} rx="5" fill="{self.fill}"/>'
        for number, (kind, text, pale) in enumerate(self.lines, 1):
            behind = f'<tspan class="kind">{escape(pale)}</tspan>' if pale else ""
            place = f'x="{x + PAD:.1f}" y="{y + number * LINE + 1:.1f}"'
            yield f'<text class="{kind}" {place}>{escape(text)}{behind}</text>'
        if not self.inside:
            return
        top = y + self.head + (10 if self.skip else 0)
        spare = self.width - 2 * PAD
        if self.stacked:
            for drawing in self.inside:
                yield from drawing.draw(x + PAD + (spare - drawing.width) / 2, top)
                top += drawing.height + PAD
            return
        left = x + PAD + (spare - sum(d.width for d in self.inside) - PAD * (len(self.inside) - 1)) / 2
        if self.skip:
            yield from self._skip(x, y, left + self.inside[0].width / 2, top)
        for drawing in self.inside:
            yield from drawing.draw(left, top)
            left += drawing.width + PAD

    def _skip(self, x: float, y: float, centre: float, top: float) -> Iterable[str]:
        start, end, bottom = y + self.head - 1, y + self.height - 11, top + self.inside[0].height
        yield f'<path class="edge" d="M{centre:.1f} {start:.1f}V{top:.1f}M{centre:.1f} {bottom:.1f}V{end - 5:.1f}"/>'
        yield (f'<path class="skip" d="M{centre:.1f} {start + 2:.1f}H{x + 9:.1f}V{end:.1f}H{centre - 6:.1f}" '
               f'marker-end="url(#arrow)"/>')  # fmt: skip
        yield f'<circle class="edge" cx="{centre:.1f}" cy="{end:.1f}" r="5"/>'
        yield f'<path class="edge" d="M{centre - 5:.1f} {end:.1f}h10M{centre:.1f} {end - 5:.1f}v10"/>'


@dataclass
class _Drawing:
    """A graph: boxes at their places."""

    boxes: dict[Hashable, _Box]
    layout: Layout
    caption: str = ""

    @property
    def width(self) -> float:
        return max(self.layout.width, _length(self.caption, "note"))

    @property
    def height(self) -> float:
        return self.layout.height + (LINE if self.caption else 0.0)

    def draw(self, x: float, y: float) -> Iterable[str]:
        if self.caption:
            yield f'<text class="note" x="{x:.1f}" y="{y + 10:.1f}">{escape(self.caption)}</text>'
            y += LINE
        x += (self.width - self.layout.width) / 2
        for points in self.layout.edges.values():
            yield f'<path class="edge" d="{_curve([(x + a, y + b) for a, b in points])}" marker-end="url(#arrow)"/>'
        for name, box in self.boxes.items():
            left, top = self.layout.boxes[name]
            yield from box.draw(x + left, y + top)


def picture(spec: Spec) -> str:
    """The graph of a spec as an SVG document."""
    drawing = _drawing(spec.graph, outermost=True)
    width, height = drawing.width + 32, drawing.height + 58
    body = "\n".join(drawing.draw(16, 40))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">\n'
        f"<title>{escape(spec.name)}</title>\n<style>{STYLE}</style>\n"
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0.8L7.5 4L0 7.2z" fill="#56616f"/></marker></defs>\n'
        f'<rect width="100%" height="100%" fill="#ffffff" style="stroke:none"/>\n'
        f'<text class="title" x="16" y="24" style="font-size:14px">{escape(spec.name)}'
        f'<tspan class="kind">  {escape(spec.interface.name_)}</tspan></text>\n{body}\n</svg>\n'
    )


def _drawing(graph: Graph, caption: str = "", *, outermost: bool = False) -> _Drawing:
    """Inside a node the inputs are drawn only where there are several."""
    several = outermost or len(graph.inputs) > 1
    links = nx.DiGraph()
    boxes: dict[Hashable, _Box] = {}
    shown: dict[str, Hashable] = {}
    if several:
        for name, stream in graph.inputs.items():
            shown[name] = f"input {name}"
            boxes[shown[name]] = _end(name, str(stream) if outermost else "")
    for run in runs(graph):
        for node in run:
            shown[node.name] = run[0].name
        boxes[run[0].name] = _box(run[0], run[0].name, len(run))
    if outermost or len(graph.outputs) > 1:
        for name, ref in graph.outputs.items():
            boxes[f"output {name}"] = _end(name, str(graph.types[name]) if outermost else "")
            if ref.node in shown:
                links.add_edge(shown[ref.node], f"output {name}")
    links.add_nodes_from(boxes)
    for node in graph.nodes:
        for ref in (*node.inputs, *node.outer.values()):
            if ref.node in shown and shown[ref.node] != shown[node.name]:
                links.add_edge(shown[ref.node], shown[node.name])
    return _Drawing(boxes, layout(links, {name: (box.width, box.height) for name, box in boxes.items()}), caption)


def _end(name: str, text: str) -> _Box:
    return _Box([("title", name, ""), *([("type", text, "")] if text else [])], "#f2f4f7")


def _box(node: Node, label: str, times: int) -> _Box:
    kind = node.kind.name_
    bodies = list(groups(node))
    rounds = [alike for _, _, alike in bodies]
    alone = len(bodies) == 1
    count = times if times > 1 else rounds[0] if alone and rounds[0] > 1 else 1
    title = label if label == kind else f"{label}  "
    pale = ("" if label == kind else kind) + (f"  × {count}" if count > 1 else "")
    told = says(node).removeprefix(f"times {count}").removeprefix(", ")  # the title says so
    lines = [("title", title, pale), *(("note", line, "") for line in textwrap.wrap(told, WIDE))]
    inside = []
    for slot, body, alike in bodies:
        if (words := brief(body)) is not None:
            lines += [("note", line, "") for line in textwrap.wrap(f"{slot}: {words}", WIDE)]
        else:
            caption = "" if slot == "body" or (alone and alike > 1) else f"{slot}  × {alike}" if alike > 1 else slot
            inside.append(_drawing(body, caption))
    if not node.types or node.output != node.types[0]:
        lines += [("type", line, "") for line in textwrap.wrap(f"→ {node.output}", WIDE + 6)]
    return _Box(lines, COLOURS.get(node.kind.family, "#fafbfc"), inside, stacked=kind in ("repeat", "loop"),
                skip=kind == "residual" and len(inside) == 1)  # fmt: skip


def _length(text: str, kind: str) -> float:
    return len(text) * SIZES[kind] * (0.62 if kind == "title" else 0.56)


def _curve(points: list[Point]) -> str:
    """A path that leaves downwards and arrives downwards."""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        bend = min(GAP_Y, abs(y1 - y0)) / 2
        path += f"C{x0:.1f} {y0 + bend:.1f} {x1:.1f} {y1 - bend:.1f} {x1:.1f} {y1:.1f}"
    return path
