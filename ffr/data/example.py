"""A small example of each form of data, to start one's own file from."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

from ffr.answer import format_answer
from ffr.data.forms.formats import write_examples
from ffr.data.forms.ms_swift import example_to_record
from ffr.data.forms.predictions import PredictionRecord, prediction_to_json
from ffr.data.keys import LINE_COLUMNS, QUERY_COLUMNS
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.files import make_folder, replaced_folder, write_records, write_text

PICTURE = "pictures/alfama.png"
_LINES = (
    Utterance("Ann", ("shall we fly to Lisbon in May?",)),
    Utterance("Bob", ("yes! I found a flat in Alfama",)),
    Utterance("Bob", (Image(PICTURE, "a row of houses by the river"),)),
    Utterance("Ann", ("lovely. by the way, did you feed the cat?",)),
    Utterance("Bob", ("an hour ago",)),
)
_ASKED = (
    ("planning the trip", Fragment((0, 1, 2), (0,))),
    ("the cat's dinner", Fragment((3, 4), ())),
    ("buying a car", Fragment()),
)


def example_examples() -> list[Example]:
    """Three queries on one dialogue with a picture; nothing matches the last."""
    dialogue = Dialogue("trip", _LINES)
    return [Example(dialogue, query, fragment) for query, fragment in _ASKED]


def write_example(form: str, folder: Path) -> list[str]:
    """Writes the example into a new folder, with its picture.

    Args:
        form: `raw`, `ms-swift`, `predictions` or `table`.
        folder: Where it goes; appears whole or not at all.

    Returns:
        Names of the files in it, the pictures left out.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_example("table", Path(folder, "new"))
    ['lines.csv', 'queries.csv']
    """
    with replaced_folder(folder) as scratch:
        _draw_picture(scratch / PICTURE)
        if form == "table":
            tables = {"lines.csv": _line_rows(), "queries.csv": _query_rows()}
            for name, rows in tables.items():
                write_text(scratch / name, _as_csv(rows))
            return list(tables)
        name = f"{form}.jsonl"
        if form == "raw":
            write_examples(scratch / name, example_examples(), format="raw")
        elif form == "ms-swift":
            write_examples(scratch / name, example_examples(), template="en")
        else:
            predictions = map(_prediction, example_examples())
            write_records(scratch / name, map(prediction_to_json, predictions))
    return [name]


def _prediction(example: Example) -> PredictionRecord:
    """An answer that finds the utterances and overlooks the pictures."""
    assert example.fragment is not None
    record = example_to_record(example, template="en")
    return PredictionRecord(
        dialogue_id=example.dialogue.id,
        response=format_answer(replace(example.fragment, image_ids=())),
        labels=record["solution"],
        messages=tuple(message for message in record["messages"] if message["role"] != "assistant"),
        images=tuple(record["images"]),
    )


def _line_rows() -> list[list[str]]:
    rows = [list(LINE_COLUMNS[:4])]
    for line in _LINES:
        pictures = [image.source for image in line.images]
        rows.append(["trip", line.speaker, line.text, *(pictures or [""])])
    return rows


def _query_rows() -> list[list[str]]:
    rows = [list(QUERY_COLUMNS)]
    for query, fragment in _ASKED:
        rows.append(["trip", query, str([*fragment.utterance_ids]), str([*fragment.image_ids])])
    return rows


def _as_csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _draw_picture(path: Path) -> None:
    """Draws a row of houses by a river."""
    from PIL import Image as Picture
    from PIL import ImageDraw

    canvas = Picture.new("RGB", (96, 64), (178, 212, 236))
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((0, 50, 96, 64), fill=(70, 120, 170))
    for left, wall in ((4, (236, 220, 180)), (34, (226, 150, 120)), (64, (240, 240, 232))):
        pen.rectangle((left, 26, left + 26, 50), fill=wall)
        pen.polygon(((left, 26), (left + 13, 14), (left + 26, 26)), fill=(176, 74, 58))
    make_folder(path.parent)
    canvas.save(path)
