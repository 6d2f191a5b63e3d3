"""What became of draws and trials: how many were accepted, what refused the others, and why trials failed."""

from __future__ import annotations

from collections import Counter
from html import escape

from search.drawing import svg, text
from search.report.marks import Row

COLOURS = {"complete": "#1b6ca8", "stopped": "#7aa6c9", "running": "#c9c9c9", "failed": "#c8553d", "refused": "#ecd9b4"}
REASONS = 12


def drawing(report: Row) -> str:
    """A bar of all draws, and tables of the reasons."""
    counts = {name: count for name, count in report["trials"].items() if count}
    refused = max(0, report["draws"] - sum(report["trials"].values()))
    if refused:
        counts["refused"] = refused
    if not counts:
        return "<p>Nothing was drawn yet.</p>"
    return _bar(counts) + _survey(report["survey"]) + _refusals(report) + _failures(report)


def kept(survey: Row) -> str:
    """How many random members of the space keep the constraints."""
    drawn, refused = survey["drawn"], sum(survey["refused"].values())
    causes = "; ".join(f"{count:,} refused by: {cause}" for cause, count in survey["refused"].items())
    return f"{drawn - refused:,} of {drawn:,} random members keep the constraints" + (f"; {causes}" if causes else "")


def _bar(counts: dict[str, int]) -> str:
    total, at, drawn = sum(counts.values()), 0.0, []
    for name, count in counts.items():
        width = max(3.0, 920 * count / total)
        drawn.append(f'<rect x="{at:.1f}" y="0" width="{width - 1:.1f}" height="26" fill="{COLOURS.get(name, "#999")}">'
                     f"<title>{escape(name)}: {count:,}</title></rect>")  # fmt: skip
        at += width
    at = 0.0
    for name, count in counts.items():
        words = f"{count:,} {name}" + (" before a trial" if name == "refused" else "")
        drawn += [f'<rect x="{at:.0f}" y="38" width="12" height="12" fill="{COLOURS.get(name, "#999")}"/>',
                  text(at + 17, 49, words, size=13)]  # fmt: skip
        at += 40 + 7.2 * len(words)
    return svg(56, *drawn, label="outcomes")


def together(told: Row) -> str:
    """What was trained several at once."""
    return (f"{told['evaluations']:,} evaluations were trained together with others, {told['times_as_fast']:.2g} times "
            f"as fast as alone: {told['share']:.0%} of the time of training")  # fmt: skip


def _survey(survey: Row | None) -> str:
    if not survey:
        return ""
    drawn = survey["drawn"]
    rows = [(f"{count:,}", f"{count / drawn:.1%}", cause) for cause, count in survey["refused"].items()]
    return f"<p>{escape(kept(survey))}.</p>" + _table((f"of {drawn:,} random members", "share", "refused by"), rows)


def _refusals(report: Row) -> str:
    rows = [(f"{count:,}", f"{count / report['draws']:.1%}", cause) for cause, count in report["refused"].items()]
    return _table(("draws refused", "share", "because of"), rows)


def _failures(report: Row) -> str:
    failed = [row for row in report["all"] if row["state"] == "failed"]
    reasons: Counter[str] = Counter((row["reason"] or "unknown").splitlines()[0] for row in failed)
    which: dict[str, list[int]] = {}
    for row in failed:
        which.setdefault((row["reason"] or "unknown").splitlines()[0], []).append(row["trial"])
    rows = [(f"{count:,}", ", ".join(map(str, which[reason][:8])) + (" …" if count > 8 else ""), reason)
            for reason, count in reasons.most_common(REASONS)]  # fmt: skip
    return _table(("trials failed", "which", "reason"), rows)


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(words)}</th>" for words in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table class="reasons"><tr>{head}</tr>{body}</table></div>'
