"""The stages of pre-training, in order: what their dialogues look like, and when each is passed.

A stage is passed when, over its last twenty steps, the share of queries answered exactly right exceeds `threshold`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AnswerStyle = Literal["ids", "list", "whole"]


@dataclass(frozen=True)
class Stage:
    """What the dialogues of a stage look like; shares are probabilities.

    Args:
        name: Short name, as it stands in the log.
        topics: Topics in use.
        words: Words of each topic and language in use.
        languages: Languages in use.
        answer: `ids` bare ids and a bracket, `list` a list, `whole` the task's answer with all markers of lines and queries.
        lines: Fewest and most lines where every line has a topic of its own.
        repeats: Whether topics have several lines instead.
        lines_per_topic: Fewest and most, where they do.
        topics_per_dialogue: Fewest and most, where they do.
        sentences: Lines that are sentences rather than words.
        query_sentences: Queries likewise.
        fillers: Chance of a line of no topic before a piece.
        follow_ups: Lines that belong to a topic without naming it.
        queries: Queries behind each dialogue.
        pictures: Dialogues with pictures.
        pictures_per_topic: Chances of none, one and two.
        words_for_pictures: Pictures that are replaced by words of their topic.
        only_pictures: Dialogues that are pictures alone.
        no_match: Queries that match nothing.
        other_language: Queries in the other language.
        said_words: Queries that name a word of the dialogue rather than any of the topic.
        real_ids: Ids count on from a number (0 in seven of ten), rather than being any ascending numbers.
        threshold: Share of exactly right answers that passes the stage.
        max_steps: A stage that is not passed by then has failed; for a last stage, its length.
    """

    name: str
    topics: int = 24
    words: int = 10
    languages: tuple[str, ...] = ("zh", "en")
    answer: AnswerStyle = "whole"
    lines: tuple[int, int] = (6, 6)
    repeats: bool = False
    lines_per_topic: tuple[int, int] = (1, 2)
    topics_per_dialogue: tuple[int, int] = (3, 3)
    sentences: float = 0.0
    query_sentences: float = 0.0
    fillers: float = 0.0
    follow_ups: float = 0.0
    queries: int = 6
    pictures: float = 0.0
    pictures_per_topic: tuple[float, float, float] = (0.25, 0.45, 0.30)
    words_for_pictures: float = 0.0
    only_pictures: float = 0.0
    no_match: float = 0.0
    other_language: float = 0.0
    said_words: float = 0.0
    real_ids: bool = False
    threshold: float = 0.93
    max_steps: int = 4_000
    is_last: bool = False


STAGES = (
    # words: one item a line, one word a query; the vocabulary grows
    Stage("w8", topics=8, words=1, answer="ids", queries=12, languages=("en",)),
    Stage("w24", words=1, answer="ids", queries=12, languages=("en",)),
    Stage("w24zh", words=1, answer="ids", queries=12),
    Stage("k2", words=2, answer="ids", queries=12),
    Stage("k4", words=4, answer="ids", queries=12),
    Stage("k10", answer="ids", queries=12),
    Stage("k10x", answer="list", queries=12, other_language=0.2),
    # lists of several ids, before and after the task's markers
    Stage("r0", answer="list", queries=12, repeats=True, topics_per_dialogue=(2, 3), threshold=0.7),
    Stage("k10m", queries=8, other_language=0.1),
    Stage("r1", repeats=True, threshold=0.7),
    # from here on ids count on from a number, as they do in the task
    Stage("r2", repeats=True, real_ids=True, lines_per_topic=(1, 4), threshold=0.42),
    Stage(
        "t1",
        repeats=True,
        real_ids=True,
        lines_per_topic=(1, 4),
        sentences=0.5,
        query_sentences=0.5,
        fillers=0.2,
        threshold=0.32,
    ),
    # pictures: first as words of their topic, then as themselves, alone, beside words, on lines of any topic
    Stage(
        "pw", lines=(2, 4), pictures=1.0, only_pictures=0.7, words_for_pictures=1.0, threshold=0.84
    ),
    Stage(
        "p0", lines=(2, 4), pictures=1.0, only_pictures=0.7, words_for_pictures=0.2, threshold=0.82
    ),
    Stage(
        "i0",
        lines=(1, 3),
        pictures=1.0,
        pictures_per_topic=(0, 1, 0),
        only_pictures=0.3,
        words_for_pictures=0.3,
        threshold=0.82,
    ),
    Stage("i1", lines=(2, 3), pictures=1.0, words_for_pictures=0.1, threshold=0.72),
    Stage(
        "i2", repeats=True, real_ids=True, topics_per_dialogue=(2, 3), pictures=1.0, threshold=0.5
    ),
    Stage(
        "i3",
        repeats=True,
        real_ids=True,
        lines_per_topic=(1, 4),
        sentences=0.7,
        query_sentences=0.7,
        fillers=0.3,
        pictures=1.0,
        threshold=0.28,
    ),
    # dialogues as long as the sample's
    Stage(
        "t2",
        repeats=True,
        real_ids=True,
        lines_per_topic=(2, 5),
        sentences=0.9,
        query_sentences=0.9,
        fillers=0.3,
        follow_ups=0.1,
        pictures=0.8,
        said_words=0.2,
        threshold=0.2,
    ),
    Stage(
        "full",
        repeats=True,
        real_ids=True,
        lines_per_topic=(3, 8),
        sentences=1.0,
        query_sentences=1.0,
        fillers=0.4,
        follow_ups=0.2,
        pictures=1.0,
        no_match=0.12,
        said_words=0.25,
        max_steps=1_800,
        is_last=True,
    ),
)
"""In order; each stage draws its own dialogues."""
