"""Long dialogues from short ones.

Renumbered rightly, the same for a seed, and refused where there is too little.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffr.data.build import ShortDialogue, build_long, short_dialogues_of
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.errors import DataError


def _short(
    topic: str, lines: int, pictures: int, loose: int = 0, marginal: frozenset[int] = frozenset()
) -> ShortDialogue:
    utterances = tuple(
        Utterance(
            f"user{index % 2}",
            (f"{topic} {index}", *(Image(f"{topic}-{index}.png") for _ in range(index < pictures))),
        )
        for index in range(lines)
    )
    images = tuple(Image(f"{topic}-loose{number}.png") for number in range(loose))
    return ShortDialogue(topic, utterances, (f"about {topic}",), marginal, images)


SHORT = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 3), st.integers(0, 2)), min_size=4, max_size=12
).map(lambda sizes: [_short(f"t{number}", *size) for number, size in enumerate(sizes)])


@settings(deadline=None)
@given(SHORT, st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 3))
def test_every_answer_is_its_topics_lines_and_images(
    short: list[ShortDialogue], interleaved: float, seed: int
) -> None:
    for example in build_long(
        short, num_topics=3, interleaved_share=interleaved, absent_share=0.2, seed=seed
    ):
        assert example.fragment is not None
        topic = example.meta["query_topic"]
        dialogue = example.dialogue
        mine = tuple(
            i for i, line in enumerate(dialogue.utterances) if line.text.split()[0] == topic
        )
        images = tuple(
            i for i, image in enumerate(dialogue.images) if image.source.split("-")[0] == topic
        )
        assert example.fragment == Fragment(mine, images)
        present = {entry["topic"] for entry in example.meta["topics"]}
        assert (topic in present) == (not example.fragment.is_empty)
        assert example.query == f"about {topic}"


@given(SHORT, st.integers(0, 3))
def test_nothing_is_lost_and_lines_keep_their_order(short: list[ShortDialogue], seed: int) -> None:
    by_topic = {item.topic: item for item in short}
    for example in build_long(
        short, num_topics=3, interleaved_share=1.0, absent_share=0, seed=seed
    ):
        for entry in example.meta["topics"]:
            item = by_topic[entry["topic"]]
            said = [
                line.text
                for line in example.dialogue.utterances
                if line.text.split()[0] == item.topic
            ]
            assert said == [line.text for line in item.utterances]
            shown = sorted(
                image.source
                for image in example.dialogue.images
                if image.source.split("-")[0] == item.topic
            )
            own = [image.source for line in item.utterances for image in line.images]
            assert shown == sorted([*own, *(image.source for image in item.loose_images)])


def test_contiguous_and_interleaved() -> None:
    short = [_short(name, 4, 0) for name in "abc"]

    def runs(share: float) -> int:
        dialogue = next(
            build_long(short, num_topics=3, interleaved_share=share, absent_share=0)
        ).dialogue
        topics = [line.text[0] for line in dialogue.utterances]
        return 1 + sum(one != other for one, other in itertools.pairwise(topics))

    assert runs(0.0) == 3
    assert runs(1.0) == 6


def test_marginal_lines_are_no_part_of_the_answer() -> None:
    short = [_short(name, 3, 0, marginal=frozenset({1})) for name in "abc"]
    example = next(build_long(short, num_topics=3, interleaved_share=0, absent_share=0))
    assert example.fragment is not None
    assert example.fragment.utterance_ids == (0, 2)


def test_a_topic_occurs_once_in_a_dialogue() -> None:
    """Five dialogues on one topic, one on each of two others: they can be joined once, whatever the order."""
    short = [*(_short("a", 2, 0) for _ in range(5)), _short("b", 2, 0), _short("c", 2, 0)]
    for seed in range(10):
        examples = list(build_long(short, num_topics=3, absent_share=0, seed=seed))
        assert sorted(example.meta["query_topic"] for example in examples) == ["a", "b", "c"]
        assert len({example.meta["base_dialogue_id"] for example in examples}) == 1


def test_pieces_of_unequal_topics_do_not_follow_themselves() -> None:
    """One topic of one line, two of four: two pieces of each of these can always be kept apart."""
    short = [_short("a", 1, 0), _short("b", 4, 0), _short("c", 4, 0)]
    for seed in range(20):
        dialogue = next(
            build_long(short, num_topics=3, interleaved_share=1.0, absent_share=0, seed=seed)
        ).dialogue
        topics = [line.text[0] for line in dialogue.utterances]
        runs = [topic for topic, _ in itertools.groupby(topics)]
        assert len(runs) == 5, (seed, runs)


def test_the_absent_share_is_kept() -> None:
    short = [_short(f"t{number}", 2, 0) for number in range(30)]
    examples = list(build_long(short, num_topics=3, absent_share=0.2, num_dialogues=400, seed=1))
    assert sum(example.fragment == Fragment() for example in examples) / len(
        examples
    ) == pytest.approx(0.2, abs=0.02)


def test_the_seed_decides() -> None:
    short = [_short(f"t{number}", 3, 1, 1) for number in range(9)]

    def built(seed: int) -> list[Example]:
        return list(build_long(short, seed=seed))

    assert built(4) == built(4) != built(5)
    assert len({example.dialogue.id for example in built(4)}) == len(built(4))


def test_too_few_topics_is_a_sentence() -> None:
    with pytest.raises(
        DataError, match="have 3 topics; 4 are needed to join 3 and ask for an absent one"
    ):
        list(build_long([_short(name, 2, 0) for name in "abc"]))
    with pytest.raises(DataError, match="have 1 topic; 2 are needed"):
        list(build_long([_short("a", 2, 0)] * 5, num_topics=2, absent_share=0))


def test_short_dialogues_of_a_file() -> None:
    dialogue = Dialogue("d", (Utterance("a", ("x",)),))
    found = short_dialogues_of(
        [Example(dialogue, "q1", meta={"topic": "tea"}), Example(dialogue, "q2")]
    )
    assert [(item.topic, item.queries) for item in found] == [("tea", ("q1", "q2"))]
