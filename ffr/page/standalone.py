"""What a search found as one HTML file that needs nothing beside itself and runs nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ffr.corpus.found import Found, lines_around
from ffr.corpus.store import Line, Store
from ffr.errors import DataError
from ffr.page.assets import asset, template
from ffr.page.content import ShownFound, ShownLine, shown_found, shown_lines, shown_name
from ffr.page.pictures import small_picture

_SIDE = 1024
"""Pixels of the longer side of a picture in the file."""

_NUM_AROUND = 2
"""Messages that are shown before and behind what was found."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one query found, as the template takes it.

    Args:
        found: The hits.
        conversations: The lines of each hit, with those around them.
        marked: Pictures that are meant: line and number.
    """

    found: ShownFound
    conversations: list[tuple[ShownLine, ...]]
    marked: frozenset[tuple[int, int]]


def fragment_page(found: Found | Sequence[Found], store: Store, *, title: str) -> str:
    """The page of what was found: each hit in its conversation, with its pictures inside the file.

    It has no script, and its policy lets it fetch nothing. Of several queries it begins with a list
    of them that leads to the hits of each.

    Args:
        found: What was found: by a query, or by several.
        store: The store that was asked; a picture that cannot be opened is a placeholder.
        title: Of the page.
    """
    answers, lines = [], list[Line]()
    for one in [found] if isinstance(found, Found) else found:
        shown = shown_found(store, one)
        conversations = [lines_around(store, hit, _NUM_AROUND) for hit in one.hits]
        lines += [line for around in conversations for line in around]
        marked = {(picture.line, picture.number) for hit in shown.hits for picture in hit.pictures}
        answers.append(
            _Answer(
                shown, [shown_lines(store, around) for around in conversations], frozenset(marked)
            )
        )
    style = asset("static/page.css")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    return template("fragment.html").render(
        title=shown_name(title),
        policy=policy,
        style=style,
        answers=answers,
        sources=_sources(lines),
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _sources(lines: Iterable[Line]) -> dict[tuple[int, int], str]:
    """For each picture of the lines its address, with the picture itself in it."""
    sources: dict[tuple[int, int], str] = {}
    for line in lines:
        for number, path in enumerate(line.pictures):
            if path is None or (line.id, number) in sources:
                continue
            try:
                code = base64.b64encode(small_picture(path, _SIDE)).decode("ascii")
            except DataError:
                continue
            sources[line.id, number] = f"data:image/jpeg;base64,{code}"
    return sources
