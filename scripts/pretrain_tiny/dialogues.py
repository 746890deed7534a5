"""Draws the dialogues of a stage and turns them into training rows: several queries behind one dialogue, each seeing it and itself.

A row is [dialogue | query 1, answer 1 | query 2, answer 2 | …] under a block mask, with positions that start again behind the
dialogue for every query, so that each query gives the very numbers it would give alone.

Shapes: B rows, L tokens of the longest row.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from build import IM_END, IM_START, IMAGE_PAD, MARKERS, NUM_NUMBERS, VISION_END, VISION_START
from stages import Stage
from transformers import PreTrainedTokenizerFast

from ffr.world.lexicon import TOPICS, WORDINGS

MAX_ID = 100
MAX_IMAGE_ID = 24
TOKENS_PER_PICTURE = 4
MAX_PICTURES = 8


@dataclass(frozen=True)
class Drawn:
    """A dialogue: (topic, text) of each line, −1 for no topic; (line, topic) of each picture; (text, topic) of each query."""

    lines: list[tuple[int, str]]
    pictures: list[tuple[int, int]]
    queries: list[tuple[str, int]]
    utterance_ids: list[int]
    image_ids: list[int]


@dataclass(frozen=True)
class Row:
    """A training row.

    Args:
        ids: Token ids.
        is_answer: Whether each is an answer token.
        block: 0 for the dialogue, k for the k-th query and its answer.
        prefix: Length of the dialogue.
        pictures: (topic, drawing) of each picture, in order.
    """

    ids: list[int]
    is_answer: list[bool]
    block: list[int]
    prefix: int
    pictures: list[tuple[int, int]]


@dataclass(frozen=True)
class Rows:
    """Padded rows: ids, answers and blocks (B, L), positions (3, B, L), mask (B, 1, L, L); block −1 is padding."""

    ids: torch.Tensor
    positions: torch.Tensor
    is_answer: torch.Tensor
    block: torch.Tensor
    mask: torch.Tensor
    pictures: list[tuple[int, int]]


class World:
    """Draws dialogues and encodes them; owns chance and tokenizer.

    Args:
        tokenizer: The tiny model's tokenizer.
        seed: Seed of all that is drawn.
        drawings_per_topic: Drawings that a picture is chosen from.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, seed: int, drawings_per_topic: int = 420
    ) -> None:
        self.tokenizer = tokenizer
        self.chance = random.Random(seed)
        self.drawings_per_topic = drawings_per_topic
        self._known: dict[str, list[int]] = {}
        names = (*MARKERS, IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD)
        self.token = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
        self._number = [self.ids(str(number))[0] for number in range(NUM_NUMBERS)]
        self._turn = [
            self.token[IM_END],
            *self.ids("\n"),
            self.token[IM_START],
            *self.ids("assistant\n"),
        ]

    def ids(self, text: str) -> list[int]:
        """The ids of a text."""
        if text not in self._known:
            found: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
            if len(self._known) > 200_000:
                return found
            self._known[text] = found
        return self._known[text]

    def word(self, stage: Stage, topic: int, language: str) -> str:
        words = TOPICS[topic].zh_words if language == "zh" else TOPICS[topic].en_words
        return self.chance.choice(words[: stage.words])

    def draw(self, stage: Stage) -> Drawn:
        """A dialogue of a stage."""
        chance = self.chance
        language = chance.choice(stage.languages)
        topics, plan = self._plan(stage)
        wording = WORDINGS["base", language]
        lines: list[tuple[int, str]] = []
        for topic, number in plan:
            if chance.random() < stage.fillers:
                lines.append((-1, chance.choice(wording.fillers)))
            for index in range(number):
                if index > 0 and chance.random() < stage.follow_ups:
                    lines.append((topic, chance.choice(wording.follow_ups)))
                elif chance.random() < stage.sentences:
                    words = self.word(stage, topic, language), self.word(stage, topic, language)
                    lines.append((topic, chance.choice(wording.lines).format(*words)))
                else:
                    lines.append((topic, self.word(stage, topic, language)))
        pictures: list[tuple[int, int]] = []
        if stage.pictures and chance.random() < stage.pictures:
            for topic in topics:
                number = chance.choices((0, 1, 2), stage.pictures_per_topic)[0]
                places = chance.sample(range(len(lines)), min(number, len(lines)))
                pictures += [(place, topic) for place in places]
            pictures = sorted(pictures, key=lambda picture: picture[0])[:MAX_PICTURES]
        if chance.random() < stage.only_pictures:
            topics = chance.sample(range(stage.topics), chance.randint(1, 4))
            lines, pictures = [], [(0, topic) for topic in topics]
        if stage.real_ids:
            first = chance.randint(0, MAX_ID - len(lines)) if chance.random() < 0.3 else 0
            utterance_ids, image_ids = (
                list(range(first, first + len(lines))),
                list(range(len(pictures))),
            )
        else:
            utterance_ids = sorted(chance.sample(range(MAX_ID), len(lines)))
            image_ids = sorted(chance.sample(range(MAX_IMAGE_ID), len(pictures)))
        queries = [
            self._query(stage, topic, topics, lines, language)
            for topic in self._asked(stage, topics)
        ]
        return Drawn(lines, pictures, queries, utterance_ids, image_ids)

    def _plan(self, stage: Stage) -> tuple[list[int], list[tuple[int, int]]]:
        """The dialogue's topics, and (topic, number of lines) of its pieces, in order."""
        chance = self.chance
        if not stage.repeats:
            topics = chance.sample(range(stage.topics), chance.randint(*stage.lines))
            return topics, [(topic, 1) for topic in topics]
        topics = chance.sample(range(stage.topics), chance.randint(*stage.topics_per_dialogue))
        in_pieces = chance.random() < 0.5
        pending: list[tuple[int, list[int]]] = []
        for topic in topics:
            number = chance.randint(*stage.lines_per_topic)
            if in_pieces and number >= 2 and len(topics) > 1:
                cut = chance.randint(1, number - 1)
                pending.append((topic, [cut, number - cut]))
            else:
                pending.append((topic, [number]))
        plan: list[tuple[int, int]] = []
        while any(parts for _, parts in pending):
            choices = [item for item in pending if item[1] and (not plan or item[0] != plan[-1][0])]
            topic, parts = chance.choice(choices or [item for item in pending if item[1]])
            plan.append((topic, parts.pop(0)))
        return topics, plan

    def _asked(self, stage: Stage, topics: list[int]) -> list[int]:
        """The topics of the queries: the dialogue's in turn, some of them replaced by absent ones."""
        order: list[int] = []
        while len(order) < stage.queries:
            order += self.chance.sample(topics, len(topics))
        absent = [topic for topic in range(stage.topics) if topic not in topics]
        return [
            self.chance.choice(absent) if self.chance.random() < stage.no_match else topic
            for topic in order[: stage.queries]
        ]

    def _query(
        self,
        stage: Stage,
        topic: int,
        topics: list[int],
        lines: list[tuple[int, str]],
        language: str,
    ) -> tuple[str, int]:
        chance = self.chance
        if len(stage.languages) > 1 and chance.random() < stage.other_language:
            language = "en" if language == "zh" else "zh"
        entry = TOPICS[topic]
        names, words = (
            (entry.zh_names, entry.zh_words)
            if language == "zh"
            else (entry.en_names, entry.en_words)
        )

        def pick() -> str:
            if stage.words >= 10 and chance.random() < 0.12:
                return chance.choice(names)
            if chance.random() < stage.said_words:
                said = [
                    word
                    for word in words
                    if any(owner == topic and word in text for owner, text in lines)
                ]
                if said:
                    return chance.choice(said)
            return self.word(stage, topic, language)

        if chance.random() < stage.query_sentences:
            return chance.choice(WORDINGS["base", language].queries).format(pick(), pick()), topic
        return pick(), topic

    def encode(self, stage: Stage, drawn: Drawn) -> Row:
        """The row of a dialogue with all its queries."""
        chance, token = self.chance, self.token
        whole = stage.answer == "whole"
        ids = [token[IM_START], *self.ids("user\n")] if whole else [token[IM_START]]
        pictures: list[tuple[int, int]] = []

        def show(number: int) -> None:
            topic = drawn.pictures[number][1]
            ids.extend(
                (
                    token["<|img_id_start|>"],
                    self._number[drawn.image_ids[number]],
                    token["<|img_id_end|>"],
                )
            )
            ids.append(token[VISION_START])
            if chance.random() < stage.words_for_pictures:
                word = self.word(stage, topic, chance.choice(stage.languages))
                ids.extend(
                    self.ids(word if chance.random() < 0.5 else f" {word}")[-1:]
                    * TOKENS_PER_PICTURE
                )
            else:
                ids.extend([token[IMAGE_PAD]] * TOKENS_PER_PICTURE)
                pictures.append((topic, chance.randrange(self.drawings_per_topic)))
            ids.append(token[VISION_END])

        shown = 0
        for index, (_, text) in enumerate(drawn.lines):
            number = self._number[drawn.utterance_ids[index]]
            if whole:
                ids.extend((token["<|utt_id_start|>"], number, token["<|utt_id_end|>"]))
                ids.extend(self.ids(f" user{chance.randint(1, 2)}: "))
            else:
                ids.append(number)
            ids.extend(self.ids(text))
            while shown < len(drawn.pictures) and drawn.pictures[shown][0] == index:
                show(shown)
                shown += 1
            if whole:
                ids.extend(self.ids("\n"))
        for number in range(shown, len(drawn.pictures)):
            show(number)
        prefix = len(ids)
        is_answer, block = [False] * prefix, [0] * prefix
        for number, (query, topic) in enumerate(drawn.queries):
            utterances = [
                drawn.utterance_ids[at]
                for at, (owner, _) in enumerate(drawn.lines)
                if owner == topic
            ]
            images = [
                drawn.image_ids[at]
                for at, (_, owner) in enumerate(drawn.pictures)
                if owner == topic
            ]
            asked = self.ids(query)
            if stage.answer != "ids":
                asked = [token["<|query_start|>"], *asked, token["<|query_end|>"]]
            if whole:
                asked = [*asked, *self.ids("\n"), *self._turn]
            answer = self._answer(utterances, images, stage)
            ids += [*asked, *answer]
            is_answer += [False] * len(asked) + [True] * len(answer)
            block += [number + 1] * (len(asked) + len(answer))
        return Row(ids, is_answer, block, prefix, pictures)

    def _answer(self, utterances: list[int], images: list[int], stage: Stage) -> list[int]:
        def listed(numbers: list[int]) -> list[int]:
            found: list[int] = []
            for index, number in enumerate(numbers):
                found += [
                    *(self.ids(", ") if index and stage.answer != "ids" else []),
                    self._number[number],
                ]
            return found

        if stage.answer == "ids":
            return [*listed(utterances), *self.ids("]")]
        if stage.answer == "list":
            return [*self.ids("["), *listed(utterances), *self.ids("]")]
        token = self.token
        return [
            token["<|utt_ids_start|>"], *self.ids("["), *listed(utterances), *self.ids("]"), token["<|utt_ids_end|>"], *self.ids(";"),
            token["<|img_ids_start|>"], *self.ids("["), *listed(images), *self.ids("]"), token["<|img_ids_end|>"], token[IM_END],
        ]  # fmt: skip

    def collate(self, rows: list[Row]) -> Rows:
        """Pads rows and makes their masks and positions."""
        length = max(len(row.ids) for row in rows)
        ids = np.zeros((len(rows), length), np.int64)
        is_answer = np.zeros((len(rows), length), bool)
        block = np.full((len(rows), length), -1, np.int64)
        positions = np.zeros((3, len(rows), length), np.int64)
        pictures: list[tuple[int, int]] = []
        for number, row in enumerate(rows):
            size = len(row.ids)
            ids[number, :size], is_answer[number, :size], block[number, :size] = (
                row.ids,
                row.is_answer,
                row.block,
            )
            positions[:, number, :size] = self._positions(row)
            pictures += row.pictures
        blocks = torch.from_numpy(block)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = causal[None] & (
            (blocks[:, None, :] == 0) | (blocks[:, None, :] == blocks[:, :, None])
        )
        return Rows(
            torch.from_numpy(ids),
            torch.from_numpy(positions),
            torch.from_numpy(is_answer),
            blocks,
            mask[:, None],
            pictures,
        )

    def _positions(self, row: Row) -> np.ndarray:
        """(3, length): Qwen2-VL's positions, a picture's four tokens as a square, started again for every query."""
        positions = np.zeros((3, len(row.ids)), np.int64)
        position, after_dialogue, index = 0, 0, 0
        while index < len(row.ids):
            if index == row.prefix:
                after_dialogue = position
            if index >= row.prefix and row.block[index] != row.block[index - 1]:
                position = after_dialogue
            if row.ids[index] == self.token[IMAGE_PAD]:
                for down in range(2):
                    for across in range(2):
                        positions[:, index + 2 * down + across] = (
                            position,
                            position + down,
                            position + across,
                        )
                position, index = position + 2, index + TOKENS_PER_PICTURE
            else:
                positions[:, index] = position
                position, index = position + 1, index + 1
        return positions
