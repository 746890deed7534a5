"""Figures of data sets, on hand-worked ones and the real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ffr.data.dataset import open_dataset
from ffr.data.forms.fields import EXTRA_KEYS
from ffr.data.forms.raw import EXTRA_LINE_KEYS
from ffr.data.stats import Summary, dataset_stats, language_of, num_topics_of
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance


def _chat(num_turns: int, text: str = "some words", images: int = 0) -> Dialogue:
    lines = [
        Utterance("ab"[index % 2], (f"{text} {index}",)) for index in range(num_turns - images)
    ]
    return Dialogue(
        f"{num_turns}{text}",
        (*lines, *(Utterance("A", (Image(f"{i}.png"),)) for i in range(images))),
    )


def test_figures_by_hand() -> None:
    short, middle, long = _chat(10, images=2), _chat(35), _chat(66, "你好今天")
    examples = [
        Example(short, "one", Fragment((1, 2), ()), meta={"topics": ["x", "y"]}),
        Example(short, "three", Fragment((9, 8, 0), (0, 1))),
        Example(short, "none", Fragment()),
        Example(middle, "picture", Fragment((), (0,))),
        Example(long, "x"),
    ]
    stats = dataset_stats(examples)
    assert (stats.num_examples, stats.num_dialogues, stats.num_images) == (5, 3, 2)
    assert (stats.num_with_answer, stats.num_empty_answers, stats.num_image_answers) == (4, 1, 2)
    assert stats.turns == Summary(37.0, 35.0, 10.0, 66.0)
    assert stats.queries == Summary(5 / 3, 1.0, 1.0, 3.0)
    assert stats.speakers.maximum == 2
    assert stats.topics == Summary(2.0, 2.0, 2.0, 2.0)
    assert stats.num_with_topics == 1
    assert stats.fragment_utterances.mean == pytest.approx((2 + 3 + 0) / 3)
    assert stats.fragment_images.mean == pytest.approx(1.0)
    assert stats.density.mean == pytest.approx((0.2 + 0.3 + 0) / 3)
    assert stats.contiguous_share == pytest.approx(2 / 3)
    assert stats.lengths == {"<35": 1, "35–65": 1, ">65": 1}
    assert stats.languages == {"en": 2, "zh": 1}
    json.dumps(stats.to_json())


def test_nothing_at_all() -> None:
    stats = dataset_stats([])
    assert stats.turns == Summary()
    assert stats.contiguous_share == 0


def test_topics_where_they_are_told() -> None:
    chat = _chat(3)
    assert num_topics_of(Example(chat, "q")) is None
    assert num_topics_of(Example(chat, "q", meta={"topics": ["a", "b"]})) == 2
    assert num_topics_of(Example(chat, "q", meta={"topics": "ab"})) is None
    assert num_topics_of(Example(chat, "q", meta={EXTRA_KEYS: {"topics": [{}]}})) == 1
    lines = [{"topic_index": 0}, {"topic_index": 4}, {"topic_index": None}, {}]
    assert num_topics_of(Example(chat, "q", meta={EXTRA_LINE_KEYS: lines})) == 2


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("你好吗", "zh"),
        ("how are you", "en"),
        ("你好 this is it", "mixed"),
        ("123 …", "other"),
        # nine words of ten are enough, eight of nine or ten are not
        ("我们今天去公园玩 OK", "mixed"),
        ("我们今天下午去公园 OK", "zh"),
        ("好 a b c d e f g h i", "en"),
        ("好了 a b c d e f g h", "mixed"),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert language_of(Dialogue("d", (Utterance("a", (text,)),))) == language


def test_the_real_dialogues(real_dialogues: Path) -> None:
    stats = dataset_stats(open_dataset(real_dialogues / "dialogues.json"))
    assert (stats.num_examples, stats.num_dialogues, stats.num_with_topics) == (183, 40, 40)
    assert stats.languages == {"zh": 30, "en": 10}
    assert stats.turns.mean == pytest.approx(1412 / 40)
