"""A model measured from Python: `ffr.evaluate(model, data)` and what it hands out.

The same evaluation that `ffr eval` makes, with the same figures.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ffr.data.catalog import load_dataset
from ffr.data.dataset import ExampleDataset, FirstExamples
from ffr.dialogue import Example
from ffr.embedding import Encoder
from ffr.evaluation.controls import WrongPictures
from ffr.evaluation.results import Results
from ffr.evaluation.run import evaluate as evaluate_into
from ffr.files import temporary_folder
from ffr.metrics.functional.figures import FIGURES, MODALITIES
from ffr.notebook import table
from ffr.report.answered import AnsweredQuery, Evaluation
from ffr.report.tables import headline_figure, percent, print_report, report_lines
from ffr.retrieval.answer_log import PREDICTIONS_FILE
from ffr.retrieval.asking import Model, load_model
from ffr.retrieval.fitting import AskedData
from ffr.retrieval.lexical import BASELINES
from ffr.retrieval.opening import open_encoder_of
from ffr.settings import AnswerConfig
from ffr.terminal import PlainConsole
from ffr.text import counted, described

_TABLE_WIDTH = 120


class Measured:
    """The results of an evaluation. Made by `evaluate`; in a notebook it shows its table.

    Args:
        results: What `ffr eval` writes into `results.json`.
        records: One record a query, in the order of the data.
    """

    def __init__(self, results: Results, records: list[dict[str, Any]]) -> None:
        self.results = results
        self.records = records

    @property
    def scores(self) -> dict[str, float | None]:
        """The figures by name, such as `joint_f1` or `sample_utterance_f1`.

        None where nothing was scored; docs/metrics.md defines each.
        """
        return dict(self.results.summary["scores"])

    @property
    def per_query(self) -> Any:
        """One record a query: a pandas DataFrame where pandas is there, else a list of dicts."""
        try:
            import pandas
        except ImportError:
            return [dict(record) for record in self.records]
        return pandas.DataFrame(self.records)

    def table(self, *, with_slices: bool = False, width: int = _TABLE_WIDTH) -> str:
        """What `ffr eval` prints: figures of the model and the baselines, and notes.

        Args:
            with_slices: F1 by length of the dialogue, density, truth and language too.
            width: Columns of the text.
        """
        text = io.StringIO()
        console = PlainConsole(is_coloured=False, file=text, width=width)
        print_report(self.results, console, with_slices=with_slices)
        return text.getvalue()

    def __repr__(self) -> str:
        name = headline_figure(self.results)
        num = self.results.num_scored
        said = "nothing was scored"
        if num:
            value = percent(self.results.summary["scores"][name])
            said = f"{name} {value} % over {counted(num, 'query')}"
        return f"<{self.results.label}: {said}; .table() shows all>"

    def _repr_html_(self) -> str:
        rows = [(self.results.label, self.results.summary), *self.results.baselines.items()]
        heads = [f"{modality} {figure.short}" for modality in MODALITIES for figure in FIGURES]
        names = [f"{modality}_{figure.name}" for modality in MODALITIES for figure in FIGURES]
        return table(
            ["", *heads],
            [[label, *(percent(of["scores"][name]) for name in names)] for label, of in rows],
            caption="In percent",
            marked=[0],
            foot="\n".join([*report_lines(self.results), *self.results.notes]),
        )


def evaluate(
    model: Model | str | Path,
    data: Sequence[Example] | Sequence[Mapping[str, Any]] | str | Path,
    *,
    split: str = "val",
    limit: int | None = None,
    out: str | Path | None = None,
    encoder: Encoder | str | None = None,
    wrong_pictures: bool = False,
    baselines: Sequence[str] | str = tuple(BASELINES),
    seed: int = 0,
) -> Measured:
    """Asks a model every query of some data and scores the answers.

    Args:
        model: What `load_model` gives, or a name that it takes.
        data: What `load_dataset` gives, or takes; or examples.
        split: The part of a named set.
        limit: The first so many queries only.
        out: Folder for predictions.jsonl and results.json, where an evaluation that was stopped is
            taken up; None to keep nothing on the disk.
        encoder: Makes the vectors for order coherence and query–fragment similarity: an encoder or
            its name; None leaves them out.
        wrong_pictures: The control in which every picture is one of another dialogue.
        baselines: Trivial baselines that are computed beside it; an empty list for none.
        seed: Seed of whatever is drawn.

    Raises:
        UsageError: where there is no such model or data, or the folder holds another evaluation.
        DataError: where the data cannot be used, or not one query can be answered.
        ValueError: where something is no model or no data.

    >>> from ffr.dialogue import Dialogue, Fragment
    >>> chat = Dialogue.of([("Ann", "the bus is late"), ("Bob", "too bad")])
    >>> found = evaluate("baseline:overlap", [Example(chat, "bus", Fragment((0,)))])
    >>> found.scores["utterance_f1"], found.records[0]["utterance_ids"]
    (1.0, [0])
    """
    opened = _model_of(model)
    examples, label, num_left_out = _data_of(data, split, opened, limit)
    names = [baselines] if isinstance(baselines, str) else list(baselines)
    if unknown := [name for name in names if name not in BASELINES]:
        raise ValueError(f"no baseline {unknown[0]!r}; there are {', '.join(BASELINES)}")
    data_split = split if label is not None and not Path(label).is_file() else None
    retriever = opened.retriever(AskedData(examples, label or "the data", data_split))
    if isinstance(encoder, str):
        encoder = open_encoder_of(encoder, AnswerConfig())
    with ExitStack() as stack:
        folder = Path(out) if out is not None else stack.enter_context(temporary_folder())
        results = evaluate_into(
            examples,
            retriever,
            folder,
            dataset=label or "examples",
            split=data_split,
            num_left_out=num_left_out,
            seed=seed,
            shown=WrongPictures(examples, seed=seed) if wrong_pictures else None,
            baselines=names,
            encoder=encoder,
        )
        answers = Evaluation(
            results,
            folder / PREDICTIONS_FILE,
            examples=examples,
            image_root=folder,
            notes=[],
            run=None,
        )
        return Measured(results, [_record(answer) for answer in answers])


def _model_of(model: Any) -> Model:
    if isinstance(model, Model):
        return model
    if not isinstance(model, str | Path):
        raise ValueError(f"{described(model)} is no model; give a name, or what load_model gives")
    return load_model(model)


def _data_of(
    data: Any, split: str, model: Model, limit: int | None
) -> tuple[Sequence[Example], str | None, int]:
    """The examples, what the user called them, and how many records were left out."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"limit is {limit!r}; give a whole number from 1, or None for all")
    label = str(data) if isinstance(data, str | Path) else None
    num_left_out = 0
    if isinstance(data, Example):
        data = [data]
    is_examples = isinstance(data, ExampleDataset | FirstExamples) or (
        isinstance(data, Sequence) and bool(data) and isinstance(data[0], Example)
    )
    if not is_examples:
        data = load_dataset(data, split=split, require_images=model.takes_images, rules=model.rules)
    if isinstance(data, ExampleDataset):
        label, num_left_out = label or str(data.path), data.num_left_out
    for number, example in enumerate(data if isinstance(data, list | tuple) else ()):
        if not isinstance(example, Example):
            raise ValueError(f"example {number} is {described(example)}; give Examples only")
    return (data if limit is None else FirstExamples(data, limit)), label, num_left_out


def _record(answer: AnsweredQuery) -> dict[str, Any]:
    figures = answer.figures
    return {
        "index": answer.index,
        "dialogue_id": answer.dialogue_id,
        "query": answer.query,
        "utterance_ids": list(answer.prediction.utterance_ids),
        "image_ids": list(answer.prediction.image_ids),
        "true_utterance_ids": None if answer.truth is None else list(answer.truth.utterance_ids),
        "true_image_ids": None if answer.truth is None else list(answer.truth.image_ids),
        "utterance_f1": None if figures is None else figures[0][2],
        "image_f1": None if figures is None else figures[1][2],
        "joint_f1": answer.joint_f1,
        "is_well_formed": answer.is_well_formed,
        "problems": list(answer.problems),
        "failure": answer.failure,
        "response": answer.response,
    }
