"""Retrieval by embeddings, the baselines of the paper.

What lies close enough to the query is the answer.

The score of an utterance is the cosine of the query with the utterance joined with its neighbours,
that of a picture the cosine with the picture; an encoder of texts alone lets pictures follow the
utterance that they hang on. Which scores are close enough is a rule with one number for utterances
and one for pictures, fitted on data that is not evaluated.

Shapes: Q queries, U utterances and I images of a dialogue (of the longest one in tables), H width
of the encoder's space.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffr.answer import format_answer
from ffr.data.dataset import data_fingerprint
from ffr.data.home import data_home
from ffr.dialogue import Example, FilePrompt, Fragment
from ffr.embedding import Encoder
from ffr.embedding.prefixes import embed_lines, embed_queries
from ffr.errors import UsageError
from ffr.files import replace_json
from ffr.metrics.functional import sample_figures_from_counts
from ffr.metrics.functional.figures import F1
from ffr.progress import Progress
from ffr.prompt import prompt_of
from ffr.retrieval.interface import Answer
from ffr.retrieval.selection import (
    RELATIVE_RULES,
    FitRecord,
    Rule,
    Scores,
    Selection,
    chosen,
    image_rule,
    prominence,
)

_log = logging.getLogger(__name__)

EMBEDDING_PREFIX = "embedding:"

TEXT_NEIGHBOURS = 2
"""Lines on either side that an utterance is joined with where an encoder reads texts alone.

One that reads pictures too takes each line by itself.
"""

NUM_CANDIDATES = 400
"""Thresholds that are tried.

Quantiles of the scores, so that it matters not on what scale an encoder's cosines lie.
"""

NUM_GATES = 60
"""Bounds below which nothing is found that are tried for the rules that look at one dialogue alone."""

_BATCH = 32
_KEPT_DIALOGUES = 256


# -- scores ----------------------------------------------------------------------------------------


class FragmentScorer:
    """Scores the utterances and pictures of dialogues by an encoder.

    An utterance is taken together with `num_neighbours` lines on either side, as one text. Where
    there are no words in all of them (a picture alone), it has the score of the line before, or of
    the next one with words at the beginning; in a dialogue without words all have -1.

    Args:
        encoder: Makes the vectors.
        num_neighbours: None for `TEXT_NEIGHBOURS` where the encoder takes texts alone, else 0.
    """

    def __init__(self, encoder: Encoder, num_neighbours: int | None = None) -> None:
        self.encoder = encoder
        if num_neighbours is None:
            num_neighbours = 0 if encoder.takes_images else TEXT_NEIGHBOURS
        self.num_neighbours = num_neighbours
        self._kept: OrderedDict[tuple[Any, ...], tuple[Tensor, Tensor | None]] = OrderedDict()

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides scores, JSON-ready."""
        return {"fingerprint": self.encoder.fingerprint, "num_neighbours": self.num_neighbours}

    def scores(self, examples: Sequence[Example]) -> list[Scores]:
        """The scores of each example.

        Raises:
            FfrError: as the encoder raises it, such as for a picture that cannot be opened.
        """
        queries = embed_queries(self.encoder, [example.query for example in examples]).double()
        return [
            self._score(example, query) for example, query in zip(examples, queries, strict=True)
        ]

    def _score(self, example: Example, query: Tensor) -> Scores:
        texts, images = self._vectors(example)
        sources = self._sources(example)
        utterances = torch.full((len(sources),), -1.0, dtype=torch.float64)
        if sources and sources[0] is not None:
            utterances = (texts @ query)[torch.tensor(sources)]
        hosts = torch.tensor(example.dialogue.image_utterance_ids, dtype=torch.int64)
        return Scores(utterances, None if images is None else images @ query, hosts)

    def _windows(self, example: Example) -> list[str]:
        lines = [utterance.text.strip() for utterance in example.dialogue.utterances]
        span = self.num_neighbours
        return [
            " ".join(filter(None, lines[max(0, index - span) : index + span + 1]))
            for index in range(len(lines))
        ]

    def _sources(self, example: Example) -> list[int | None]:
        """For each utterance, the row of the text vectors that scores it.

        None throughout where no line has words.
        """
        sources: list[int | None] = []
        last: int | None = None
        for window in self._windows(example):
            if window:
                last = 0 if last is None else last + 1
            sources.append(last)
        return [0 if item is None and last is not None else item for item in sources]

    def _vectors(self, example: Example) -> tuple[Tensor, Tensor | None]:
        """Of a dialogue, the vectors of the windows that have words and those of its pictures, kept for its next query."""
        locations = [Path(location) for location in example.image_locations()]
        key = (example.dialogue.fingerprint, *map(str, locations))
        if key not in self._kept:
            # one call a dialogue, so that vectors do not depend on what else is asked
            texts = embed_lines(
                self.encoder, [window for window in self._windows(example) if window]
            ).double()
            images = None
            if self.encoder.takes_images:
                images = self.encoder.embed_images(locations).double() if locations else texts[:0]
            self._kept[key] = texts, images
            if len(self._kept) > _KEPT_DIALOGUES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


# -- fitting ---------------------------------------------------------------------------------------


class _Table:
    """Scores and truth of many queries as matrices, to try many numbers at once."""

    def __init__(self, scores: Sequence[Tensor], truths: Sequence[Sequence[int]]) -> None:
        width = max((len(row) for row in scores), default=0)
        self.scores = torch.full((len(scores), width), -math.inf, dtype=torch.float64)
        self.truth = torch.zeros((len(scores), width), dtype=torch.bool)
        self.num_outside = torch.zeros(len(scores), dtype=torch.int64)
        for number, (row, truth) in enumerate(zip(scores, truths, strict=True)):
            self.scores[number, : len(row)] = row
            inside = sorted({item for item in truth if item < len(row)})
            self.truth[number, inside] = True
            self.num_outside[number] = len(set(truth)) - len(inside)

    def mean_f1(self, prediction: Tensor) -> float:
        """Mean over the queries of the F1 of what is predicted, (Q, n) bool."""
        hits = (prediction & self.truth).sum(1)
        wrong, missed = prediction.sum(1) - hits, self.truth.sum(1) - hits + self.num_outside
        counts = torch.stack((hits, wrong, missed, torch.zeros_like(hits)), dim=-1)
        return float(sample_figures_from_counts(counts)[:, F1].mean())

    def candidates(self, rule: Rule) -> list[float]:
        """Numbers to try, ascending.

        Hundredths of a share, twentieths of a deviation, or thresholds between neighbouring scores,
        nothing and everything among them.
        """
        if not self.scores.numel():
            return [0.0 if rule == "top-share" else 1.01]  # of nothing, nothing
        if rule == "top-share":
            return [step / 100 for step in range(101)]
        if rule in RELATIVE_RULES:
            return [step / 20 for step in range(-20, 61)]
        found = torch.unique(self.scores[self.scores > -math.inf])
        between = (found[1:] + found[:-1]) / 2
        if len(between) > NUM_CANDIDATES:
            between = between[torch.linspace(0, len(between) - 1, NUM_CANDIDATES).round().long()]
        return [-1.01, *between.tolist(), 1.01]  # cosines lie within ±1


def fit_selection(
    scorer: FragmentScorer,
    examples: Sequence[Example],
    rule: Rule = "threshold",
    *,
    dataset: str,
    split: str | None = None,
    progress: Progress | None = None,
) -> Selection:
    """The numbers of a rule with the highest mean of utterance and image F1 over queries.

    The lowest of them where several are best.

    Where pictures have scores of their own the two numbers are found one by one, since each decides
    its own F1 alone.

    Args:
        scorer: Scores the examples.
        examples: Queries with their true answers; those without one are passed over.
        rule: threshold or top-share.
        dataset: What the user called the data.
        split: The part of a named set.
        progress: Is told how far the work is.

    Raises:
        UsageError: where no example has a true answer.
        FfrError: as the encoder raises it.
    """
    scores: list[Scores] = []
    truths: list[Fragment] = []
    for start in range(0, len(examples), _BATCH):
        batch = [examples[index] for index in range(start, min(start + _BATCH, len(examples)))]
        batch = [example for example in batch if example.fragment is not None]
        scores += scorer.scores(batch) if batch else []
        truths += [example.fragment for example in batch if example.fragment is not None]
        if progress is not None:
            progress(min(start + _BATCH, len(examples)), len(examples))
    if not truths:
        raise UsageError(
            f"{dataset}: no query has a true answer to fit on; name another --fit-dataset, or give "
            "--threshold"
        )
    table = _FitTable(scores, truths, has_images=scorer.encoder.takes_images)
    selection = table.best(rule)
    utterance_f1, image_f1 = table.f1_of(selection)
    record = FitRecord(
        dataset, split, data_fingerprint(examples), len(truths), utterance_f1, image_f1
    )
    return replace(selection, fit=record)


class _FitTable:
    """Scores of utterances and pictures with their truths, to find a rule's numbers."""

    def __init__(
        self, scores: Sequence[Scores], truths: Sequence[Fragment], *, has_images: bool
    ) -> None:
        self._has_images = has_images
        self._utterances = _Table(
            [row.utterances for row in scores], [truth.utterance_ids for truth in truths]
        )
        # where pictures follow their utterances the scores here are those of the utterances
        self._images = _Table(
            [row.utterances[row.hosts] if row.images is None else row.images for row in scores],
            [truth.image_ids for truth in truths],
        )
        self._hosts = torch.zeros(self._images.scores.shape, dtype=torch.int64)
        for place, row in enumerate(scores):
            self._hosts[place, : len(row.hosts)] = row.hosts
        self._prominences = prominence(self._utterances.scores)

    def best(self, rule: Rule) -> Selection:
        """The numbers of a rule with the highest F1; the lowest of them where several are best."""
        if self._has_images:
            # two numbers, one by one: each decides its own F1 alone
            of_images = _best(self._images, image_rule(rule))
            selection = Selection(rule, _best(self._utterances, rule), of_images)
        else:
            numbers = self._utterances.candidates(rule)
            selection = max(
                (Selection(rule, number, None) for number in numbers), key=self._objective
            )
        if rule not in RELATIVE_RULES:
            return selection
        # a rule that knows a dialogue's own scores alone would always find something
        found = torch.unique(self._prominences)
        gates = [0.0, *((found[1:] + found[:-1]) / 2).tolist()]
        steps = torch.linspace(0, len(gates) - 1, min(len(gates), NUM_GATES)).round().long()
        return max(
            (replace(selection, gate=gates[step]) for step in steps.tolist()), key=self._objective
        )

    def f1_of(self, selection: Selection) -> tuple[float, float]:
        """Mean F1 of the utterances and of the images that a rule chooses."""
        is_open = (self._prominences >= selection.gate)[:, None]
        utterances = chosen(selection.rule, selection.utterance, self._utterances.scores) & is_open
        if selection.image is None:
            is_real = self._images.scores > -math.inf
            images = utterances.gather(1, self._hosts) & is_real
        else:
            rule = image_rule(selection.rule)
            images = chosen(rule, selection.image, self._images.scores) & is_open
        return self._utterances.mean_f1(utterances), self._images.mean_f1(images)

    def _objective(self, selection: Selection) -> float:
        return sum(self.f1_of(selection))


def _best(table: _Table, rule: Rule) -> float:
    return max(
        table.candidates(rule), key=lambda number: table.mean_f1(chosen(rule, number, table.scores))
    )


def fitted_selection(
    scorer: FragmentScorer,
    examples: Sequence[Example],
    rule: Rule = "threshold",
    *,
    dataset: str,
    split: str | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Selection:
    """As `fit_selection`, fitted once: the numbers are kept in a folder by encoder, rule and data.

    Args:
        scorer: Scores the examples.
        examples: Queries with their true answers.
        rule: threshold or top-share.
        dataset: What the user called the data.
        split: The part of a named set.
        folder: Where the numbers are kept; None for the user's cache.
        progress: Is told how far the work is.

    Raises:
        FfrError: as `fit_selection`; DataError where the folder cannot be written.
    """
    identity = {
        **scorer.identity,
        "rule": rule,
        "data": data_fingerprint(examples),
        "num_candidates": NUM_CANDIDATES,
        "num_gates": NUM_GATES,
    }
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    path = (folder or data_home().parent / "embedding-fits") / f"{name[:32]}.json"
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["identity"] != identity:
                raise ValueError("it is of something else")
            kept = _read_selection(content["selection"], rule, scorer.encoder.takes_images)
            assert kept.fit is not None
            # the same data may have been called something else
            return Selection(
                rule,
                kept.utterance,
                kept.image,
                FitRecord(**{**asdict(kept.fit), "dataset": dataset, "split": split}),
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            _log.warning("%s: cannot be read (%s); it is fitted again", path, error)
    selection = fit_selection(
        scorer, examples, rule, dataset=dataset, split=split, progress=progress
    )
    replace_json(path, {"identity": identity, "selection": asdict(selection)})
    return selection


def _read_selection(content: Any, rule: Rule, has_images: bool) -> Selection:
    found = Selection(**{**content, "fit": FitRecord(**content["fit"])})
    numbers = [found.utterance, found.gate, *([found.image] if has_images else [])]
    fit = found.fit
    assert fit is not None
    numbers += [fit.num_queries, fit.utterance_f1, fit.image_f1]
    if found.rule != rule or (found.image is None) == has_images:
        raise ValueError("it is of another rule")
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ValueError("a number is none")
    return found


def check_fit_part(
    examples: Sequence[Example],
    fit_examples: Sequence[Example],
    *,
    takes_images: bool,
    or_else: str = ", or give --threshold",
) -> None:
    """Sees that no query on a dialogue is both fitted on and evaluated, and that there are pictures to fit on where some are evaluated.

    Args:
        examples: What is evaluated.
        fit_examples: What is fitted on.
        takes_images: Whether pictures have a number of their own.
        or_else: What might be done in place of fitting, behind a comma.

    Raises:
        UsageError: with what to do.
    """
    evaluated = {example.key for example in examples}
    num_common = sum(example.key in evaluated for example in fit_examples)
    if num_common:
        raise UsageError(
            f"{num_common} of the {len(fit_examples)} queries to fit on are evaluated too; name "
            f"another part with --fit-dataset or --fit-split{or_else}"
        )
    if takes_images and _has_pictures(examples) and not _has_pictures(fit_examples):
        raise UsageError(
            "what is evaluated has pictures and what is fitted on has none; name another part with "
            "--fit-dataset or --fit-split, or give "
            "--threshold and --image-threshold"
        )


def _has_pictures(examples: Sequence[Example]) -> bool:
    return any(example.dialogue.images for example in examples)


# -- retriever -------------------------------------------------------------------------------------


def likeness(scores: Scores, fragment: Fragment) -> float:
    """The score of an answer: how like the query its parts are, at the mean, from 0 to 1.

        s = (1/n) Σ_i (1 + cos_i) / 2 over its n utterances and images; 0 of nothing

    An image that follows its utterance has the utterance's cosine.

    >>> scores = Scores(torch.tensor([0.5, 0.1]).double(), None, torch.tensor([0]))
    >>> likeness(scores, Fragment((0,), (0,))), likeness(scores, Fragment())
    (0.75, 0.0)
    """
    images = scores.utterances[scores.hosts] if scores.images is None else scores.images
    chosen_scores = torch.cat(
        (scores.utterances[list(fragment.utterance_ids)], images[list(fragment.image_ids)])
    )
    if not len(chosen_scores):
        return 0.0
    return float(((1 + chosen_scores) / 2).clamp(0, 1).mean())


class EmbeddingRetriever:
    """Answers with what a rule chooses by an encoder's scores; an answer's score is `likeness`.

    Args:
        scorer: Scores utterances and pictures.
        selection: The rule.
        name: What tables call it.
    """

    def __init__(self, scorer: FragmentScorer, selection: Selection, *, name: str) -> None:
        self._scorer = scorer
        self._selection = selection
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def encoder(self) -> Encoder:
        """What makes the vectors."""
        return self._scorer.encoder

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "kind": "embedding",
            "name": self._name,
            "takes_images": self.encoder.takes_images,
            **self._scorer.identity,
            "selection": asdict(self._selection),
        }

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        numbers = range(len(examples))
        return [list(numbers[start : start + _BATCH]) for start in range(0, len(examples), _BATCH)]

    def prompt(self, example: Example) -> FilePrompt:
        return prompt_of(example)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        answers = []
        for scores in self._scorer.scores(examples):
            fragment = self._selection.choose(scores)
            answers.append(Answer(format_answer(fragment), score=likeness(scores, fragment)))
        return answers
