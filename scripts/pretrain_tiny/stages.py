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
    Stage("k10m", queries=8, other_language=0.1),
)
"""In order; a stage's words, languages and wordings are drawn anew."""
