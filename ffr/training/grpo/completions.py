"""Answers with their rewards as Parquet, a file a step that is written out, a row an answer.

The columns are those of TRL's completion logs (step, prompt, completion, each reward, advantage), so
that notebooks made for these read them, and what names the example.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ffr.files import remove, replaced_file

COMPLETIONS_FOLDER = "completions"


def write_completions(
    run: Path, step: int, samples: Sequence[Mapping[str, Any]], prompts: Sequence[str]
) -> Path:
    """Writes the answers of a step, whole or not at all.

    Args:
        run: The run's folder.
        step: The step.
        samples: For each prompt what `samples.jsonl` says.
        prompts: The prompts, in the same order.

    Raises:
        DataError: where the file cannot be written.

    >>> from ffr.files import temporary_folder
    >>> answer = {"text": "a", "reward": 1.3, "advantage": 0.5, "terms": {"f1": 1.0, "format": 1.0}}
    >>> sample = {"dialogue_id": "d", "query": "q", "truth": "t", "answers": [answer]}
    >>> with temporary_folder() as folder:
    ...     write_completions(folder, 20, [sample], ["p"]).name
    'completions_00020.parquet'
    """
    import pyarrow
    import pyarrow.parquet

    rows = completion_rows(step, samples, prompts)
    packed = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), packed)
    path = _path(run, step)
    with replaced_file(path) as write:
        write(packed.getvalue())
    return path


def completion_rows(
    step: int, samples: Sequence[Mapping[str, Any]], prompts: Sequence[str]
) -> list[dict[str, Any]]:
    """A row an answer, with the columns of TRL's completion logs; arguments as of `write_completions`."""
    return [
        {
            "step": step,
            "dialogue_id": sample["dialogue_id"],
            "query": sample["query"],
            "solution": sample["truth"],
            "prompt": prompt,
            "completion": answer["text"],
            "reward": answer["reward"],
            **{f"reward_{name}": value for name, value in answer["terms"].items()},
            "advantage": answer["advantage"],
        }
        for sample, prompt in zip(samples, prompts, strict=True)
        for answer in sample["answers"]
    ]


def drop_completions(run: Path, last_step: int) -> None:
    """Deletes the files of steps behind `last_step`, which a resumed run does again."""
    for path in (run / COMPLETIONS_FOLDER).glob("completions_*.parquet"):
        step = path.stem.partition("_")[2]
        if step.isdecimal() and int(step) > last_step:
            remove(path)


def _path(run: Path, step: int) -> Path:
    return run / COMPLETIONS_FOLDER / f"completions_{step:05d}.parquet"
