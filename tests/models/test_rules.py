"""What a model cannot take, counted by hand: a token is a byte, a picture a token for every 100 pixels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ffr.dialogue import Dialogue, Example, FilePrompt, Fragment, Image, Utterance
from ffr.models.rules import VlmRules


class Tower:
    """Counts what it is asked; a picture among several costs one token more."""

    max_image_pixels = 10_000

    def __init__(self) -> None:
        self.num_asked = 0

    def refusal(self, width: int, height: int) -> str:
        return "no patch fits" if min(width, height) < 2 else ""

    def num_tokens(self, width: int, height: int, *, is_among_several: bool) -> int:
        self.num_asked += 1
        return min(width * height, self.max_image_pixels) // 100 + is_among_several


class Builder:
    """Prompts that say what they are given."""

    def __init__(self, max_tokens: int | None) -> None:
        self.max_tokens = max_tokens
        self.num_encoded = 0
        self.vlm = SimpleNamespace(tower=Tower(), encode=self._encode)

    def _encode(self, prompt: FilePrompt, images: list[Any], *, answer: str | None) -> Any:
        assert "<image>" not in prompt.user
        assert images == []
        self.num_encoded += 1
        words = prompt.user + (prompt.system or "") + (answer or "")
        # the chat template adds ten
        return SimpleNamespace(num_tokens=len(words.encode()) + 10)

    def prompt(self, example: Example) -> FilePrompt:
        assert example.prompt is not None
        return example.prompt

    def answer_text(self, example: Example) -> str:
        assert example.fragment is not None
        return "answer" * 10

    def too_long(self, example: Example, num_tokens: int) -> str:
        return f"{num_tokens} of {self.max_tokens}"


def rules(max_tokens: int | None, **options: Any) -> tuple[VlmRules, Builder]:
    builder: Any = Builder(max_tokens)
    return VlmRules(builder, **options), builder


def example(num_chars: int, *images: str, fragment: Fragment | None = None) -> Example:
    chat = Dialogue("d", tuple(Utterance("a", (Image(name),)) for name in images))
    prompt = FilePrompt("x" * num_chars + "<image>" * len(images))
    return Example(chat, "q", fragment, prompt=prompt)


# -- pictures -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(20, 1), (1, 20), (1, 1)])
def test_plain_shapes_are_taken_unasked(size: tuple[int, int]) -> None:
    assert rules(None)[0].picture(*size) == ""


def test_strips_are_tried() -> None:
    assert rules(None)[0].picture(41, 2) == ""
    assert rules(None)[0].picture(1, 21) == (
        "is a strip of 1×21 pixels, which the model cannot take (no patch fits); cut it to a wider one"
    )


# -- lengths ------------------------------------------------------------------------------------------------------------------


def test_an_input_is_too_long_by_what_it_really_takes() -> None:
    """90 bytes and ten of the template make 100."""
    for limit, expected in ((100, ""), (99, "100 of 99")):
        held, builder = rules(limit)
        assert held.example(example(90), {}) == expected
        assert builder.num_encoded == 1


def test_what_is_short_by_far_is_not_counted() -> None:
    held, builder = rules(90 + 256)
    assert held.example(example(90), {}) == ""
    assert builder.num_encoded == 0
    assert held.example(example(91), {}) == ""
    assert builder.num_encoded == 1


def test_bytes_count_not_characters() -> None:
    held, builder = rules(99)
    chat = Example(Dialogue("d", ()), "q", prompt=FilePrompt("猫" * 30, None))
    assert held.example(chat, {}) == "100 of 99"
    assert builder.num_encoded == 1


def test_pictures_count_by_their_sizes_and_what_they_add_to_each_other() -> None:
    """Ten of words and ten of the template; 50 and 20 of the pictures, and one more each as there are two."""
    sizes = {"a.png": (100, 50), "b.png": (50, 40)}
    two = example(10, "a.png", "b.png")
    assert rules(92)[0].example(two, sizes) == ""
    assert rules(91)[0].example(two, sizes) == "92 of 91"
    one = example(10, "a.png")
    assert rules(70)[0].example(one, sizes) == ""
    assert rules(69)[0].example(one, sizes) == "70 of 69"


def test_pictures_that_cannot_be_too_much_are_not_counted_one_by_one() -> None:
    """The costliest shape takes 101 tokens of 10,000 pixels; a quarter more is 126."""
    held, builder = rules(10 + 7 + 256 + 126)
    one = example(10, "a.png")
    assert held.example(one, {"a.png": (100, 100)}) == ""
    num_asked = builder.vlm.tower.num_asked
    assert held.example(one, {"a.png": (100, 100)}) == ""
    assert (builder.num_encoded, builder.vlm.tower.num_asked) == (0, num_asked)


def test_a_true_answer_counts_in_training_alone() -> None:
    """60 bytes of the answer behind 90 and ten."""
    told = example(90, fragment=Fragment((0,)))
    assert rules(159, with_answer=True)[0].example(told, {}) == "160 of 159"
    assert rules(160, with_answer=True)[0].example(told, {}) == ""
    assert rules(100)[0].example(told, {}) == ""
    assert rules(100, with_answer=True)[0].example(example(90), {}) == "", "it has none"


def test_lengths_may_be_left_to_the_plan() -> None:
    for held, builder in (rules(1, checks_length=False), rules(None)):
        assert held.example(example(9_000), {}) == ""
        assert builder.num_encoded == 0
