"""Long dialogues made on the fly of pieces, with queries and the units that answer them.

Pieces are joined and interleaved, picture lines are put in with or without words, and queries of
other dialogues are asked that mean nothing in this one.

Shapes: N units of a dialogue, Q queries on it, P pieces, C concepts, D width of vectors.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from material import Piece
from torch import Tensor
from torch.nn import functional

from ffr.reader.units import Units

QUERY_WEIGHTS = {
    "goal": 4.0,
    "human": 4.0,
    "cross": 3.0,
    "concept": 3.0,
    "topic": 1.5,
    "keyword": 0.4,
    "slot": 0.4,
    "quote": 0.3,
}
"""How often a kind is asked. Keywords stand in the lines word for word, which people's questions
seldom do."""

_NUM_NEAREST = 30

SURE_FIT = 3.5
"""Deviations above other pieces from which a piece surely is about a concept."""


@dataclass(frozen=True, slots=True, eq=False)
class Concepts:
    """Words for what pieces may be about, in several wordings and both languages.

    Args:
        fit: (P, C) how much better a piece fits a concept than other pieces do, in deviations.
        queries: For each concept, the texts that ask for it.
    """

    fit: Tensor
    queries: list[list[str]]


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What pictures may show.

    Args:
        vectors: (K, D) of the words for one class each.
        nearest: (P, n) classes that fit a piece best.
    """

    vectors: Tensor
    nearest: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A long dialogue with its queries.

    Args:
        units: Its units.
        queries: (Q, D) float32.
        labels: (Q, N) bool; no unit where a query means nothing here.
        is_sure: (Q,) bool, whether it is beyond doubt if a query means anything here. A concept
            that fits a piece better than its neighbours may still not be what that is about.
    """

    units: Units
    queries: Tensor
    labels: Tensor
    is_sure: Tensor


class Maker:
    """Makes dialogues of pieces.

    Args:
        pieces: The pieces.
        vectors: By text, with its prefix.
        encoder: Names the vectors' encoder.
        concepts: Of these pieces.
        shown: Of these pieces.
        prefixes: Of lines and of queries.
        kinds: Weights of the kinds of queries.
        noise: How much of another query may be mixed into a query's vector.
    """

    def __init__(
        self,
        pieces: list[Piece],
        vectors: dict[str, Tensor],
        encoder: str,
        concepts: Concepts,
        shown: Shown,
        *,
        prefixes: tuple[str, str],
        kinds: dict[str, float] | None = None,
        noise: float = 0.3,
        own_share: float = 0.25,
    ) -> None:
        self.pieces = pieces
        self.vectors = vectors
        self.encoder = encoder
        self.concepts = concepts
        self.shown = shown
        self.line_prefix, self.query_prefix = prefixes
        self.kinds = QUERY_WEIGHTS if kinds is None else kinds
        self.noise = noise
        self.own_share = own_share
        self.by_language: dict[str, list[int]] = {"en": [], "zh": []}
        self.own: dict[str, list[int]] = {"en": [], "zh": []}
        for number, piece in enumerate(pieces):
            self.by_language[piece.language].append(number)
            if piece.source == "everyday":
                self.own[piece.language].append(number)
        self.concept_of = {
            text: concept for concept, some in enumerate(concepts.queries) for text in some
        }
        self.all_queries = [
            text for piece in pieces for some in piece.queries.values() for text in some
        ]

    def make(self, rng: random.Random) -> Made:
        """One dialogue of two to nine pieces, with a query or two on each."""
        language = "en" if rng.random() < 0.45 else "zh"
        chosen = self._choose(rng, language, rng.choice((2, 3, 3, 3, 4, 4, 5, 7, 9)))
        order = _in_pieces(rng, [len(self.pieces[number].lines) for number in chosen])
        rows = self._with_pictures(rng, chosen, order)
        units = self._units(rows)
        owner = torch.tensor([row[0] for row in rows])
        asked: list[tuple[str, str, Tensor, bool]] = []
        for place, number in enumerate(chosen):
            for _ in range(2):
                found = self._query_on(rng, chosen, place)
                if found is not None:
                    kind, text = found
                    same = [
                        other
                        for other, piece in enumerate(chosen)
                        if number == piece or self._is_asked(piece, text)
                    ]
                    is_sure = kind != "concept" or self._is_about(number, text)
                    asked.append((kind, text, torch.isin(owner, torch.tensor(same)), is_sure))
        for _ in range(sum(rng.random() < 0.4 for _ in range(len(chosen)))):
            text = self._absent(rng, chosen, language)
            if text is not None:
                asked.append(("absent", text, torch.zeros(len(owner), dtype=torch.bool), True))
        if not asked:
            return self.make(rng)
        queries = torch.stack([self._vector(rng, kind, text) for kind, text, *_ in asked])
        labels = torch.stack([labels for _, _, labels, _ in asked])
        return Made(units, queries, labels, torch.tensor([is_sure for *_, is_sure in asked]))

    # -- which pieces, in which order --------------------------------------------------------------

    def _choose(self, rng: random.Random, language: str, how_many: int) -> list[int]:
        """Pieces of different subjects, of one source or of any."""
        pool = self.by_language[language]
        if self.own[language] and rng.random() < self.own_share:
            pool = self.own[language]
        elif rng.random() < 0.3:
            source = self.pieces[rng.choice(pool)].source
            pool = [number for number in pool if self.pieces[number].source == source]
        chosen: list[int] = []
        subjects: set[str] = set()
        for _ in range(6 * how_many):
            number = rng.choice(pool)
            piece = self.pieces[number]
            if number in chosen or (piece.subject and piece.subject in subjects):
                continue
            chosen.append(number)
            subjects.add(piece.subject)
            if len(chosen) == how_many:
                break
        return chosen

    def _with_pictures(
        self, rng: random.Random, chosen: list[int], order: list[tuple[int, int]]
    ) -> list[tuple[int, int, str, Tensor | None]]:
        """Rows of place, speaker, text and, of a picture, the vector of its words or zeros."""
        rows: list[tuple[int, int, str, Tensor | None]] = []
        share = rng.choice((0.0, 0.05, 0.1, 0.1, 0.2))
        # of some chats no picture is described
        has_words = rng.random() < 0.75
        for place, line in order:
            speaker, text = self.pieces[chosen[place]].lines[line]
            rows.append((place, speaker, text, None))
            if rng.random() < share:
                sender = speaker if rng.random() < 0.85 else 1 - speaker % 2
                shown = self._picture(rng, chosen[place]) if has_words else self._no_words()
                rows.append((place, sender, "", shown))
        return rows

    def _picture(self, rng: random.Random, number: int) -> Tensor:
        """The words of a picture: a class that fits, nine times in ten, among others."""
        vectors = self.shown.vectors
        classes = [rng.randrange(len(vectors)) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
        nearest = self.shown.nearest[number]
        if rng.random() < 0.9 or not classes:
            classes.append(int(nearest[min(int(rng.expovariate(0.2)), len(nearest) - 1)]))
        return functional.normalize(vectors[classes].mean(0), dim=-1)

    def _no_words(self) -> Tensor:
        return torch.zeros(self.shown.vectors.shape[1])

    def _units(self, rows: list[tuple[int, int, str, Tensor | None]]) -> Units:
        vectors = torch.stack(
            [
                self.vectors[self.line_prefix + text].float() if shown is None else shown
                for *_, text, shown in rows
            ]
        )
        is_picture = torch.tensor([shown is not None for *_, shown in rows])
        # as long as "a photo of" with a class or two
        num_chars = torch.tensor(
            [len(text) if shown is None else 25 * bool(shown.any()) for *_, text, shown in rows]
        )
        numbers = torch.arange(len(rows))
        images = torch.where(is_picture, is_picture.cumsum(0) - 1, -1)
        speakers = torch.tensor([speaker for _, speaker, _, _ in rows])
        return Units(vectors, is_picture, speakers, num_chars, numbers, images, self.encoder)

    # -- what is asked -----------------------------------------------------------------------------

    def _query_on(
        self, rng: random.Random, chosen: list[int], place: int
    ) -> tuple[str, str] | None:
        """Kind and text of a query on the piece at this place."""
        number = chosen[place]
        queries = self.pieces[number].queries
        kinds = [kind for kind in queries if self.kinds.get(kind)]
        concept = self._concept(rng, chosen, place) if self.kinds.get("concept") else None
        if concept is not None:
            kinds.append("concept")
        if not kinds:
            return None
        (kind,) = rng.choices(kinds, [self.kinds[kind] for kind in kinds])
        if kind == "concept" and concept is not None:
            return kind, rng.choice(self.concepts.queries[concept])
        return kind, rng.choice(queries[kind])

    def _concept(self, rng: random.Random, chosen: list[int], place: int) -> int | None:
        """A concept that fits this piece well and no other of the dialogue nearly as well."""
        fit = self.concepts.fit[chosen]
        others = torch.cat([fit[:place], fit[place + 1 :]])
        lead = fit[place] - others.amax(0) if len(others) else fit[place]
        best = torch.where(lead > 1.0, fit[place], -9.0).topk(min(4, fit.shape[1]))
        good = [int(index) for value, index in zip(*best, strict=True) if value > 1.5]
        return rng.choice(good) if good else None

    def _absent(self, rng: random.Random, chosen: list[int], language: str) -> str | None:
        """A query that means nothing in any of the chosen pieces."""
        if self.kinds.get("concept") and rng.random() < 0.4:
            strangers = (self.concepts.fit[chosen].amax(0) < -0.2).nonzero()[:, 0].tolist()
            return rng.choice(self.concepts.queries[rng.choice(strangers)]) if strangers else None
        if rng.random() < 0.3:
            language = "zh" if language == "en" else "en"
        subjects = {self.pieces[number].subject for number in chosen} - {""}
        for _ in range(8):
            other = self.pieces[rng.choice(self.by_language[language])]
            kinds = [kind for kind in other.queries if self.kinds.get(kind)]
            if other.subject in subjects or not kinds:
                continue
            (kind,) = rng.choices(kinds, [self.kinds[kind] for kind in kinds])
            text = rng.choice(other.queries[kind])
            if not any(self._is_asked(number, text) for number in chosen):
                return text
        return None

    def _is_about(self, number: int, text: str) -> bool:
        """Whether a piece surely is about the concept that is asked for."""
        return bool(self.concepts.fit[number, self.concept_of[text]] >= SURE_FIT)

    def _is_asked(self, number: int, text: str) -> bool:
        return any(text in some for some in self.pieces[number].queries.values())

    def _vector(self, rng: random.Random, kind: str, text: str) -> Tensor:
        """(D,) the query's vector, with some of another's mixed in: people say it less plainly."""
        own = self.vectors[self.query_prefix + text].float()
        most = 2 * self.noise if kind in ("keyword", "quote", "slot") else self.noise
        share = rng.random() * most
        if share < 0.05:
            return own
        other = self.vectors[self.query_prefix + rng.choice(self.all_queries)].float()
        return functional.normalize((1 - share) * own + share * other, dim=-1)


def _in_pieces(rng: random.Random, lengths: list[int]) -> list[tuple[int, int]]:
    """Place and line of every line: pieces one after the other, some neighbours interleaved."""
    order: list[tuple[int, int]] = []
    place = 0
    while place < len(lengths):
        one = [(place, line) for line in range(lengths[place])]
        if place + 1 == len(lengths) or rng.random() > 0.3:
            order += one
            place += 1
            continue
        two = [(place + 1, line) for line in range(lengths[place + 1])]
        parts = rng.choice((1, 2, 3))
        if parts == 1:  # the second within the first
            half = rng.randrange(1, len(one))
            order += one[:half] + two + one[half:]
        else:
            for part in range(parts):
                for some in (one, two):
                    order += some[len(some) * part // parts : len(some) * (part + 1) // parts]
        place += 2
    return order


def fits(
    pieces: list[Piece],
    vectors: dict[str, Tensor],
    line_prefix: str,
    named: Tensor,
    *,
    wordings: list[int] | None = None,
) -> Tensor:
    """How much better a piece fits each name than other pieces do.

        fit = z over pieces of z over names of the cosine between mean line and name, both centred

    Args:
        pieces: P pieces.
        vectors: By text.
        line_prefix: Before each line.
        named: (n, D) vectors of names or their wordings.
        wordings: (n,) which of C names each is of; None: one each.

    Returns:
        (P, C) float32.
    """
    means = torch.stack(
        [
            torch.stack(
                [vectors[line_prefix + text].float() for _, text in piece.lines if text]
            ).mean(0)
            for piece in pieces
        ]
    )
    for language in ("en", "zh"):
        own = torch.tensor([piece.language == language for piece in pieces])
        if bool(own.any()):
            means[own] -= means[own].mean(0)
    centred = functional.normalize(named.float() - named.float().mean(0), dim=-1)
    cosines = functional.normalize(means, dim=-1) @ centred.T
    if wordings is not None:
        member = functional.one_hot(torch.tensor(wordings)).float()
        cosines = cosines @ (member / member.sum(0))
    for axis in (1, 0):
        deviation = cosines.std(axis, keepdim=True).clamp(min=1e-6)
        cosines = (cosines - cosines.mean(axis, keepdim=True)) / deviation
    return cosines


def nearest_shown(fit: Tensor) -> Tensor:
    """(P, n) the names that fit each piece best, best first."""
    return fit.topk(min(_NUM_NEAREST, fit.shape[1]), dim=1).indices
