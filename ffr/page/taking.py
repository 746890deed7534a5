"""A fragment to take along: as words, as the API has it, or both with its pictures in an archive."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Sequence

from ffr.corpus.store import Line
from ffr.errors import DataError
from ffr.page.content import ShownLine, shown_name
from ffr.page.pictures import full_picture

Names = dict[tuple[int, int], str]
"""What a picture is called in an archive, by its message and its number there."""


def fragment_text(title: str, lines: Sequence[ShownLine], names: Names | None = None) -> str:
    """The words of a fragment, for people to read.

    Args:
        title: Of its chat.
        lines: Its messages.
        names: What its pictures are called beside it.
    """
    said = [shown_name(title)]
    for line in lines:
        if line.starts_day:
            said += ["", line.day_words, ""]
        elif line.num_skipped:
            said.append("…")
        clock = f"[{line.clock}] " if line.clock else ""
        speaker = f"{line.speaker}: " if line.speaker else ""
        carried = [
            f"[{' '.join(filter(None, [item.kind, item.name]))}]"
            if (line.id, item.number) not in (names or {})
            else f"[{(names or {})[line.id, item.number]}]"
            for item in line.media
        ]
        if not (carried or line.text) and line.kind != "text":
            carried = [f"[{line.kind}]"]
        said.append(clock + speaker + " ".join([*carried, *filter(None, [line.text])]))
    return "\n".join(said) + "\n"


def fragment_json(title: str, lines: Sequence[ShownLine]) -> str:
    """A fragment as JSON: the title of its chat, and its messages as the API has them."""
    content = {
        "chat": shown_name(title),
        "lines": [dataclasses.asdict(line) for line in lines],
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def fragment_archive(title: str, lines: Sequence[Line], shown: Sequence[ShownLine]) -> bytes:
    """A fragment as a zip archive: `fragment.txt`, `fragment.json`, and its pictures as JPEG.

    A picture that cannot be opened is left out, and its words stand in the text in its place.

    Args:
        title: Of its chat.
        lines: Its messages, which know where their pictures lie.
        shown: The same as they are shown.
    """
    names: Names = {}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for line in lines:
            for number, path in enumerate(line.pictures):
                if path is None:
                    continue
                try:
                    data = full_picture(path)
                except DataError:
                    continue
                # a name out of a chat never becomes the name of a file
                name = f"pictures/{len(names) + 1:03}.jpg"
                names[line.id, number] = name
                archive.writestr(zipfile.ZipInfo(name), data)
        for name, text in (
            ("fragment.txt", fragment_text(title, shown, names)),
            ("fragment.json", fragment_json(title, shown)),
        ):
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text.encode("utf-8", "replace"))
    return buffer.getvalue()
