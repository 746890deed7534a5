"""Generates the embedded data sets.

Dialogues of the lexicon's world with drawn pictures, built as MLDR was built.

`sample` has about 25 turns and three topics; `wechat-sample` about 75 turns, more topics, more
chatter, and wordings and names that occur nowhere else. Most pictures hang on random turns, so that
only what they show tells which topic they belong to.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from ffr.data.build import ShortDialogue, build_long
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Example, Image, Utterance
from ffr.errors import UsageError
from ffr.files import dump_record, make_folder, replace_text
from ffr.world.lexicon import LANGUAGES, TOPICS, WORDINGS, Topic
from ffr.world.pictures import draw


@dataclass(frozen=True)
class _Part:
    """How one part of a set is made."""

    use: str  # which of the lexicon's wordings
    num_dialogues: int  # in each language
    num_topics: int
    lines: tuple[int, int]  # lines a topic, fewest and most
    chatter: float  # share of lines that are follow-ups or belong to no topic
    typos: float  # share of lines with a slip of the thumb
    num_pictures: int  # drawings of each topic to choose from


_SETS: dict[str, dict[str, _Part]] = {
    "sample": {
        "train": _Part("sample", 300, 3, (5, 11), 0.2, 0.0, 40),
        "grpo": _Part("sample", 300, 3, (5, 11), 0.2, 0.0, 40),
        "val": _Part("sample", 32, 3, (5, 11), 0.2, 0.0, 8),
    },
    "wechat-sample": {
        "val": _Part("wechat", 8, 6, (8, 16), 0.35, 0.05, 8),
    },
}
SAMPLE_NAMES = tuple(_SETS)
GENERATOR_VERSION = 3
"""Raised whenever a seed gives other bytes than before.

A generated set of another version is made anew.
"""
GENERATOR_FILE = "generator.json"
RANDOM_PLACE_SHARE = 0.8
"""Share of the pictures that hang on a random turn of the long dialogue; the others on a turn of
their topic."""


def write_sample(folder: Path, name: str, seed: int = 0) -> dict[str, int]:
    """Writes a set into a folder.

    One .jsonl a part, in ms-swift form, with its pictures under `images/`.

    Args:
        folder: Where to; made if need be.
        name: `sample` (parts `train`, `grpo` and `val`) or `wechat-sample` (part `val`).
        seed: The same seed gives the same bytes.

    Returns:
        Number of examples of each part.

    Raises:
        UsageError: for another name.
    """
    if name not in _SETS:
        raise UsageError(f"no sample set {name!r}; there are {', '.join(_SETS)}")
    sizes: dict[str, int] = {}
    for part_name, part in _SETS[name].items():
        examples = make_examples(part_name, part, folder, seed)
        sizes[part_name] = len(examples)
        write_examples(folder / f"{part_name}.jsonl", examples, query_position="first")
    stamp = {"generator_version": GENERATOR_VERSION, "seed": seed, "num_examples": sizes}
    replace_text(folder / GENERATOR_FILE, dump_record(stamp, where=GENERATOR_FILE).decode() + "\n")
    return sizes


def is_outdated(folder: Path) -> bool:
    """Whether a folder holds a set that another version of this generator made.

    One without a stamp is left alone.
    """
    try:
        stamp = json.loads((folder / GENERATOR_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return not isinstance(stamp, dict) or stamp.get("generator_version") != GENERATOR_VERSION


def make_examples(part_name: str, part: _Part, folder: Path, seed: int) -> list[Example]:
    """The examples of one part; its pictures are drawn into the folder."""
    chance = random.Random(f"{seed} {part.use} {part_name}")
    pictures = _draw_pictures(part_name, part, folder, chance)
    examples: list[Example] = []
    for language in LANGUAGES:
        short = [
            _short_dialogue(topic, language, part, pictures[topic.key], chance)
            for _ in range(-(-part.num_dialogues * part.num_topics // len(TOPICS)) + 1)
            for topic in TOPICS
        ]
        examples += build_long(
            short,
            num_topics=part.num_topics,
            interleaved_share=0.5,
            absent_share=0.12,
            num_dialogues=part.num_dialogues,
            name=f"{part.use}_{part_name}_{language}",
            seed=chance.getrandbits(32),
        )
    return examples


def _draw_pictures(
    part_name: str, part: _Part, folder: Path, chance: random.Random
) -> dict[str, list[Image]]:
    target = folder / "images" / part_name
    make_folder(target)
    drawn: dict[str, list[Image]] = {}
    numbers = list(range(len(TOPICS) * part.num_pictures))
    chance.shuffle(numbers)  # a file's name must not tell its topic
    for topic in TOPICS:
        drawn[topic.key] = []
        for _ in range(part.num_pictures):
            name = f"{numbers.pop():04d}.png"
            picture = draw(
                topic.key, chance, width=chance.randint(84, 96), height=chance.randint(84, 96)
            )
            # not packed: how zlib packs depends on its version and on the processor, and a set is
            # known by its bytes
            picture.save(target / name, compress_level=0)
            drawn[topic.key].append(Image(f"images/{part_name}/{name}"))
    return drawn


def _short_dialogue(
    topic: Topic, language: str, part: _Part, pictures: list[Image], chance: random.Random
) -> ShortDialogue:
    wording = WORDINGS[part.use, language]
    words = topic.zh_words if language == "zh" else topic.en_words
    names = topic.zh_names if language == "zh" else topic.en_names
    lines: list[Utterance] = []
    marginal: set[int] = set()
    for index in range(chance.randint(*part.lines)):
        speaker = f"user{1 + (index + (chance.random() < 0.2)) % 2}"
        if index and chance.random() < part.chatter:
            if chance.random() < 0.5:
                text = chance.choice(wording.follow_ups)
            else:
                text = chance.choice(wording.fillers)
                marginal.add(index)
        else:
            first, second = chance.sample(words, 2)
            text = chance.choice(wording.lines).format(
                first, second, n=chance.choice(wording.names)
            )
        if chance.random() < part.typos:
            text = _slip(text, chance)
        lines.append(Utterance(speaker, (text,)))
    chosen = chance.sample(pictures, chance.choices((0, 1, 2), (0.25, 0.45, 0.3))[0])
    loose = [picture for picture in chosen if chance.random() < RANDOM_PLACE_SHARE]
    for picture in chosen:
        if picture not in loose:
            at = chance.choice([index for index in range(len(lines)) if index not in marginal])
            lines[at] = Utterance(lines[at].speaker, (*lines[at].segments, picture))
    queries = tuple(
        template.format(*chance.sample((*names, *words), 2))
        for template in chance.sample(wording.queries, 3)
    )
    return ShortDialogue(
        topic.key,
        tuple(lines),
        queries,
        frozenset(marginal),
        tuple(loose),
        meta={"language": language},
    )


def _slip(text: str, chance: random.Random) -> str:
    """Doubles or drops one character."""
    at = chance.randrange(len(text))
    return text[:at] + (text[at] * 2 if chance.random() < 0.5 else "") + text[at + 1 :]
