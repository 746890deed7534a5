"""`results.json`: everything that an evaluation says, and where it comes from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ffr.errors import DataError
from ffr.files import replaced_file

RESULTS_FILE = "results.json"
SCHEMA = 1


@dataclass
class Results:
    """The result of one evaluation.

    Args:
        model: What answered: its name and all that decides its answers.
        data: The data: name, fingerprint, number of examples, how many records were left out.
        settings: Seed, limit, controls.
        summary: The figures, as `ffr.evaluation.scoring.ScoreTable.summary` gives them.
        baselines: The figures of each trivial baseline on the same data.
        notes: What a reader must know beside the figures, in sentences.
        provenance: Versions, command and times; the only part that two runs of the same command differ in.
        intervals: How sure the figures are, as `ffr.evaluation.bootstrap.interval_table` gives it; empty in files of ffr before it.
        schema: Version of this form.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    summary: dict[str, Any]
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def interval(self, table: str, figure: str, name: str | None = None) -> tuple[float, float] | None:
        """The interval of a figure; None where there is none.

        Args:
            table: `scores`, `strict_scores`, or a table of slices such as `by_length`.
            figure: The figure's name.
            name: The slice, in a table of slices.
        """
        found = self.intervals.get(table)
        for key in (figure,) if name is None else (name, figure):
            found = found.get(key) if isinstance(found, dict) else None
        return (found[0], found[1]) if found else None

    def to_json(self) -> str:
        """The content of the file."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2, allow_nan=False) + "\n"

    def save(self, folder: Path) -> Path:
        """Writes `results.json` into a folder, whole or not at all, and tells where.

        Raises:
            DataError: where the folder cannot be written to.
        """
        path = folder / RESULTS_FILE
        with replaced_file(path) as write:
            write(self.to_json().encode("utf-8", "backslashreplace"))
        return path

    @classmethod
    def load(cls, path: Path) -> Results:
        """Reads a file that `save` wrote.

        Raises:
            DataError: where it is missing or something else.
        """
        path = path / RESULTS_FILE if path.is_dir() else path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = cls(**content)
        except FileNotFoundError:
            raise DataError("not found; `ffr eval` writes it", where=str(path)) from None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise DataError(f"is not a results file of ffr ({error})", where=str(path)) from error
        parts = (found.model, found.data, found.settings, found.summary, found.intervals)
        if not all(isinstance(part, dict) for part in parts):
            raise DataError("is not a results file of ffr (a part of it is no object)", where=str(path))
        if found.schema != SCHEMA:
            raise DataError(
                f"has form {found.schema!r} but this ffr reads form {SCHEMA}; evaluate again", where=str(path)
            )
        return found
