"""How dialogues, data and results show themselves in a notebook: tables, all words escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ffr.text import cut, visible

MAX_CHARACTERS = 2000
"""Characters of one cell; what is longer is cut, with a sign."""


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str = "",
    marked: Iterable[int] = (),
    foot: str = "",
) -> str:
    """A table as HTML, whose words nobody has to trust.

    Args:
        head: Names of the columns; none for no head.
        rows: The cells' texts.
        caption: Stands above it.
        marked: Numbers of the rows that are set off.
        foot: Stands below it.

    >>> table(["a"], [["<b>"]])
    '<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>&lt;b&gt;</td></tr></tbody></table>'
    """
    chosen = set(marked)
    parts = ["<table>"]
    if caption:
        parts.append(f"<caption>{_words(caption)}</caption>")
    if head:
        cells = "".join(f"<th>{_words(name)}</th>" for name in head)
        parts.append(f"<thead><tr>{cells}</tr></thead>")
    parts.append("<tbody>")
    for number, row in enumerate(rows):
        # set off by more than a colour, for who sees none
        tag = "th" if number in chosen else "td"
        cells = "".join(f"<{tag}>{_words(cell)}</{tag}>" for cell in row)
        parts.append(f"<tr>{cells}</tr>")
    parts.append("</tbody>")
    if foot:
        parts.append(f"<tfoot><tr><td colspan={max(len(head), 1)}>{_words(foot)}</td></tr></tfoot>")
    parts.append("</table>")
    return "".join(parts)


def _words(text: str) -> str:
    return escape(cut(visible(text), MAX_CHARACTERS)).replace("\n", "<br>")
