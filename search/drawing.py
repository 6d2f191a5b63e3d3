"""Inline SVG: lines, bars, words, and the axes that points stand between."""

from __future__ import annotations

from html import escape

WIDTH = 920  # of a page's text


def svg(height: float, *parts: str, label: str, width: float = WIDTH) -> str:
    """A drawing, of the page's width if no other is given."""
    most = "" if width == WIDTH else f' style="max-width: {1.2 * width:.0f}px"'
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}"{most} role="img" aria-label="{escape(label)}" '
        f'font-family="inherit" font-size="12">{"".join(parts)}</svg>'
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = "#333", size: int = 12) -> str:
    """Words that begin, are centred or end at a place."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">'
        f"{escape(words)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, *, colour: str = "#ddd", more: str = "") -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {more}/>'


def box(x: float, y: float, width: float, height: float, colour: str, title: str) -> str:
    """A bar that tells its title when pointed at."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height}" fill="{colour}">'
        f"<title>{escape(title)}</title></rect>"
    )
