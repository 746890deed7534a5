"""What a search found as one HTML file that needs nothing beside itself and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ffr.corpus.found import Found, Hit, lines_around
from ffr.corpus.store import Line, Store, span_of
from ffr.errors import DataError
from ffr.page.assets import asset, template
from ffr.page.content import ShownFound, ShownLine, shown_found, shown_lines, shown_name
from ffr.page.pictures import small_picture
from ffr.text import counted

_SIDE = 1024
"""Pixels of the longer side of a picture in the file."""

_FOLDED_SIDE = 320
"""Likewise, of one in what is folded."""

_NUM_AROUND = 2
"""Messages that are shown before and behind what was found."""

_MOST_FOLDED = 500
"""Further messages of the dialogue on either side that are in the file, folded."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Messages under each other, seen at once or folded.

    Args:
        lines: The messages.
        folded: What stands in their place where they are folded; "" where they are seen.
    """

    lines: tuple[Line, ...]
    folded: str = ""


@dataclass(frozen=True, slots=True)
class _ShownPart:
    """A `_Part` as the template takes it."""

    lines: tuple[ShownLine, ...]
    folded: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one query found, as the template takes it.

    Args:
        found: The hits.
        conversations: The lines of each hit, those around them, and the rest of its dialogue.
        marked: Pictures that are meant: line and number.
    """

    found: ShownFound
    conversations: list[list[_ShownPart]]
    marked: frozenset[tuple[int, int]]


def fragment_page(found: Found | Sequence[Found], store: Store, *, title: str) -> str:
    """The page of what was found: each hit in its conversation, with its pictures inside the file.

    The rest of its dialogue is folded, and unfolds at a click; of several hits in one dialogue at the
    first alone. The page has no script, and its policy lets it fetch nothing. Of several queries it
    begins with a list of them that leads to the hits of each.

    Args:
        found: What was found: by a query, or by several.
        store: The store that was asked; a picture that cannot be opened is a placeholder.
        title: Of the page.
    """
    answers, parts, seen = [], list[_Part](), set[tuple[int, int]]()
    for one in [found] if isinstance(found, Found) else found:
        shown = shown_found(store, one)
        conversations = []
        for hit in one.hits:
            dialogue = hit.chat.id, hit.lines[0].dialogue
            around = lines_around(store, hit, _NUM_AROUND)
            is_new = dialogue not in seen
            conversations.append(_whole(store, hit, around) if is_new else [_Part(tuple(around))])
            seen.add(dialogue)
            parts += conversations[-1]
        marked = {(picture.line, picture.number) for hit in shown.hits for picture in hit.pictures}
        answers.append(
            _Answer(
                shown,
                [[_shown(store, part) for part in each] for each in conversations],
                frozenset(marked),
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
        sources=_sources(parts),
    )


def _whole(store: Store, hit: Hit, around: Sequence[Line]) -> list[_Part]:
    """The whole dialogue of a hit: what is around it is seen, all else folded."""
    first, last = span_of(store, hit.chat.id, hit.lines[0].dialogue)
    start = max(first, around[0].place - _MOST_FOLDED)
    stop = min(last, around[-1].place + _MOST_FOLDED) + 1
    # what is around a hit may belong to the dialogue before or behind
    lines = store.lines(hit.chat.id, min(start, around[0].place), max(stop, around[-1].place + 1))
    seen = {line.id for line in around}
    parts = []
    for is_seen, group in itertools.groupby(lines, key=lambda line: line.id in seen):
        of_it = tuple(group)
        words = counted(len(of_it), "message")
        if of_it[-1].place < around[0].place:
            words += f" before{_left_out(start - first)}"
        elif of_it[0].place > around[-1].place:
            words += f" behind{_left_out(last + 1 - stop)}"
        else:
            words += " between"
        parts.append(_Part(of_it, "" if is_seen else words))
    return parts


def _left_out(number: int) -> str:
    return f", and {number:,} that this file does not hold" if number > 0 else ""


def _shown(store: Store, part: _Part) -> _ShownPart:
    return _ShownPart(shown_lines(store, part.lines), part.folded)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _sources(parts: Iterable[_Part]) -> dict[tuple[int, int], str]:
    """For each picture of the lines its address, with the picture itself in it."""
    sources: dict[tuple[int, int], str] = {}
    # a picture that is seen somewhere is as large as those
    for part in sorted(parts, key=lambda part: bool(part.folded)):
        for line in part.lines:
            for number, path in enumerate(line.pictures):
                if path is None or (line.id, number) in sources:
                    continue
                try:
                    picture = small_picture(path, _FOLDED_SIDE if part.folded else _SIDE)
                except DataError:
                    continue
                code = base64.b64encode(picture).decode("ascii")
                sources[line.id, number] = f"data:image/jpeg;base64,{code}"
    return sources
