"""Measures what finds the evidence of memory benchmarks, and writes the table of docs/memory.md.

    python benchmarks/memory.py measure NAME --even EVEN --odd ODD [--apart EVEN] --out FILE MODEL…
    python benchmarks/memory.py table

`measure` adds models to a result file: names of `ffr eval --model`; `lines` and `lines+ENCODER` are
fitted on ODD with seeds 0, 1 and 2, `embedding:ENCODER` by each of its rules, single lines being
taken. A number that `ffr eval` takes stands behind a name: "reader --window 64 --best-windows 1".
"TITLE=NAME" is asked as NAME and stands as TITLE: a run, whose path says nothing to a reader.
`--apart` is asked of the same fitted networks and stands in rows of its own.
The figures are those of `categories.csv` of `ffr bench run memory`, without its predictions.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from page_table import with_table

import ffr
from ffr.data.dataset import data_fingerprint
from ffr.dialogue import Example
from ffr.embedding import Encoder
from ffr.evaluation.categories import CATEGORY, HEADER, Answered, answered_of, category_figures
from ffr.files import replace_json
from ffr.provenance import versions
from ffr.retrieval.embedding import (
    EMBEDDING_PREFIX,
    EmbeddingRetriever,
    FragmentScorer,
    fit_selection,
)
from ffr.retrieval.fitting import AskedData
from ffr.retrieval.interface import Retriever, answers_of
from ffr.retrieval.line_network import LineNetworks
from ffr.retrieval.lines import (
    ENCODED_LINES_PREFIX,
    LINES,
    NUM_CANDIDATES,
    LineFit,
    LineReading,
    LinesRetriever,
    fit_lines,
)
from ffr.retrieval.opening import choose_model, open_encoder_of, open_model
from ffr.retrieval.selection import Rule
from ffr.settings import AnswerConfig
from ffr.suites.suite import load_suite

RESULTS = Path(__file__).parent / "results" / "memory"
PAGE = Path(__file__).parents[1] / "docs" / "memory.md"
BEGIN, END = "<!-- table: benchmarks/memory.py -->", "<!-- end of table -->"
SEEDS = (0, 1, 2)
NEAR = 10
PARTS = (
    "one true line", "two", "three or more",
    f"several, all within {NEAR} lines", "several, further apart",
    "no picture in them", "a picture in one",
    "the first in the first third of the dialogue", "in the second third", "in the last third",
)  # fmt: skip
"""What the true answer of a question is like."""


def retrievers(
    name: str, odd: Sequence[Example], seeds: Sequence[int], cache: str | None
) -> Iterator[tuple[int, float, list[tuple[str, Retriever]]]]:
    """For each seed: it, the seconds of fitting, and retrievers by what tables call them."""
    title, _, asked_as = name.rpartition("=")
    spec, *flags = asked_as.split()
    given = {
        flag.removeprefix("--").replace("-", "_"): int(value)
        for flag, value in zip(flags[::2], flags[1::2], strict=True)
    }
    settings = AnswerConfig(encoder_cache=cache, **given)
    choice = choose_model(spec)
    if choice.kind == "embedding":
        encoder = open_encoder_of(name.removeprefix(EMBEDDING_PREFIX), settings)
        scorer = FragmentScorer(encoder, num_neighbours=0)
        for rule in get_args(Rule):
            started = time.process_time()
            selection = fit_selection(scorer, odd, rule, dataset="odd half")
            seconds = time.process_time() - started
            label = f"{name} --select {rule}"
            yield 0, seconds, [(label, EmbeddingRetriever(scorer, selection, name=label))]
    elif choice.kind in ("lines", "encoded-lines"):
        prefix = ENCODED_LINES_PREFIX
        own = open_encoder_of(name.removeprefix(prefix), settings) if prefix in name else None
        reading = RememberedReading(own, num_kept=64)
        for seed in seeds:
            started = time.process_time()
            networks, fit = fit_lines(
                odd, dataset="odd half", seed=seed, encoder=own, reading=reading
            )
            seconds = time.process_time() - started + reading.saved_seconds
            reading.saved_seconds = 0.0
            each: list[tuple[str, int | None]] = [(name, None)]
            if seed == seeds[0]:
                # all that come into question: their recall is what no choice among them exceeds
                each += [(f"{name}@{number}", number) for number in (10, NUM_CANDIDATES)]
            yield (
                seed,
                seconds,
                [(its, RememberedLines(networks, fit, its, num, reading)) for its, num in each],
            )
    else:
        opened = open_model(choice, settings, name=spec)
        asked = AskedData(odd, "odd half", None)  # of what needs no fitting it is of no matter
        own_retriever = opened.retriever(
            asked, settings, say=print, progress=lambda _: contextlib.nullcontext()
        )
        yield 0, 0.0, [(title or name, own_retriever)]


class RememberedReading(LineReading):
    """Reads each question once for all seeds; what it would have taken again is counted."""

    def __init__(self, encoder: Encoder | None, num_kept: int) -> None:
        super().__init__(encoder, num_kept)
        self.encoder = encoder
        self.saved_seconds = 0.0
        self._seen: dict[int, tuple[Any, float]] = {}

    def seen(self, example: Example) -> Any:
        if id(example) in self._seen:
            found, seconds = self._seen[id(example)]
            self.saved_seconds += seconds
            return found
        started = time.process_time()
        found = super().seen(example)
        self._seen[id(example)] = found, time.process_time() - started
        return found


class RememberedLines(LinesRetriever):
    """`lines`, asked through a reading that is remembered.

    Args:
        networks: Fitted.
        fit: On what.
        name: What tables call it.
        num_lines: Names so many lines; None for those of the highest expected F1.
        reading: The reading.
    """

    def __init__(
        self,
        networks: LineNetworks,
        fit: LineFit,
        name: str,
        num_lines: int | None,
        reading: RememberedReading,
    ) -> None:
        super().__init__(
            networks,
            fit,
            name=name,
            num_lines=num_lines,
            encoder=reading.encoder,
            reading=reading,
        )
        self.reading = reading

    def ranked(self, example: Example) -> list[int]:
        """The lines that come into question, the likeliest first."""
        lines, places, features = self.reading.seen(example)
        order = self._networks.probabilities(features).argsort(descending=True, stable=True)
        return [lines.utterance_ids[places[number]] for number in order.tolist()]


CHOICES = {
    "known": "were it known how many lines answer",
    "best": "the best number of each question",
    "all": "the true ones of all that come into question",
}
"""F1 that choices among the ranked lines would have, which nobody can make who knows no answer."""


def choices(ranked: Sequence[int], true: Collection[int]) -> dict[str, float]:
    """F1 of the choices of `CHOICES`.

    Args:
        ranked: Lines, the likeliest first, one at the least.
        true: The lines that answer.
    """
    hits = np.cumsum([line in true for line in ranked])
    numbers = np.arange(1, len(ranked) + 1)
    f1 = 2 * hits / (numbers + len(true))
    known = f1[min(len(true), len(ranked)) - 1]
    every = 2 * hits[-1] / (hits[-1] + len(true))
    return {"known": float(known), "best": float(f1.max()), "all": float(every)}


def of_choices(retriever: RememberedLines, examples: Sequence[Example]) -> dict[str, float]:
    """The mean of each of `CHOICES` over the questions with evidence."""
    found = []
    for example in examples:
        assert example.fragment is not None
        if example.fragment.utterance_ids:
            ranked = retriever.ranked(example)
            found.append(choices(ranked, example.fragment.utterance_ids))
    return {name: round(mean([each[name] for each in found]), 6) for name in CHOICES}


def measured(retriever: Retriever, examples: Sequence[Example]) -> dict[str, Any]:
    """Figures of one retriever by kind of question."""
    reading = retriever.reading if isinstance(retriever, RememberedLines) else None
    if reading is not None:
        reading.saved_seconds = 0.0
    started = time.process_time()
    responses = [""] * len(examples)
    plan = retriever.plan(examples)
    for number, answers in answers_of(retriever, plan, examples):
        for index, answer in zip(plan[number], answers, strict=True):
            responses[index] = answer.response
    seconds = time.process_time() - started + (reading.saved_seconds if reading else 0.0)
    rows: dict[str, list[Answered]] = {"with evidence": [], "nothing": []}
    parts: dict[str, list[Answered]] = {name: [] for name in PARTS}
    for example, response in zip(examples, responses, strict=True):
        found = answered_of(example, response)
        rows["nothing" if found.truth.is_empty else "with evidence"].append(found)
        rows.setdefault(str(example.meta[CATEGORY]), []).append(found)
        for name in parts_of(found, len(example.dialogue.utterances)):
            parts[name].append(found)
    return {
        "cpu_seconds_a_query": round(seconds / len(examples), 4),
        "categories": figures(rows),
        "parts": figures(parts),
    }


def figures(rows: dict[str, list[Answered]]) -> dict[str, Any]:
    """The figures of questions by their kinds, without those of which there is none."""
    return {
        kind: dict(zip(HEADER[1:-1], category_figures(some, 0), strict=True))
        for kind, some in rows.items()
        if some
    }


def parts_of(found: Answered, num_lines: int) -> list[str]:
    """Which of `PARTS` a question with evidence belongs to; none of one without.

    Args:
        found: The question.
        num_lines: Of its dialogue.
    """
    true = found.truth.utterance_ids
    if not true:
        return []
    parts = [PARTS[min(len(true), 3) - 1]]
    if len(true) > 1:
        parts.append(PARTS[3 + (true[-1] - true[0] > NEAR)])
    parts.append(PARTS[5 + bool(found.captioned & {*true})])
    return [*parts, PARTS[7 + min(3 * true[0] // num_lines, 2)]]


def measure(arguments: argparse.Namespace) -> None:
    even, odd = (list(ffr.load_dataset(path)) for path in (arguments.even, arguments.odd))
    apart = list(ffr.load_dataset(arguments.apart)) if arguments.apart else []
    content: dict[str, Any] = {"rows": []}
    if arguments.out.is_file():
        content = json.loads(arguments.out.read_text(encoding="utf-8"))
    content |= {
        "set": arguments.name,
        "data": {"even": data_fingerprint(even), "odd": data_fingerprint(odd)},
        "versions": versions(),
    }
    for name in arguments.models:
        for seed, fit_seconds, found in retrievers(name, odd, arguments.seeds, arguments.cache):
            for label, retriever in found:
                for part, examples in (("", even), ("adversarial", apart)):
                    if not examples or (part and "@" in label and label.startswith(LINES)):
                        continue
                    row = {"model": label, "seed": seed, "part": part}
                    content["rows"] = [
                        old for old in content["rows"] if not row.items() <= old.items()
                    ]
                    row |= {"fit_cpu_seconds": round(fit_seconds, 1)}
                    row |= measured(retriever, examples)
                    if isinstance(retriever, RememberedLines) and "@" not in label:
                        row["choices"] = of_choices(retriever, examples)
                    content["rows"].append(row)
                    replace_json(arguments.out, content)
                    print(label, seed, part, flush=True)


# -- the table -------------------------------------------------------------------------------------


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def line(content: dict[str, Any], model: str, part: str) -> str:
    """A model on a part: means over its seeds, the interval of the first seed, their spread."""
    rows = [row for row in content["rows"] if (row["model"], row["part"]) == (model, part)]
    rows.sort(key=lambda row: row["seed"])
    kinds = [row["categories"]["with evidence"] for row in rows]
    nothing = [row["categories"].get("nothing") for row in rows]
    f1 = [kind["utterance_f1"] for kind in kinds]
    spread = f"; seeds {percent(min(f1))} to {percent(max(f1))}" if len(rows) > 1 else ""
    interval = f"{percent(kinds[0]['low'])} to {percent(kinds[0]['high'])}"
    empty = [each["utterance_f1"] for each in nothing if each is not None]
    captions = [kind["caption_f1"] for kind in kinds if kind["caption_f1"] is not None]
    cells = [
        f"`{model}`",
        f"{mean([kind['num_lines'] for kind in kinds]):.1f}",
        f"{percent(mean(f1))} ({interval}{spread})",
        percent(mean([kind["utterance_recall"] for kind in kinds])),
        percent(mean(captions)) if captions else "",
        percent(mean(empty)) if empty else "",
        f"{mean([row['cpu_seconds_a_query'] for row in rows]):.3f}",
    ]
    return f"| {' | '.join(cells)} |"


ORDER = ("baseline:", "embedding:", "baseline:bm25+", "reader", LINES, ENCODED_LINES_PREFIX)
"""Beginnings of names, as tables have them below each other; the longest that fits counts."""


def place(model: str) -> tuple[int, str]:
    """Where a model stands in a table."""
    fitting = [number for number, start in enumerate(ORDER) if model.startswith(start)]
    return max(fitting, key=lambda number: len(ORDER[number])), model


def table_of(contents: Sequence[dict[str, Any]]) -> str:
    """All sets, each with its rows by kinds of models (`ORDER`); then by kind of question."""
    head = "| `--model` | lines | F1 of the lines | recall | F1 of captions | nothing | seconds |"
    text = []
    for content in contents:
        for part in ("", "adversarial"):
            models = [row["model"] for row in content["rows"] if row["part"] == part]
            models.sort(key=place)
            if not models:
                continue
            any_row = next(row for row in content["rows"] if row["part"] == part)
            kind = any_row["categories"]["with evidence"]
            questions = f"{kind['num_queries']} questions on {kind['num_dialogues']} dialogues"
            title = f"{content['set']}{', ' + part if part else ''}: {questions}"
            fingerprint = f" (even half {content['data']['even'][:16]})" if not part else ""
            text += ["", f"**{title}**{fingerprint}", "", head, "|---|---|---|---|---|---|---|"]
            text += [line(content, model, part) for model in dict.fromkeys(models)]
        text += by_kind(content, "categories", "kind of question")
        text += by_kind(content, "parts", "what the true lines are")
        text += by_choice(content)
    text += ["", not_measured(contents)]
    return "\n".join([BEGIN, *text, "", END])


def not_measured(contents: Sequence[dict[str, Any]]) -> str:
    """A sentence about what the suite `memory` names and a set has no row of."""
    wanted = []
    for row in load_suite("memory").rows:
        name = str(row.model.model)
        if name.startswith(EMBEDDING_PREFIX):
            name = f"{name} --select {row.model.settings.get('select', 'threshold')}"
        wanted.append(name)
    lacking = []
    for content in contents:
        has = {row["model"] for row in content["rows"]}
        names = [f"`{name}`" for name in wanted if name not in has]
        if names:
            lacking.append(f"on {content['set']} {', '.join(names)}")
    return f"Of the suite's models not measured: {'; '.join(lacking) or 'none'}."


def by_kind(content: dict[str, Any], key: str, what: str) -> list[str]:
    """F1 of the lines by kind of question: the best BM25, and what is fitted, means over seeds.

    Args:
        content: Of a result file.
        key: Under which a row has figures by kind; rows without are left out.
        what: The kinds are of, for the heading.
    """
    rows = [row for row in content["rows"] if not row["part"] and key in row]
    lexical = [row for row in rows if row["model"].startswith("baseline:bm25@")]
    models = sorted((row["model"] for row in rows), key=place)
    fitted = [name for name in dict.fromkeys(models) if name.startswith(LINES) and "@" not in name]
    if not fitted or not lexical:
        return []
    best = max(lexical, key=lambda row: row["categories"]["with evidence"]["utterance_f1"])
    named = [best["model"], *fitted]
    text = ["", f"By {what}, {content['set']}:", ""]
    text += [f"| {what} | questions | {' | '.join(f'`{name}`' for name in named)} |"]
    text += [f"|{'---|' * (2 + len(named))}"]
    for kind, its in best[key].items():
        if kind in ("with evidence", "nothing"):
            continue
        cells = []
        for name in named:
            values = [row[key][kind]["utterance_f1"] for row in rows if row["model"] == name]
            cells.append(percent(mean(values)))
        text.append(f"| {kind} | {its['num_queries']} | {' | '.join(cells)} |")
    return text


def by_choice(content: dict[str, Any]) -> list[str]:
    """What is lost in choosing and what in finding: `CHOICES` of what is fitted, means over seeds."""
    rows = [row for row in content["rows"] if not row["part"] and "choices" in row]
    models = sorted({row["model"] for row in rows}, key=place)
    if not models:
        return []
    text = ["", f"F1 of the lines by other choices among them, {content['set']}:", ""]
    text += [f"| choice | {' | '.join(f'`{name}`' for name in models)} |"]
    text += [f"|{'---|' * (1 + len(models))}"]
    of_model = {name: [row for row in rows if row["model"] == name] for name in models}
    as_chosen = [
        percent(mean([row["categories"]["with evidence"]["utterance_f1"] for row in its]))
        for its in of_model.values()
    ]
    text.append(f"| as it chooses | {' | '.join(as_chosen)} |")
    for name, words in CHOICES.items():
        cells = [percent(mean([row["choices"][name] for row in its])) for its in of_model.values()]
        text.append(f"| {words} | {' | '.join(cells)} |")
    return text


def read_results() -> list[dict[str, Any]]:
    paths = sorted(RESULTS.glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("table")
    asked = commands.add_parser("measure")
    asked.add_argument("name")
    asked.add_argument("--even", type=Path, required=True)
    asked.add_argument("--odd", type=Path, required=True)
    asked.add_argument("--apart", type=Path)
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--cache")
    asked.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    asked.add_argument("models", nargs="+")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        measure(arguments)
    else:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(with_table(page, table_of(read_results())), encoding="utf-8")


if __name__ == "__main__":
    main()
