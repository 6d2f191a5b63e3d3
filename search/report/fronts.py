"""The front with every trial behind it, a drawing for each pair of objectives, and as a table."""

from __future__ import annotations

from html import escape
from itertools import combinations

from search.axes import Plane, path, stairs
from search.drawing import text
from search.progress import lasting
from search.report.marks import DOMINATED, FRONT, Row, better, complete, dot, figure, grid, key, scale, titled, values

PAIRS = 6  # drawings at most; of more objectives each stands beside the first
NUMBERED = 25  # members of a front that have room for their ranks
OPEN, LISTED = 12, 100  # members in the table: seen at once, and at most


def drawings(report: Row) -> str:
    """The planes between objectives; nothing where there is one objective or no trial."""
    objectives = report["objectives"]
    if len(objectives) < 2 or not complete(report):
        return ""
    pairs = list(combinations(objectives, 2))
    if len(pairs) > PAIRS:
        pairs = [(objectives[0], other) for other in objectives[1:]]
    planes = [_plane(report, x, y, whole=len(objectives) == 2) for y, x in pairs]
    return key((DOMINATED, "trial"), (FRONT, "Pareto front")) + grid(planes)


def _plane(report: Row, x: Row, y: Row, *, whole: bool) -> str:
    rows, best = complete(report), {row["trial"]: row["rank"] for row in report["front"]}
    plane = Plane(scale(rows, x), scale(rows, y), width=780 if whole else 450, height=400 if whole else 320)

    def at(row: Row) -> tuple[float, float]:
        return plane.x(row["values"][x["name"]]), plane.y(row["values"][y["name"]])

    radius = 4 if len(rows) < 300 else 2.5
    marks = [dot(*at(row), row["trial"], radius=radius) for row in rows if row["trial"] not in best]
    front = sorted(report["front"], key=lambda row: better(x) * row["values"][x["name"]])
    if whole:  # with three objectives, the front is no line in a plane
        end = plane.width - plane.right if x["direction"] == "minimize" else plane.left
        marks.append(path(stairs([at(row) for row in front], end), colour=FRONT))
    marks += [dot(*at(row), row["trial"], front=True, radius=radius + 1) for row in front]
    taken: list[tuple[float, float]] = []
    for row in front if len(front) <= NUMBERED else ():
        px, py = at(row)
        if all(abs(px - tx) > 14 or abs(py - ty) > 12 for tx, ty in taken):
            taken.append((px, py))
            marks.append(text(px + 7, py - 6, str(row["rank"]), colour=FRONT, size=11))
    return plane.drawn(titled(x), titled(y), marks, label=f"{y['name']} over {x['name']}")


def table(report: Row) -> str:
    """The members of the front, the best in the first objective first."""
    if not report["front"]:
        return ""
    beside = list(report["front"][0]["side_by_side"])
    heads = ["rank", "trial", *(o["name"] for o in report["objectives"]), *(f"{o}, side by side" for o in beside)]
    heads += ["trained for", "hash"]
    body = []
    for row in report["front"][:LISTED]:
        again = [row["side_by_side"].get(name) for name in beside]
        seconds = (row["seconds"] or {}).get("training")
        cells = [str(row["rank"]), f'<a class="mark" data-t="{row["trial"]}" href="#compare">{row["trial"]}</a>',
                 *(escape(figure(row["values"][o["name"]], o)) for o in report["objectives"]),
                 *(f"{taken['median_ms']:.4g} ms" if taken else "–" for taken in again),
                 "–" if seconds is None else lasting(seconds), f"<code>{escape(row['hash'][:8])}</code>"]  # fmt: skip
        body.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    more = len(report["front"]) - LISTED
    rest = f"<p>and {more} more in report.json</p>" if more > 0 else ""
    head = "".join(f"<th>{escape(words)}</th>" for words in heads)

    def rows(some: list[str]) -> str:
        return f'<div class="wide"><table><tr>{head}</tr>{"".join(some)}</table></div>'

    hidden = body[OPEN:]
    below = f"<details><summary>{len(hidden)} more</summary>{rows(hidden)}</details>" if hidden else ""
    return rows(body[:OPEN]) + below + rest


def finals(report: Row) -> str:
    """Those that were trained to the end: what they reached in the search, and what then."""
    body = []
    for one in report["final"]:
        pairs = [[escape(figure(one[when][o["name"]], o)) for when in ("searched", "values")]
                 for o in report["objectives"]]  # fmt: skip
        values = [f"{then} → <b>{now}</b>" for then, now in pairs]
        cells = [f'<a class="mark" data-t="{one["trial"]}" href="#compare">{one["trial"]}</a>', *values,
                 f"{one['steps']:,}", f"<code>{escape(one['folder'])}</code>"]  # fmt: skip
        body.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    names = [escape(o["name"]) for o in report["objectives"]]
    head = "".join(f"<th>{words}</th>" for words in ["trial", *names, "steps", "folder"])
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>' if body else ""


def best(report: Row) -> list[tuple[str, str, str]]:
    """The best value of each objective, for tiles."""
    rows = complete(report)
    found = []
    for objective in report["objectives"] if rows else ():
        of = values(rows, objective)
        best = (min if objective["direction"] == "minimize" else max)(of)
        words = f"trial {rows[of.index(best)]['trial']}; {figure(_median(of), objective)} in the middle"
        found.append((f"best {objective['name']}", figure(best, objective), words))
    return found


def _median(found: list[float]) -> float:
    return sorted(found)[len(found) // 2]
