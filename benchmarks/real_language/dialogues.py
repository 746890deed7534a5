"""The English dialogues that are trained and measured on: with queries made by rule, and joined anew from their own pieces."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ffr.data.build import ShortDialogue, build_long
from ffr.data.dataset import open_dataset
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment
from ffr.retrieval.lexical import overlap_terms

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
QUOTE_WORDS = (
    'the part in which "{}" is said',
    'where they say "{}"',
    'the exchange with the words "{}"',
)
KEYWORD_WORDS = ("{}", "talk about {}", "the part with {}", "{}, and what is said about it")
NUM_KEYWORDS = 3


def is_english(example: Example) -> bool:
    """Whether dialogue and query are English."""
    return str(example.meta.get("split", "")).startswith("en") and not _HAN.search(example.query)


def kind_of(example: Example) -> str:
    return str(example.meta.get("query_kind", "made"))


def by_dialogue(examples: Iterable[Example]) -> dict[str, list[Example]]:
    """Examples in groups on one dialogue, in the order of their first."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.dialogue.fingerprint, []).append(example)
    return groups


def english_part(path: Path, *, max_lines: int | None = None) -> list[Example]:
    """The English examples of a file, without the prompts that it has."""
    return [
        replace(example, prompt=None)
        for example in open_dataset(path)
        if is_english(example)
        and (max_lines is None or len(example.dialogue.utterances) <= max_lines)
    ]


def topics_of(group: Sequence[Example]) -> list[Fragment]:
    """The different fragments that the queries on a dialogue ask for, in the order of the dialogue."""
    found = {
        example.fragment
        for example in group
        if example.fragment is not None and not example.fragment.is_empty
    }
    return sorted(found, key=lambda fragment: fragment.utterance_ids)


def with_made_queries(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """The examples and, for each fragment that they ask for, two queries made by rule: a line of it, and words typical of it.

    Behind one dialogue they cost few tokens, and a model that learns to look things up needs many questions.
    """
    draw = random.Random(seed)
    groups = by_dialogue(examples)
    rarity: Counter[str] = Counter()
    for group in groups.values():
        for topic in topics_of(group):
            rarity.update(_terms(group[0].dialogue, topic))
    made: list[Example] = []
    for group in groups.values():
        dialogue = group[0].dialogue
        topics = topics_of(group)
        terms = [_terms(dialogue, topic) for topic in topics]
        for topic, own in zip(topics, terms, strict=True):
            others = set().union(*(item for item in terms if item is not own))
            lines = [dialogue.utterances[index].text for index in topic.utterance_ids]
            lines = [line for line in lines if 4 <= len(line.split()) <= 25 and '"' not in line]
            queries = []
            if lines:
                queries.append(draw.choice(QUOTE_WORDS).format(draw.choice(lines)))
            # typical: said often here, in few other places and nowhere else in this dialogue
            typical = sorted(
                own - others,
                key=lambda term: (rarity[term] - 2 * _count(dialogue, topic, term), term),
            )
            if len(typical) >= NUM_KEYWORDS:
                queries.append(draw.choice(KEYWORD_WORDS).format(" ".join(typical[:NUM_KEYWORDS])))
            made += [
                Example(
                    dialogue,
                    query,
                    topic,
                    image_root=group[0].image_root,
                    meta={"query_kind": "made"},
                )
                for query in queries
            ]
    return [*examples, *made]


def _terms(dialogue: Dialogue, topic: Fragment) -> set[str]:
    """Words of five letters and more of a fragment."""
    text = " ".join(dialogue.utterances[index].text for index in topic.utterance_ids)
    return {term for term in overlap_terms(text) if len(term) >= 5 and term.isalpha()}


def _count(dialogue: Dialogue, topic: Fragment, term: str) -> int:
    return sum(
        term in overlap_terms(dialogue.utterances[index].text) for index in topic.utterance_ids
    )


def pieces_of(examples: Sequence[Example]) -> list[ShortDialogue]:
    """The short dialogues that the long ones were joined from: the lines of each fragment, with all queries that ask for it.

    Fragments that overlap others (queries of a wider sense) are left out.
    """
    pieces: list[ShortDialogue] = []
    for group in by_dialogue(examples).values():
        dialogue, topics = group[0].dialogue, topics_of(group)
        hosts = dialogue.image_utterance_ids
        for topic in topics:
            lines = set(topic.utterance_ids)
            is_alone = all(
                other is topic or lines.isdisjoint(other.utterance_ids) for other in topics
            )
            if not is_alone or topic.image_ids != tuple(
                item for item, host in enumerate(hosts) if host in lines
            ):
                continue
            asking = [example for example in group if example.fragment == topic]
            sources = {
                str(e.meta["source_dialogue"]) for e in asking if e.meta.get("source_dialogue")
            }
            if len(sources) != 1:
                continue
            pieces.append(
                ShortDialogue(
                    topic=sources.pop(),
                    utterances=tuple(dialogue.utterances[index] for index in topic.utterance_ids),
                    queries=tuple(example.query for example in asking),
                    image_root=group[0].image_root,
                    meta={"piece": len(pieces), "kinds": [kind_of(example) for example in asking]},
                )
            )
    return pieces


TOPIC_COUNTS = {2: 0.1, 3: 0.6, 4: 0.3}
"""Topics of a dialogue that is joined anew, with their shares: about as in the data."""


def joined_anew(
    examples: Sequence[Example], num_dialogues: int, max_lines: int, seed: int = 0
) -> list[Example]:
    """Dialogues that the training part could have held: its pieces joined in other company.

    A model that sees a piece in ever new places cannot learn by heart where its lines stand. Two pieces of one source never
    meet. Each piece is asked for by every query that it has.

    Args:
        examples: The training part, with made queries.
        num_dialogues: How many are joined; those of more than `max_lines` lines are then left out.
        max_lines: See `num_dialogues`.
        seed: Of all that is drawn.
    """
    pieces = pieces_of(examples)
    made: list[Example] = []
    for num_topics, share in TOPIC_COUNTS.items():
        built = build_long(
            pieces,
            num_topics=num_topics,
            interleaved_share=0.35,
            absent_share=0.1,
            num_dialogues=round(share * num_dialogues),
            name=f"joined_{num_topics}",
            seed=seed * 10 + num_topics,
        )
        for example in built:
            if len(example.dialogue.utterances) > max_lines:
                continue
            if example.fragment is None or example.fragment.is_empty:
                made.append(replace(example, meta={"query_kind": "absent"}))
                continue
            place = {item["topic"]: item["piece"] for item in example.meta["topics"]}
            piece = pieces[place[example.meta["query_topic"]]]
            made += [
                replace(example, query=query, meta={"query_kind": kind})
                for query, kind in zip(piece.queries, piece.meta["kinds"], strict=True)
            ]
    return made


@dataclass(frozen=True)
class Paths:
    """Where things are.

    Args:
        work: The work folder.
        dialogues: The folder of the dialogues.
    """

    work: Path
    dialogues: Path

    @property
    def model(self) -> Path:
        return self.work / "model"

    def data(self, name: str) -> Path:
        """A data file of ours: `train`, `sft` or `dev`."""
        return self.work / "data" / f"{name}.jsonl"

    def run(self, name: str, seed: int) -> Path:
        """The run folder of a training."""
        return self.work / "runs" / f"{name}-{seed}"

    def answers(self, name: str) -> Path:
        """The answers of a method to dev's queries, in order."""
        return self.work / "answers" / f"{name}.json"

    @property
    def notes(self) -> Path:
        """What each stage has to say: a file that is there once the stage is done."""
        return self.work / "notes"

    def open(self, name: str) -> list[Example]:
        return list(open_dataset(self.data(name), image_root=self.dialogues))


def prepare_data(paths: Paths, max_lines: int, num_joined: int, seed: int = 0) -> dict[str, Any]:
    """Writes the English part of both files, and what SFT reads: the training part and its pieces joined anew, with made queries.

    Args:
        paths: Where things are.
        max_lines: Longer training dialogues are left out.
        num_joined: Dialogues joined anew, before the longer ones are left out.
        seed: Of what is joined anew: another one gives the same pieces other company.
    """
    train = english_part(paths.dialogues / "train.jsonl.gz", max_lines=max_lines)
    dev = english_part(paths.dialogues / "dev.json")
    made = with_made_queries(train)
    parts = {
        "train": train,
        "sft": [*made, *joined_anew(made, num_joined, max_lines, seed)],
        "dev": dev,
    }
    counts: dict[str, Any] = {
        "max_lines": max_lines,
        "joined_anew": num_joined,
        "joined_seed": seed,
        "pieces": len(pieces_of(made)),
    }
    for name, examples in parts.items():
        # neighbours on one dialogue, wherever they were made
        ordered = [example for group in by_dialogue(examples).values() for example in group]
        write_examples(paths.data(name), ordered, template="en", query_position="last")
        dialogues = by_dialogue(ordered)
        lines = [len(group[0].dialogue.utterances) for group in dialogues.values()]
        counts[name] = {
            "dialogues": len(dialogues),
            "queries": len(ordered),
            "mean_lines": round(sum(lines) / len(lines), 2),
            "max_lines": max(lines),
            "kinds": dict(Counter(map(kind_of, ordered)).most_common()),
        }
    return counts
