"""A model's batches, counted by hand: a token is a character here, and a picture is a hundred."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ffr.dialogue import Dialogue, Example, FilePrompt, Image, Utterance
from ffr.errors import DataError
from ffr.prompt import IMAGE_MARK, MAX_SHARED_QUERIES, QUERY_START, UTT_ID_START
from ffr.retrieval.vlm import VlmRetriever


class Letters:
    """A model that reads letters."""

    prompt_settings: dict[str, str] = {}  # noqa: RUF012 - read only
    opened_thought = ""
    stop_ids = (7,)

    def __init__(self, max_context: int | None) -> None:
        self.max_context = max_context
        self.num_opened = 0

    def encode(self, prompt: FilePrompt, images: Sequence[Any], **_: Any) -> Any:
        self.num_opened += len(images)
        text = prompt.user.replace(IMAGE_MARK, "") + (prompt.system or "")
        num_tokens = len(text) + 100 * len(images)
        return SimpleNamespace(num_tokens=num_tokens)

    def tokenizer(self, text: str, **_: Any) -> Any:
        return SimpleNamespace(input_ids=list(text))


class Planner(VlmRetriever):
    """A retriever whose attention can share, or cannot; it writes prepared answers."""

    shares = True
    written: Sequence[Any] = ()

    def _can_share(self) -> bool:
        return self.shares

    def _generate(self, examples: Sequence[Example]) -> list[Any]:
        return list(self.written)


@pytest.fixture
def planner() -> Callable[..., Planner]:
    def make(max_context: int | None = None, **options: Any) -> Planner:
        vlm: Any = Letters(max_context)
        return Planner(vlm, name="letters", **{"max_new_tokens": 15, **options})

    return make


def alone(size: int, *pictures: str) -> Example:
    """A prompt of so many letters that shares nothing."""
    lines = [Utterance("a", (Image(name),)) for name in pictures]
    return Example(
        Dialogue(f"d{size}", tuple(lines)),
        "q",
        prompt=FilePrompt("x" * size),
        image_root=Path("/pictures"),
    )


def behind(head: str, line: int, system: str | None = None, *pictures: str) -> Example:
    """A prompt whose dialogue has 50 letters, with the query on a last line of so many."""
    user = (UTT_ID_START + head).ljust(49, ".") + "\n" + QUERY_START.ljust(line, "q")
    lines = [Utterance("a", (Image(name),)) for name in pictures]
    return Example(
        Dialogue(head, tuple(lines)),
        "q",
        prompt=FilePrompt(user, system),
        image_root=Path("/pictures"),
    )


# -- batches ------------------------------------------------------------------------------------------------------------------


def test_batches_are_of_like_length_and_count_their_padding(
    planner: Callable[..., Planner],
) -> None:
    """60 tokens: 40 stands alone, 30 takes 25 along (2 x 30), and 12 takes 10 along, but would not take four more."""
    examples = [alone(size) for size in (10, 40, 25, 30, 12)]
    assert planner(batch_tokens=60).plan(examples) == [[1], [3, 2], [4, 0]]
    assert planner(batch_tokens=59).plan(examples) == [[1], [3], [2, 4], [0]]
    assert planner(batch_tokens=1).plan(examples) == [[1], [3], [2], [4], [0]]
    assert planner(batch_tokens=200).plan(examples) == [[1, 3, 2, 4, 0]]
    assert planner(batch_tokens=199).plan(examples) == [[1, 3, 2, 4], [0]]


def test_equal_lengths_keep_their_order(planner: Callable[..., Planner]) -> None:
    examples = [alone(20), alone(30), alone(20), alone(30)]
    assert planner(batch_tokens=60).plan(examples) == [[1, 3], [0, 2]]


def test_a_picture_counts_what_it_adds_and_is_opened_once(
    planner: Callable[..., Planner],
) -> None:
    examples = [alone(120), alone(10, "a.png"), alone(10, "a.png", "b.png"), alone(20, "a.png")]
    retriever = planner(batch_tokens=240)
    # 210, then 120 twice, then 110
    assert retriever.plan(examples) == [[2], [0, 3], [1]]
    assert retriever.vlm.num_opened == 2  # type: ignore[attr-defined]


# -- queries that share their dialogue ----------------------------------------------------------------------------------------


def test_a_shared_dialogue_counts_once_and_each_further_query_its_line(
    planner: Callable[..., Planner],
) -> None:
    """50 letters of dialogue and lines of 20, 30 and 40 are 140; two prompts of 140 fill 280."""
    examples = [behind("d", 20), alone(140), behind("d", 30), behind("d", 40)]
    assert planner(batch_tokens=280).plan(examples) == [[0, 2, 3, 1]]
    assert planner(batch_tokens=279).plan(examples) == [[0, 2, 3], [1]]
    shorter = [behind("d", 20), alone(139), behind("d", 30), behind("d", 40)]
    assert planner(batch_tokens=279).plan(shorter) == [[0, 2, 3], [1]]


def test_what_differs_before_the_query_is_not_shared(planner: Callable[..., Planner]) -> None:
    examples = [
        behind("d", 20),
        behind("e", 20),
        behind("d", 20, "be brief"),
        behind("d", 20, None, "a.png"),
        behind("d", 20),
    ]
    # 90 and twice 70; the picture makes 170, the words of the system 78
    assert planner(batch_tokens=1).plan(examples) == [[3], [0, 4], [2], [1]]
    assert planner(batch_tokens=1, is_prefix_shared=False).plan(examples) == [
        [3], [2], [0], [1], [4],
    ]  # fmt: skip
    retriever = planner(batch_tokens=1)
    retriever.shares = False
    assert retriever.plan(examples) == [[3], [2], [0], [1], [4]]


def test_a_query_before_the_dialogue_shares_nothing(planner: Callable[..., Planner]) -> None:
    prompt = FilePrompt(QUERY_START + "q\n" + UTT_ID_START + "0")
    examples = [Example(Dialogue("d", ()), "q", prompt=prompt)] * 2
    assert planner(batch_tokens=1).plan(examples) == [[0], [1]]


def test_no_more_queries_than_allowed_share(planner: Callable[..., Planner]) -> None:
    examples = [behind("d", 20)] * (MAX_SHARED_QUERIES + 2)
    assert planner(batch_tokens=1).plan(examples) == [
        list(range(MAX_SHARED_QUERIES)),
        [MAX_SHARED_QUERIES, MAX_SHARED_QUERIES + 1],
    ]


# -- what does not fit --------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_stands_alone_at_the_end(planner: Callable[..., Planner]) -> None:
    """A context of 50 and an answer of 15 leave 35 for the prompt."""
    examples = [alone(36), alone(35), alone(10)]
    assert planner(50, batch_tokens=70).plan(examples) == [[1, 2], [0]]
    with pytest.raises(
        DataError,
        match="dialogue 'd36': its prompt of 36 tokens and an answer of up to 15 exceed the model's 50",
    ):
        planner(50).answer(examples[:1])


def test_one_long_query_does_not_take_its_neighbours_along(
    planner: Callable[..., Planner],
) -> None:
    """85 are left: the dialogue's 50 with a line of 35 fit, with one of 36 they do not."""
    examples = [behind("d", 20), behind("d", 36), behind("d", 35)]
    assert planner(100, batch_tokens=1).plan(examples) == [[0, 2], [1]]


# -- answers ------------------------------------------------------------------------------------------------------------------


def test_answers_say_whether_they_came_to_an_end(planner: Callable[..., Planner]) -> None:
    retriever = planner(with_logprobs=True)
    retriever.written = [
        SimpleNamespace(text="a", logprobs=(-0.5,), token_ids=(1, 7)),
        SimpleNamespace(text="b", logprobs=(-0.25,), token_ids=(7, 1)),
        SimpleNamespace(text="", logprobs=(), token_ids=()),
    ]
    answers = retriever.answer([alone(1), alone(2), alone(3)])
    assert [answer.response for answer in answers] == ["a", "b", ""]
    assert [answer.is_cut_off for answer in answers] == [False, True, True]
    assert [answer.logprobs for answer in answers] == [(-0.5,), (-0.25,), ()]


def test_probabilities_and_thoughts_only_where_they_are_asked_for(
    planner: Callable[..., Planner],
) -> None:
    written = [SimpleNamespace(text="a", logprobs=(-0.5,), token_ids=(7,))]
    for is_constrained, response in ((False, "<think>\na"), (True, "a")):
        retriever = planner(is_constrained=is_constrained)
        retriever.vlm.opened_thought = "<think>\n"  # type: ignore[misc]
        retriever.written = written
        [answer] = retriever.answer([alone(1)])
        assert (answer.response, answer.logprobs) == (response, None)
