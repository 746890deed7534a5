"""Long dialogues piece by piece.

Cuts a dialogue into windows, has each answered by itself (or those alone that share most words with
the query), and merges the answers.

A piece has its own numbering of utterances and of images, from 0. The merged answer is the union of
the pieces' answers in the numbering of the whole dialogue.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ffr.answer import format_answer, is_well_formed, read_answer
from ffr.dialogue import Dialogue, Example, FilePrompt, Fragment
from ffr.errors import DataError, UsageError
from ffr.prompt import IMAGE_MARK, IMG_ID_END, IMG_ID_START, QUERY_START, UTT_ID_END, UTT_ID_START
from ffr.retrieval.interface import Answer, ParallelRetriever, Retriever, add_usage, answers_of
from ffr.retrieval.lexical import bm25_scores

_MAX_ID = 999_999_999
"""The largest id that an answer can name."""


def window_ranges(num_utterances: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """Begin and end (exclusive) of the pieces of a dialogue, in utterances.

    Each piece but the last has `window` utterances, and the last `overlap` of one are the first of
    the next. The last piece ends with the dialogue and may be shorter; it always has something that
    the one before it has not.

    Args:
        num_utterances: Length of the dialogue.
        window: Utterances of a piece; 0 for no cutting.
        overlap: Utterances that neighbouring pieces share; less than `window`.

    >>> window_ranges(250, 100, 10), window_ranges(100, 100, 10), window_ranges(250, 0, 0)
    ([(0, 100), (90, 190), (180, 250)], [(0, 100)], [(0, 250)])
    """
    if window == 0 or num_utterances <= window:
        return [(0, num_utterances)]
    starts = range(0, num_utterances - overlap, window - overlap)
    return [(start, min(start + window, num_utterances)) for start in starts]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a dialogue that is asked by itself.

    Args:
        example: The part, with its own numbering, and the query.
        utterances: Begin and end (exclusive) in the utterances of the whole.
        images: Begin and end in the images of the whole.
    """

    example: Example
    utterances: tuple[int, int]
    images: tuple[int, int]

    def place(self, fragment: Fragment, num_utterances: int, num_images: int) -> Fragment:
        """The piece's answer in the numbering of the whole dialogue.

        An id that the piece does not have must not become one that the whole has: it goes behind
        the end of the dialogue, where it counts against the answer as any invented id does.

        Args:
            fragment: What the piece's answer names.
            num_utterances: Utterances of the whole dialogue.
            num_images: Images of the whole dialogue.
        """
        return Fragment(
            _placed(fragment.utterance_ids, self.utterances, num_utterances),
            _placed(fragment.image_ids, self.images, num_images),
        )


def _placed(ids: tuple[int, ...], span: tuple[int, int], size: int) -> tuple[int, ...]:
    start, end = span
    length = end - start
    return tuple(
        start + item if item < length else min(size + start + item - length, _MAX_ID)
        for item in ids
    )


def cut(example: Example, window: int, overlap: int) -> list[Piece]:
    """The pieces of an example; the example itself where it is short enough.

    A file's own prompt keeps its words: only the lines of the piece stay in it, with new numbers.

    Raises:
        DataError: where the file's own prompt does not show one line for each utterance.

    >>> from ffr.dialogue import Image, Utterance
    >>> chat = Dialogue("d", (Utterance("a", (Image("0.png"),)), Utterance("b", ("hm",)), Utterance("a", (Image("1.png"),))))
    >>> [(piece.utterances, piece.images) for piece in cut(Example(chat, "q"), 2, 1)]
    [((0, 2), (0, 1)), ((1, 3), (1, 2))]
    """
    dialogue = example.dialogue
    ranges = window_ranges(len(dialogue.utterances), window, overlap)
    if len(ranges) == 1:
        return [Piece(example, ranges[0], (0, len(dialogue.images)))]
    pieces = []
    for start, end in ranges:
        first_image = sum(host < start for host in dialogue.image_utterance_ids)
        end_image = sum(host < end for host in dialogue.image_utterance_ids)
        part = Dialogue(
            f"{dialogue.id}, utterances {start}-{end - 1}", dialogue.utterances[start:end]
        )
        prompt = example.prompt and _cut_prompt(example.prompt, dialogue, start, end, first_image)
        pieces.append(
            Piece(
                replace(example, dialogue=part, prompt=prompt, fragment=None),
                (start, end),
                (first_image, end_image),
            )
        )
    return pieces


_IMAGE_ID = re.compile(
    re.escape(IMG_ID_START) + r"([0-9]{1,9})" + re.escape(IMG_ID_END) + re.escape(IMAGE_MARK)
)


def asked_pieces(
    example: Example, window: int, overlap: int, num_best: int | None = None
) -> list[Piece]:
    """The pieces of an example that are asked: all that `cut` makes, or the `likeliest` of them.

    Raises:
        DataError: as `cut` raises it.
    """
    pieces = cut(example, window, overlap)
    return pieces if num_best is None else likeliest(pieces, num_best)


def likeliest(pieces: Sequence[Piece], num_best: int) -> list[Piece]:
    """The pieces with the highest BM25 for the query, in their order; the first of equal ones.

    Args:
        pieces: The pieces of an example, which are BM25's whole collection.
        num_best: How many at the most.

    >>> chat = Dialogue.of([("a", "the bus"), ("b", "tea"), ("a", "late bus"), ("b", "hm")])
    >>> [piece.utterances for piece in likeliest(cut(Example(chat, "late?"), 2, 0), 1)]
    [(2, 4)]
    """
    if len(pieces) <= num_best:
        return list(pieces)
    texts = ["\n".join(line.text for line in piece.example.dialogue.utterances) for piece in pieces]
    scores = bm25_scores(pieces[0].example.query, texts)
    best = sorted(range(len(pieces)), key=lambda number: -scores[number])[:num_best]
    return [pieces[number] for number in sorted(best)]


def _cut_prompt(
    prompt: FilePrompt, dialogue: Dialogue, start: int, end: int, first_image: int
) -> FilePrompt:
    head, *lines = prompt.user.split(UTT_ID_START)
    if len(lines) != len(dialogue.utterances):
        raise DataError(
            f"its prompt shows {len(lines)} of {len(dialogue.utterances)} utterances, so it cannot "
            "be cut; pass --template",
            where=f"dialogue {dialogue.id!r}",
        )
    tail = ""
    query = lines[-1].rfind(QUERY_START)
    if query >= 0:  # the query stands behind the dialogue, on a line of its own
        after = lines[-1].rfind("\n", 0, query) + 1
        lines[-1], tail = lines[-1][:after], lines[-1][after:]

    def renumbered(match: re.Match[str]) -> str:
        return f"{IMG_ID_START}{int(match[1]) - first_image}{IMG_ID_END}{IMAGE_MARK}"

    shown = "".join(
        f"{UTT_ID_START}{number}{UTT_ID_END}{_IMAGE_ID.sub(renumbered, line.partition(UTT_ID_END)[2])}"
        for number, line in enumerate(lines[start:end])
    )
    return replace(prompt, user=head + shown + tail)


def merge(example: Example, pieces: Sequence[Piece], answers: Sequence[Answer]) -> Answer:
    """The answers of an example's pieces as one.

    The response is the union in the answer format. Where an answer of a piece was not well-formed,
    a remark behind it says so, which makes the whole malformed too, while what could be read of the
    pieces is still read from it. What the pieces were answered stands in `extra["pieces"]`, and
    numbers under `usage` are added up. Where a piece cannot be answered, the whole cannot. The score is the mean of the
    pieces' scores.

    Pieces that were not asked name nothing; which were, `extra["pieces"]` says.

    >>> from ffr.dialogue import Utterance
    >>> chat = Example(Dialogue("d", tuple(Utterance("a", (str(number),)) for number in range(3))), "q")
    >>> said = [Answer(format_answer(Fragment(ids))) for ids in ((1,), (0, 1))]
    >>> merge(chat, cut(chat, 2, 1), said).response
    '<|utt_ids_start|>[1, 2]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>'
    """
    if len(pieces) == 1 and pieces[0].example is example:
        return answers[0]
    if failures := [answer.failure for answer in answers if answer.failure is not None]:
        return Answer("", failure="; ".join(failures))
    size = len(example.dialogue.utterances), len(example.dialogue.images)
    named = [
        piece.place(read_answer(answer.response), *size)
        for piece, answer in zip(pieces, answers, strict=True)
    ]
    response = format_answer(
        Fragment.of(
            (item for fragment in named for item in fragment.utterance_ids),
            (item for fragment in named for item in fragment.image_ids),
        )
    )
    faulty = [
        str(number) for number, answer in enumerate(answers) if not is_well_formed(answer.response)
    ]
    if faulty:
        response += f" (malformed: pieces {', '.join(faulty)} of 0-{len(pieces) - 1})"
    extra: dict[str, Any] = {
        "pieces": [
            _piece_record(piece, answer) for piece, answer in zip(pieces, answers, strict=True)
        ]
    }
    usages = [answer.extra["usage"] for answer in answers if "usage" in answer.extra]
    if usages:
        extra["usage"] = add_usage(usages)
    scores = [answer.score for answer in answers if answer.score is not None]
    return Answer(
        response,
        is_cut_off=any(answer.is_cut_off for answer in answers),
        extra=extra,
        score=math.fsum(scores) / len(answers) if len(scores) == len(answers) else None,
    )


def _piece_record(piece: Piece, answer: Answer) -> dict[str, Any]:
    record: dict[str, Any] = {
        "utterances": list(piece.utterances),
        "images": list(piece.images),
        "response": answer.response,
    }
    if answer.is_cut_off:
        record["is_cut_off"] = True
    if answer.logprobs is not None:
        record["logprobs"] = {"content": [{"logprob": value} for value in answer.logprobs]}
    return record | dict(answer.extra)


class WindowedRetriever:
    """A retriever that sees dialogues of more than some utterances in pieces; shorter ones as ever.

    Args:
        inner: What answers the pieces.
        window: Utterances of a piece.
        overlap: Utterances that neighbouring pieces share.
        num_best: Only so many pieces are asked, those that share most words with the query
            (`likeliest`); None for all.

    Raises:
        UsageError: where the overlap is not less than the window.
    """

    def __init__(
        self, inner: Retriever, *, window: int, overlap: int = 0, num_best: int | None = None
    ) -> None:
        if window < 1 or not 0 <= overlap < window:
            raise UsageError(
                f"a window of {window} utterances with an overlap of {overlap} cannot go forward; "
                "the overlap must be less"
            )
        self.inner = inner
        self._window = window
        self._overlap = overlap
        self._num_best = num_best

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def identity(self) -> dict[str, Any]:
        cut_so = {"window": self._window, "overlap": self._overlap}
        # answers that were given before there was a choice are those of all pieces
        chosen = {} if self._num_best is None else {"best_windows": self._num_best}
        return {**self.inner.identity, **cut_so, **chosen}

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        """First the cut dialogues, each with all its queries, then the others as the inner retriever would have them."""
        long: dict[str, list[int]] = {}
        short: list[int] = []
        for index, example in enumerate(examples):
            if len(example.dialogue.utterances) > self._window:
                long.setdefault(example.dialogue.fingerprint, []).append(index)
            else:
                short.append(index)
        for group in long.values():  # what a piece cannot hold must show before hours of work
            self.inner.plan(
                [piece.example for index in group for piece in self._cut(examples[index])]
            )
        batches = list(long.values())
        if isinstance(self.inner, ParallelRetriever):
            # batches say only what is written down together
            batches = [[index] for group in batches for index in group]
        return batches + [
            [short[number] for number in batch]
            for batch in self.inner.plan([examples[index] for index in short])
        ]

    def prompt(self, example: Example) -> FilePrompt:
        """The prompt of the whole dialogue: answers are in its numbering."""
        return self.inner.prompt(example)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        cuts = [self._cut(example) for example in examples]
        flat = [piece.example for pieces in cuts for piece in pieces]
        plan = self.inner.plan(flat)
        found = {
            index: answer
            for number, answers in answers_of(self.inner, plan, flat)
            for index, answer in zip(plan[number], answers, strict=True)
        }
        in_order = iter(found[index] for index in range(len(flat)))
        return [
            merge(example, pieces, list(itertools.islice(in_order, len(pieces))))
            for example, pieces in zip(examples, cuts, strict=True)
        ]

    def answer_as_they_come(
        self, batches: Iterable[Sequence[Example]]
    ) -> Iterator[tuple[int, list[Answer]]]:
        """As `ParallelRetriever`, the pieces being what is worked on at a time.

        One batch after another where the inner one is none.
        """
        if not isinstance(self.inner, ParallelRetriever):
            for number, batch in enumerate(batches):
                yield number, self.answer(batch)
            return
        under_way: dict[int, _BatchUnderWay] = {}
        places: list[
            tuple[int, int, int]
        ] = []  # of each piece that was handed in: batch, example, piece

        def pieces_of_all() -> Iterator[list[Example]]:
            for number, batch in enumerate(batches):
                under_way[number] = _BatchUnderWay(batch, [self._cut(example) for example in batch])
                for place, pieces in enumerate(under_way[number].cuts):
                    for index, piece in enumerate(pieces):
                        places.append((number, place, index))
                        yield [piece.example]

        for piece_number, answers in self.inner.answer_as_they_come(pieces_of_all()):
            number, *key = places[piece_number]
            found = under_way[number].found
            found[key[0], key[1]] = answers[0]
            if len(found) == sum(map(len, under_way[number].cuts)):
                yield number, under_way.pop(number).merged()

    def _cut(self, example: Example) -> list[Piece]:
        return asked_pieces(example, self._window, self._overlap, self._num_best)


@dataclass(frozen=True, slots=True)
class _BatchUnderWay:
    """A batch some of whose pieces are answered; `found` goes by example and piece."""

    examples: Sequence[Example]
    cuts: list[list[Piece]]
    found: dict[tuple[int, int], Answer] = field(default_factory=dict)

    def merged(self) -> list[Answer]:
        return [
            merge(example, pieces, [self.found[place, index] for index in range(len(pieces))])
            for place, (example, pieces) in enumerate(zip(self.examples, self.cuts, strict=True))
        ]
