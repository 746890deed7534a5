"""Builds long dialogues from short ones, as MLDR was built.

Several topics joined, one example for each topic's query.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.errors import DataError
from ffr.text import counted


@dataclass(frozen=True)
class ShortDialogue:
    """A dialogue about one topic.

    Args:
        topic: The topic; two dialogues of one topic are never joined.
        utterances: Its lines.
        queries: What may be asked for it; one is drawn each time the dialogue is used.
        marginal_lines: Lines that belong to no topic (a greeting, say): they are joined too but are
            no part of the answer.
        loose_images: Images that belong to the topic but are sent at random places of the long
            dialogue.
        image_root: Folder that image sources are relative to.
        meta: Kept under `topics` in the examples.
    """

    topic: str
    utterances: tuple[Utterance, ...]
    queries: tuple[str, ...]
    marginal_lines: frozenset[int] = frozenset()
    loose_images: tuple[Image, ...] = ()
    image_root: Path | None = None
    meta: dict[str, Any] = field(default_factory=dict)


def short_dialogues_of(examples: Iterable[Example]) -> list[ShortDialogue]:
    """Takes each dialogue of a data file as one about a single topic.

    Its meta's `topic`, or else its query.

    Examples of one dialogue give one short dialogue with all their queries.
    """
    found: dict[str, ShortDialogue] = {}
    for example in examples:
        name = example.dialogue.fingerprint
        before = found.get(name)
        queries = (*before.queries, example.query) if before else (example.query,)
        topic = str(example.meta.get("topic") or (before.topic if before else example.query))
        found[name] = ShortDialogue(
            topic,
            example.dialogue.utterances,
            queries,
            image_root=example.image_root,
            meta={"id": example.dialogue.id},
        )
    return list(found.values())


def build_long(
    short: Sequence[ShortDialogue],
    *,
    num_topics: int = 3,
    interleaved_share: float = 0.5,
    absent_share: float = 0.1,
    num_dialogues: int | None = None,
    name: str = "long",
    seed: int = 0,
) -> Iterator[Example]:
    """Joins short dialogues into long ones.

    Every topic of a long dialogue gives one example, whose answer is all of the topic's lines and
    images; utterances and images are numbered anew. A share of the dialogues gets one more query,
    on a topic it does not have, with an empty answer.

    Args:
        short: The short dialogues, of at least `num_topics` topics.
        num_topics: Topics of a long dialogue.
        interleaved_share: Share of the long dialogues in which the topics alternate in pieces; the
            others are contiguous.
        absent_share: Share of all examples that match nothing.
        num_dialogues: Number of long dialogues; None uses each short one at most once.
        name: Beginning of the ids.
        seed: The same seed gives the same dialogues.

    Yields:
        Examples; those of one dialogue follow each other.

    Raises:
        DataError: where there are too few topics.

    >>> lines = lambda word: (Utterance("a", (word,)), Utterance("b", (word,)))
    >>> topics = ("tea", "cars", "rain")
    >>> short = [ShortDialogue(topic, lines(topic), (f"about {topic}",)) for topic in topics]
    >>> examples = list(build_long(short, num_topics=3, interleaved_share=0, absent_share=0))
    >>> len(examples), [example.fragment.utterance_ids for example in examples]
    (3, [(0, 1), (2, 3), (4, 5)])
    """
    topics = {item.topic for item in short}
    needed = num_topics + (1 if absent_share > 0 else 0)
    if len(topics) < needed:
        raise DataError(
            f"the short dialogues have {counted(len(topics), 'topic')}; {needed} are needed to "
            "join "
            f"{num_topics}" + (" and ask for an absent one" if absent_share > 0 else "")
        )
    chance = random.Random(seed)
    # absent queries are one more example of a dialogue: n·share / (n + …) is solved for the share
    # of dialogues that get one
    absent_rate = absent_share * num_topics / (1 - absent_share) if absent_share < 1 else 1.0
    for number, group in enumerate(_groups(short, num_topics, num_dialogues, chance)):
        dialogue, fragments, shape = _join(
            f"{name}_{number:05d}", group, chance.random() < interleaved_share, chance
        )
        root = group[0].image_root
        shared = {
            "base_dialogue_id": dialogue.id,
            "topics": [{"topic": item.topic, **item.meta} for item in group],
            "interleaved": shape,
        }
        asked = [
            (item.topic, chance.choice(item.queries), part)
            for item, part in zip(group, fragments, strict=True)
        ]
        extra = int(absent_rate) + (chance.random() < absent_rate % 1)
        present = {item.topic for item in group}
        for _ in range(extra):
            other = chance.choice([item for item in short if item.topic not in present])
            asked.append((other.topic, chance.choice(other.queries), Fragment()))
        for index, (topic, query, fragment) in enumerate(asked):
            yield Example(
                dialogue=Dialogue(f"{dialogue.id}_q{index}", dialogue.utterances),
                query=query,
                fragment=fragment,
                image_root=root,
                meta={**shared, "query_topic": topic},
            )


def _groups(
    short: Sequence[ShortDialogue],
    num_topics: int,
    num_dialogues: int | None,
    chance: random.Random,
) -> Iterator[list[ShortDialogue]]:
    """Groups of different topics; each pass over the short dialogues uses each at most once."""
    made = 0
    while num_dialogues is None or made < num_dialogues:
        waiting = list(short)
        chance.shuffle(waiting)
        made_before = made
        while num_dialogues is None or made < num_dialogues:
            group: list[ShortDialogue] = []
            for item in waiting:
                if len(group) < num_topics and all(item.topic != other.topic for other in group):
                    group.append(item)
                if len(group) == num_topics:
                    break
            if len(group) < num_topics:
                break
            waiting = [item for item in waiting if not any(item is used for used in group)]
            made += 1
            yield group
        if num_dialogues is None or made == made_before:
            return


def _join(
    dialogue_id: str, group: Sequence[ShortDialogue], interleaved: bool, chance: random.Random
) -> tuple[Dialogue, list[Fragment], bool]:
    """One long dialogue, and each topic's fragment of it."""
    pieces: list[list[int]] = []
    for item in group:
        length = len(item.utterances)
        if interleaved and length >= 2:
            cut = chance.randint(1, length - 1)
            pieces.append([cut, length - cut])
        else:
            pieces.append([length])
    order = [number for number, parts in enumerate(pieces) for _ in parts]
    if interleaved:
        order = _alternate(pieces, chance)
    lines: list[tuple[int, Utterance, bool]] = []  # topic, line, whether it belongs to the answer
    position = [0] * len(group)
    remaining = [list(parts) for parts in pieces]
    for topic in order:
        for _ in range(remaining[topic].pop(0)):
            index = position[topic]
            lines.append(
                (topic, group[topic].utterances[index], index not in group[topic].marginal_lines)
            )
            position[topic] += 1
    # loose images hang on random lines, one after what the line has
    hung: dict[int, list[tuple[int, Image]]] = {}
    for topic, item in enumerate(group):
        for image in item.loose_images:
            hung.setdefault(chance.randrange(len(lines)), []).append((topic, image))
    utterances: list[Utterance] = []
    utterance_ids: list[list[int]] = [[] for _ in group]
    image_ids: list[list[int]] = [[] for _ in group]
    num_images = 0
    for index, (topic, line, counts) in enumerate(lines):
        if counts:
            utterance_ids[topic].append(index)
        for _ in line.images:
            image_ids[topic].append(num_images)
            num_images += 1
        extra = hung.get(index, [])
        for owner, _ in extra:
            image_ids[owner].append(num_images)
            num_images += 1
        utterances.append(Utterance(line.speaker, (*line.segments, *(image for _, image in extra))))
    fragments = [Fragment.of(*ids) for ids in zip(utterance_ids, image_ids, strict=True)]
    return Dialogue(dialogue_id, tuple(utterances)), fragments, interleaved


def _alternate(pieces: Sequence[Sequence[int]], chance: random.Random) -> list[int]:
    """An order of the topics' pieces in which none follows itself where that can be avoided."""
    left = [len(parts) for parts in pieces]
    order: list[int] = []
    while any(left):
        choices = [
            topic for topic, count in enumerate(left) if count and (not order or topic != order[-1])
        ]
        choices = choices or [topic for topic, count in enumerate(left) if count]
        # the topic with most pieces left goes first where others could run out
        most = max(left[topic] for topic in choices)
        topic = chance.choice([item for item in choices if left[item] == most])
        left[topic] -= 1
        order.append(topic)
    return order
