"""Finds single lines: a small network fitted on other questions, over words, places and speakers.

Beside an encoder it is told besides how alike question and lines are (`line_likeness`).

A question to a long memory is mostly answered by one line or two. What is seen of a line
(`ffr.retrieval.line_features`) becomes the chance that it answers, and the lines of the highest
expected F1 are named: none, where that is likeliest.

Shapes: N lines with words of a dialogue, M of them that come into question, F numbers a line.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffr.answer import format_answer
from ffr.data.dataset import data_fingerprint
from ffr.data.forms.raw import EXTRA_LINE_KEYS
from ffr.dialogue import Example, FilePrompt, Fragment
from ffr.embedding import Encoder
from ffr.embedding.interface import token_encoder_of
from ffr.embedding.prefixes import Prefixes, prefixes_of
from ffr.errors import DataError
from ffr.progress import Progress
from ffr.prompt import prompt_of
from ffr.retrieval.interface import Answer, by_dialogue
from ffr.retrieval.lexical import with_followers
from ffr.retrieval.line_features import Lines, line_features, lines_of, standing
from ffr.retrieval.line_likeness import Vectors, likeness_features
from ffr.retrieval.line_network import FitRow, LineNetworks, fit_networks
from ffr.retrieval.line_parts import LineParts, line_parts, part_features
from ffr.retrieval.line_times import day_of
from ffr.retrieval.line_tokens import LineTokens, line_tokens, token_features

LINES = "lines"
ENCODED_LINES_PREFIX = f"{LINES}+"

NUM_CANDIDATES = 64
"""Lines of a dialogue that come into question: those that share most with it."""

_KEPT_DIALOGUES = 16


@dataclass(frozen=True, slots=True)
class LineFit:
    """What the networks were fitted on.

    Args:
        dataset: What the user called the data.
        split: The part of a named set; None for a file.
        fingerprint: Names the data.
        num_queries: Queries with a true answer.
        seed: Of what is drawn.
    """

    dataset: str
    split: str | None
    fingerprint: str
    num_queries: int
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class _Counted:
    """A dialogue, counted and embedded once for all its questions.

    Args:
        lines: Its lines.
        parts: Theirs.
        vectors: (N, D) of them; None without an encoder.
        tokens: Theirs; None where the encoder does not give the states of tokens.
    """

    lines: Lines
    parts: LineParts
    vectors: Vectors | None
    tokens: LineTokens | None


class LineReading:
    """What is seen of dialogues, each counted (and embedded) once for all its questions.

    Args:
        encoder: Tells how alike question and lines are; None for words alone.
        num_kept: So many dialogues are kept for their next question.
    """

    def __init__(self, encoder: Encoder | None = None, num_kept: int = _KEPT_DIALOGUES) -> None:
        self._num_kept = num_kept
        self._encoder = encoder
        self._prefixes = Prefixes() if encoder is None else prefixes_of(encoder)
        self._tokens_of = token_encoder_of(encoder) if encoder is not None else None
        self._kept: OrderedDict[tuple[str, ...], _Counted] = OrderedDict()

    def seen(self, example: Example) -> tuple[Lines, NDArray[np.int64], NDArray[np.float32]]:
        """The lines of a question's dialogue, (M,) which come into question, (M, F) what is seen.

        Args:
            example: The question.
        """
        known = self._counted(example)
        lines, query = known.lines, example.query
        by_words, likely = line_features(lines, query)
        columns = [by_words, part_features(lines, known.parts, query)]
        if known.vectors is not None and len(lines):
            close, cosines = likeness_features(
                lines, known.vectors, self._embedded(self._prefixes.of_queries([query]))[0]
            )
            columns.append(close)
            likely = standing(likely) + standing(cosines)
        if known.tokens is not None and self._tokens_of is not None:
            (question,) = self._tokens_of.token_states([query])
            met, meeting = token_features(known.tokens, question, lines.sessions)
            columns.append(met)
            likely = likely + meeting
        places = np.sort((-likely).argsort(kind="stable")[:NUM_CANDIDATES])
        return lines, places, np.concatenate(columns, axis=-1)[places]

    def _embedded(self, texts: Sequence[str]) -> Vectors:
        assert self._encoder is not None
        return np.asarray(self._encoder.embed_texts(list(texts)).double().numpy())

    def _counted(self, example: Example) -> _Counted:
        sessions, times = _told(example, "session"), _told(example, "time")
        key = (example.dialogue.fingerprint, *map(str, sessions or ()), *map(str, times or ()))
        if key not in self._kept:
            known = {str(time): day_of(str(time)) for time in times or ()}
            days = None if times is None else [known[str(time)] for time in times]
            lines = lines_of(example.dialogue, sessions, days)
            texts = list(lines.texts)
            tokens = None
            if self._tokens_of is not None and texts:
                tokens = line_tokens(self._tokens_of.token_states(texts))
            self._kept[key] = _Counted(
                lines,
                line_parts(lines),
                self._embedded(self._prefixes.of_lines(texts)) if self._encoder else None,
                tokens,
            )
            if len(self._kept) > self._num_kept:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _told(example: Example, key: str) -> list[object] | None:
    """What the data says beside each line under a key; None where it does not say it of all."""
    about = example.meta.get(EXTRA_LINE_KEYS)
    if not isinstance(about, Sequence) or len(about) != len(example.dialogue.utterances):
        return None
    values = [line.get(key) if isinstance(line, dict) else None for line in about]
    return None if None in values else values


def fit_lines(
    examples: Sequence[Example],
    *,
    dataset: str,
    split: str | None = None,
    seed: int = 0,
    encoder: Encoder | None = None,
    reading: LineReading | None = None,
    progress: Progress | None = None,
) -> tuple[LineNetworks, LineFit]:
    """Fits the networks on questions with true answers, some of which may be empty.

    Args:
        examples: The questions; those without a true answer teach nothing.
        dataset: What the user called the data.
        split: The part of a named set.
        seed: Of what is drawn.
        encoder: Tells how alike question and lines are; None for words alone.
        reading: With that encoder, where its dialogues are asked again.
        progress: Is told how far the work is.

    Raises:
        DataError: where no question has a true answer that names a line.
    """
    known = [example for example in examples if example.fragment is not None]
    reading = reading or LineReading(encoder)
    rows: list[FitRow] = []
    for number, indices in enumerate(by_dialogue(known).values()):
        for example in (known[index] for index in indices):
            assert example.fragment is not None
            lines, places, features = reading.seen(example)
            is_true = np.isin(lines.utterance_ids, example.fragment.utterance_ids)
            if len(places):
                num_true = int(is_true.sum())
                rows.append(FitRow(features, is_true[places], num_true, number))
    if not any(row.labels.any() for row in rows):
        raise DataError(
            "has no question whose true answer names a line with a word of it nearby, of which "
            "nothing can be learned; name other data with --fit-dataset",
            where=dataset,
        )
    networks = fit_networks(rows, seed=seed, progress=progress)
    return networks, LineFit(dataset, split, data_fingerprint(examples), len(known), seed)


class LinesRetriever:
    """Answers with the lines of the highest expected F1; wordless lines follow the line before.

    An answer's score is that expected F1; of an empty answer, the chance that no line answers.

    Args:
        networks: Fitted.
        fit: What they were fitted on.
        name: What tables call it.
        num_lines: Names so many, the likeliest, in place of the best set.
        encoder: That which it was fitted with.
        reading: With that encoder, where its dialogues were read before.
    """

    def __init__(
        self,
        networks: LineNetworks,
        fit: LineFit,
        *,
        name: str,
        num_lines: int | None = None,
        encoder: Encoder | None = None,
        reading: LineReading | None = None,
    ) -> None:
        self._networks = networks
        self._reading = reading or LineReading(encoder)
        self._encoder = encoder
        self._fit = fit
        self._name = name
        self._num_lines = num_lines

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "kind": LINES,
            "name": self._name,
            "fingerprint": self._networks.digest,
            "num_candidates": NUM_CANDIDATES,
            "num_lines": self._num_lines,
            "encoder_fingerprint": self._encoder.fingerprint if self._encoder else None,
            "fit": asdict(self._fit),
        }

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        return list(by_dialogue(examples).values())

    def prompt(self, example: Example) -> FilePrompt:
        return prompt_of(example)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        return [self._answer(example) for example in examples]

    def _answer(self, example: Example) -> Answer:
        lines, places, features = self._reading.seen(example)
        if not len(places):
            return Answer(format_answer(Fragment()), score=1.0)
        probabilities = self._networks.probabilities(features)
        if self._num_lines is None:
            chosen, expected = self._networks.choose(probabilities)
        else:
            order = probabilities.argsort(descending=True, stable=True)
            chosen = order[: self._num_lines].tolist()
            expected = float(probabilities[chosen].mean())
        named = {lines.utterance_ids[places[number]] for number in chosen}
        with_words = iter(lines.utterance_ids)
        fragment = with_followers(example.dialogue, lambda _: next(with_words) in named)
        return Answer(format_answer(fragment), score=min(1.0, expected))
