"""A page of HTML that needs nothing beside itself: no network, no other file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
body { font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; color: #222;
  background: #fff; max-width: 920px; margin: 32px auto; padding: 0 20px; }
h1 { font-size: 26px; margin: 0; font-weight: 600; }
h2 { font-size: 17px; margin: 34px 0 8px; font-weight: 600; break-after: avoid; }
p { margin: 4px 0 10px; color: #555; }
svg { width: 100%; height: auto; display: block; break-inside: avoid; }
dl { display: grid; grid-template-columns: repeat(4, 1fr); gap: 10px; margin: 20px 0 0; }
dl div { border: 1px solid #ddd; border-radius: 4px; padding: 8px 12px; }
dt { color: #666; font-size: 12px; }
dd { margin: 0; font-size: 19px; font-weight: 600; }
dd small { display: block; font-size: 12px; font-weight: 400; color: #666; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 8px; border-bottom: 1px solid #e4e4e4; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 600; color: #444; }
td small { display: block; color: #777; }
pre { font: 12px/1.45 ui-monospace, Menlo, Consolas, monospace; overflow-x: auto; background: #f7f7f7; padding: 12px; }
@media print { body { margin: 0; max-width: none; } details { display: none; } }
"""


def document(title: str, parts: Iterable[str], *, style: str = "", script: str = "") -> str:
    """A whole page.

    Args:
        parts: HTML, one below the other.
        style: CSS beside what all pages have.
        script: runs when the page is there.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n<body>\n"
        + "\n".join(parts)
        + (f"\n<script>{script}</script>" if script else "")
        + "\n</body></html>\n"
    )


def section(title: str, words: str, body: str) -> str:
    """A part of a page under a heading; the body is HTML."""
    return f"<section><h2>{escape(title)}</h2><p>{escape(words)}</p>{body}</section>"


def figures(tiles: Sequence[tuple[str, str, str]]) -> str:
    """Figures in tiles: what each is, its value, and what is to be said of it."""
    cells = (
        f"<div><dt>{escape(what)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for what, value, more in tiles
    )
    return f"<dl>{''.join(cells)}</dl>"
