"""Figures of a data set, as papers on long dialogues give them.

Turns, images, topics, fragments, density, languages.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ffr.data.forms.fields import EXTRA_KEYS
from ffr.data.forms.raw import EXTRA_LINE_KEYS
from ffr.dialogue import Dialogue, Example

LENGTH_BOUNDS = (35, 65)
"""Turns that part short, middle and long dialogues in the paper's tables: <35, 35–65, >65."""

_HAN = re.compile(r"[\u3400-\u9fff]")
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ɏ]+")


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean, median, least and most of a quantity; all 0 where there is none."""

    mean: float = 0.0
    median: float = 0.0
    minimum: float = 0.0
    maximum: float = 0.0

    @classmethod
    def of(cls, values: list[int] | list[float]) -> Summary:
        """The summary of some values.

        >>> Summary.of([1, 2, 6])
        Summary(mean=3.0, median=2.0, minimum=1.0, maximum=6.0)
        """
        if not values:
            return cls()
        return cls(
            statistics.fmean(values),
            float(statistics.median(values)),
            float(min(values)),
            float(max(values)),
        )


@dataclass(frozen=True)
class DatasetStats:
    """Figures of a data set.

    Dialogues are counted by content: the examples that ask about one dialogue count it once.

    Args:
        num_examples: Pairs of a dialogue and a query.
        num_dialogues: Different dialogues.
        num_images: Images in these dialogues.
        num_with_answer: Examples whose true answer is known.
        num_empty_answers: Of these, answers that name nothing.
        num_image_answers: Of these, answers that name an image.
        turns: Utterances of a dialogue.
        images: Images of a dialogue.
        speakers: Speakers of a dialogue.
        queries: Examples of a dialogue.
        topics: Topics of a dialogue, where the data tells them.
        num_with_topics: Dialogues that tell their topics.
        fragment_utterances: Utterances of an answer that is not empty.
        fragment_images: Images of an answer that is not empty.
        density: Share of the dialogue's utterances that the answer names, of answers that are not
            empty.
        contiguous_share: Share of those answers whose utterances follow each other without a gap.
        query_chars: Characters of a query.
        turn_chars: Characters of an utterance's text, of utterances with text.
        lengths: Dialogues of <35, 35–65 and >65 turns.
        languages: Dialogues by language: zh, en, mixed, or other.
    """

    num_examples: int = 0
    num_dialogues: int = 0
    num_images: int = 0
    num_with_answer: int = 0
    num_empty_answers: int = 0
    num_image_answers: int = 0
    turns: Summary = Summary()
    images: Summary = Summary()
    speakers: Summary = Summary()
    queries: Summary = Summary()
    topics: Summary = Summary()
    num_with_topics: int = 0
    fragment_utterances: Summary = Summary()
    fragment_images: Summary = Summary()
    density: Summary = Summary()
    contiguous_share: float = 0.0
    query_chars: Summary = Summary()
    turn_chars: Summary = Summary()
    lengths: Mapping[str, int] = field(default_factory=dict)
    languages: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON has them."""
        return asdict(self)


def dataset_stats(examples: Iterable[Example]) -> DatasetStats:
    """Counts a data set in one pass.

    Holds a few numbers for each example and dialogue, not the texts.

    >>> from ffr.dialogue import Fragment, Utterance
    >>> chat = Dialogue("d", tuple(Utterance(name, ("a word",)) for name in "abab"))
    >>> answered = {"one": Fragment((1, 2)), "none": Fragment()}
    >>> stats = dataset_stats([Example(chat, *item) for item in answered.items()])
    >>> stats.num_dialogues, stats.num_empty_answers, stats.density.mean, stats.languages
    (1, 1, 0.5, {'en': 1})
    """
    queries: Counter[str] = Counter()
    values: dict[str, list[int]] = {
        name: []
        for name in (
            "turns",
            "images",
            "speakers",
            "topics",
            "utterances",
            "pictures",
            "query",
            "turn",
        )
    }
    density: list[float] = []
    languages: Counter[str] = Counter()
    num_with_answer = num_empty = num_image_answers = num_contiguous = 0
    for example in examples:
        dialogue = example.dialogue
        name = dialogue.fingerprint
        queries[name] += 1
        values["query"].append(len(example.query))
        if queries[name] == 1:
            values["turns"].append(len(dialogue.utterances))
            values["images"].append(len(dialogue.images))
            values["speakers"].append(len({line.speaker.lower() for line in dialogue.utterances}))
            values["turn"] += [len(line.text) for line in dialogue.utterances if line.text]
            languages[language_of(dialogue)] += 1
            if (num_topics := num_topics_of(example)) is not None:
                values["topics"].append(num_topics)
        if example.fragment is None:
            continue
        num_with_answer += 1
        ids = sorted(set(example.fragment.utterance_ids))
        num_image_answers += bool(example.fragment.image_ids)
        if example.fragment.is_empty:
            num_empty += 1
            continue
        values["utterances"].append(len(ids))
        values["pictures"].append(len(set(example.fragment.image_ids)))
        density.append(len(ids) / len(dialogue.utterances))
        num_contiguous += not ids or ids[-1] - ids[0] + 1 == len(ids)
    low, high = LENGTH_BOUNDS
    turns = values["turns"]
    return DatasetStats(
        num_examples=sum(queries.values()),
        num_dialogues=len(queries),
        num_images=sum(values["images"]),
        num_with_answer=num_with_answer,
        num_empty_answers=num_empty,
        num_image_answers=num_image_answers,
        turns=Summary.of(turns),
        images=Summary.of(values["images"]),
        speakers=Summary.of(values["speakers"]),
        queries=Summary.of(list(queries.values())),
        topics=Summary.of(values["topics"]),
        num_with_topics=len(values["topics"]),
        fragment_utterances=Summary.of(values["utterances"]),
        fragment_images=Summary.of(values["pictures"]),
        density=Summary.of(density),
        contiguous_share=num_contiguous / len(density) if density else 0.0,
        query_chars=Summary.of(values["query"]),
        turn_chars=Summary.of(values["turn"]),
        lengths={
            f"<{low}": sum(count < low for count in turns),
            f"{low}–{high}": sum(low <= count <= high for count in turns),
            f">{high}": sum(count > high for count in turns),
        },
        languages=dict(languages.most_common()),
    )


def num_topics_of(example: Example) -> int | None:
    """Number of topics of an example's dialogue, or None where the data does not tell."""
    extra = example.meta.get(EXTRA_KEYS)
    for source in (example.meta, extra if isinstance(extra, Mapping) else {}):
        topics = source.get("topics")
        if isinstance(topics, list) and topics:
            return len(topics)
    lines = example.meta.get(EXTRA_LINE_KEYS)
    if isinstance(lines, list):
        found = {
            line.get("topic_index") for line in lines if isinstance(line.get("topic_index"), int)
        }
        return len(found) or None
    return None


def language_of(dialogue: Dialogue) -> str:
    """The language by nine tenths of the words (a Han character counts as one).

    Zh, en, mixed, or other without words.

    >>> from ffr.dialogue import Utterance
    >>> language_of(Dialogue("d", (Utterance("a", ("今天天气很好，我们去公园吧，OK",)),)))
    'zh'
    """
    num_han = num_latin = 0
    for utterance in dialogue.utterances:
        text = utterance.text
        num_han += len(_HAN.findall(text))
        num_latin += len(_LATIN_WORD.findall(text))
    if not num_han + num_latin:
        return "other"
    share = num_han / (num_han + num_latin)
    return "zh" if share >= 0.9 else "en" if share <= 0.1 else "mixed"
