"""The page of a report: one HTML file that needs nothing else, for screens, phones and paper."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

# Nothing is loaded and nothing runs, whatever a class or a file is called.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --panel: #fff; --ink: #1d2127; --soft: #5d6672;
  --line: #dfe2e6; --accent: #1f5fbf; --accent-rgb: 31 95 191; --wrong: #b3362b;
  --wrong-rgb: 200 62 48; --cell-ink: #fff }
@media screen and (prefers-color-scheme: dark) {
  :root { --ground: #14171b; --panel: #1c2026; --ink: #e7e9ec; --soft: #9ba5b1; --line: #323841;
    --accent: #7fb0ff; --accent-rgb: 127 176 255; --wrong: #ff8d80; --wrong-rgb: 255 120 104;
    --cell-ink: #10141a } }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 24px 16px 64px }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere }
h2 { font-size: 1.25rem; margin: 48px 0 4px; line-height: 1.3 }
h3 { font-size: 1rem; margin: 0; font-weight: 600; overflow-wrap: anywhere }
p { margin: 4px 0 16px; max-width: 72ch }
.soft, .na { color: var(--soft) }
nav { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 16px 0 0 }
a { color: var(--accent) }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 24px 0 0; padding: 0 }
.cards div { background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 16px }
dt { color: var(--soft); font-size: .875rem }
dd { margin: 0; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums }
.scroll { overflow-x: auto; background: var(--panel); border: 1px solid var(--line);
  border-radius: 8px }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: .9375rem }
th, td { padding: 6px 14px; text-align: right; white-space: nowrap;
  border-top: 1px solid var(--line) }
thead th { border-top: 0; font-weight: 600; color: var(--soft); vertical-align: bottom }
th:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 8em;
  max-width: 18em; position: sticky; left: 0; background: var(--panel) }
tbody th { font-weight: 400 }
tr.all th, tr.all td { font-weight: 600 }
.bar { display: inline-block; width: 72px; height: 8px; margin-right: 10px; border-radius: 4px;
  background: var(--line); overflow: hidden }
.bar i { display: block; height: 100%; background: var(--accent) }
.bar.wrong { width: 160px } .bar.wrong i { background: var(--wrong) }
.value { display: inline-block; min-width: 3.1em }
.wordy :is(th, td):nth-child(n+3) { text-align: left }
.wordy td:nth-child(n+4) { color: var(--soft); white-space: normal; min-width: 18em }
.grid { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 232px), 1fr)) }
figure { margin: 0; background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  overflow: hidden; break-inside: avoid }
figcaption { padding: 8px 12px 10px; font-size: .875rem; line-height: 1.4; overflow-wrap: anywhere }
.chart figcaption { display: flex; justify-content: space-between; gap: 12px; padding-bottom: 0 }
figure svg { display: block; width: 100%; height: auto }
svg text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--soft) }
.curve { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round }
.under { fill: rgb(var(--accent-rgb) / .14) }
.axis { stroke: var(--line); stroke-width: 1 }
.point { fill: var(--panel); stroke: var(--ink); stroke-width: 2 }
.matrix { display: block; margin: 0 auto }
.matrix text { fill: var(--ink) }
.matrix .strong { fill: var(--cell-ink) }
.matrix .axis-name { fill: var(--soft); font-weight: 600 }
.right { fill: rgb(var(--accent-rgb)) } .off { fill: rgb(var(--wrong-rgb)) }
.picture { background: #0c0d0f }
.picture rect { fill: none; stroke-width: 1.5 }
.picture .halo { stroke: #000; stroke-opacity: .5; stroke-width: 3.5 }
.picture :is(.mistake, .missed) rect { stroke-width: 3 }
.picture :is(.mistake, .missed) .halo { stroke-width: 6 }
.picture text { font-size: 13px; font-weight: 600; paint-order: stroke; stroke: #000;
  stroke-width: 3.5px; stroke-linejoin: round }
.truth rect:last-of-type { stroke: #5fe08a; stroke-dasharray: 7 4 } .truth text { fill: #8df0ad }
.detection rect:last-of-type { stroke: #6fb1ff } .detection text { fill: #a8d0ff }
.mistake rect:last-of-type { stroke: #ff5b52 } .mistake text { fill: #ff9d97 }
.missed rect:last-of-type { stroke: #ffb326; stroke-dasharray: 7 4 } .missed text { fill: #ffd076 }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 16px; padding: 0;
  list-style: none; font-size: .875rem }
.key li::before { content: ""; display: inline-block; width: 18px; height: 12px; margin-right: 8px;
  vertical-align: -1px; border: 2.5px solid }
.key .truth::before { border: 2.5px dashed #2fa95a } .key .detection::before { color: #3d8bea }
.key .mistake::before { color: #ee4339 } .key .missed::before { border: 2.5px dashed #e39a0c }
@media (max-width: 600px) {
  .bar.wrong { width: 72px } .wordy td:nth-child(n+4) { min-width: 13em } }
@media print {
  body { font-size: 11pt; background: #fff } main { max-width: none; padding: 0 }
  nav { display: none } .scroll { overflow: visible } tr { break-inside: avoid }
  table { font-size: 8.5pt } th, td { padding: 3px 6px; white-space: normal } .bar { width: 32px }
  .bar.wrong { width: 72px } .cards { grid-template-columns: repeat(5, 1fr) } dd { font-size: 15pt }
  .matrix { max-width: 100%; height: auto } .grid { grid-template-columns: repeat(3, 1fr) }
  th:first-child { position: static } h2 { break-after: avoid }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact } }
"""


def escape(text: object) -> str:
    """Make any text safe to stand in HTML, also between quotation marks.

    Half characters, which file names that are not UTF-8 have, become question marks, and control
    characters disappear.
    """
    text = str(text).encode("utf-8", "replace").decode("utf-8")
    return html.escape("".join(c if c.isprintable() else " " for c in text), quote=True)


def page(title: str, sections: Sequence[str]) -> str:
    """Put a page together.

    Arguments:
        title: The title as plain text.
        sections: The content as HTML.

    Returns:
        The page as HTML, to be written in UTF-8.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(anchor: str, heading: str, explanation: str, content: str) -> str:
    """Make a section.

    Arguments:
        anchor: The name that links to it use.
        heading: Plain text.
        explanation: Plain text; empty for none.
        content: HTML.

    Returns:
        HTML.
    """
    soft = f'<p class="soft">{escape(explanation)}</p>\n' if explanation else ""
    return (
        f'<section id="{escape(anchor)}">\n<h2>{escape(heading)}</h2>\n{soft}{content}\n</section>'
    )


def cards(facts: Sequence[tuple[str, str]]) -> str:
    """Make a row of cards from pairs of plain texts: what a number means, and the number."""
    rows = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return f'<dl class="cards">{"".join(rows)}</dl>'


def table(columns: Sequence[str], rows: Sequence[str], style: str = "") -> str:
    """Make a table that scrolls by itself where it is too wide.

    Arguments:
        columns: The column names as plain text.
        rows: The rows as HTML, see `table_row`.
        style: ``'wordy'`` if there is a bar in column 2 and text in column 3, from 0.

    Returns:
        HTML.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "\n".join(rows)
    return (
        f'<div class="scroll"><table class="{style}">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def table_row(name: str, cells: Sequence[str], of_all: bool = False) -> str:
    """Make a row of a table from its name as plain text and its other cells as HTML."""
    attribute = ' class="all"' if of_all else ""
    content = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr{attribute}><th scope="row">{escape(name)}</th>{content}</tr>'


def number(value: float) -> str:
    """Write a number between 0 and 1 with three decimals, as HTML; 'n/a' for NaN."""
    return '<span class="na">n/a</span>' if math.isnan(value) else f"{value:.3f}"


def bar(share: float, style: str = "") -> str:
    """Make a horizontal bar for a share of 1."""
    width = 100 * min(max(share, 0.0), 1.0)
    return f'<span class="{f"bar {style}".strip()}"><i style="width:{width:.1f}%"></i></span>'


def number_with_bar(value: float) -> str:
    """Write a number between 0 and 1 beside a bar of this length, as HTML; 'n/a' for NaN."""
    shown = f'<span class="value">{number(value)}</span>'
    return shown if math.isnan(value) else bar(value) + shown
