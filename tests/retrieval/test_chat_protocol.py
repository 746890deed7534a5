"""The chat-completions protocol by hand: what a request holds, and what is read of odd answers."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from ffr.dialogue import FilePrompt
from ffr.errors import DataError
from ffr.retrieval.api_client import MalformedError
from ffr.retrieval.chat_protocol import Prices, chat_messages, data_url, read_completion


def image_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


# -- requests -----------------------------------------------------------------------------------------------------------------


def test_each_picture_stands_at_its_place() -> None:
    assert chat_messages(FilePrompt("<image>a<image><image>b", "be brief"), ["1", "2", "3"]) == [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [
                image_part("1"), text_part("a"), image_part("2"), image_part("3"), text_part("b"),
            ],
        },
    ]  # fmt: skip


def test_words_alone_are_a_text() -> None:
    assert chat_messages(FilePrompt("words"), []) == [{"role": "user", "content": "words"}]
    assert chat_messages(FilePrompt("w", ""), [])[0] == {"role": "system", "content": ""}


@pytest.mark.parametrize(
    ("text", "urls"), [("a<image>b", []), ("ab", ["1"]), ("<image>", ["1", "2"])]
)
def test_marks_and_pictures_must_agree(text: str, urls: list[str]) -> None:
    sentence = (
        f"the prompt has places for {text.count('<image>')} images but the record has {len(urls)}"
    )
    with pytest.raises(DataError, match=f"^dialogue 'd': {sentence}$"):
        chat_messages(FilePrompt(text), urls, where="dialogue 'd'")


def opened(url: str, kind: str) -> PIL.Image.Image:
    beginning = f"data:image/{kind};base64,"
    assert url.startswith(beginning)
    return PIL.Image.open(io.BytesIO(base64.b64decode(url.removeprefix(beginning), validate=True)))


def test_a_photo_stays_a_photo_and_all_else_keeps_its_pixels(tmp_path: Path) -> None:
    """A photo is known by its bytes, whatever its name says."""
    drawing = PIL.Image.new("RGB", (40, 20))
    drawing.putdata([(x * 6, y * 12, 90) for y in range(20) for x in range(40)])
    drawing.save(tmp_path / "a.png")
    drawing.save(tmp_path / "photo.png", "JPEG", quality=90)
    found = opened(data_url(tmp_path / "a.png", 10_000), "png")
    assert (found.format, found.tobytes()) == ("PNG", drawing.tobytes())
    photo = opened(data_url(tmp_path / "photo.png", 10_000), "jpeg")
    assert (photo.format, photo.size) == ("JPEG", (40, 20))
    # 2 would be colours at half the size, which is what JPEG does unasked
    assert photo.layer[0][1:3] == (1, 1)
    assert opened(data_url(tmp_path / "a.png", 200), "png").size == (20, 10)


def test_a_picture_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dialogue 'd'"):
        data_url(tmp_path / "none.png", 100, where="dialogue 'd'")


# -- answers ------------------------------------------------------------------------------------------------------------------


def completion(content: Any = "[3]", **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}, **more}]}


def test_what_an_answer_tells() -> None:
    answer = read_completion(
        {
            **completion(
                finish_reason="length", logprobs={"content": [{"logprob": -1}, {"logprob": -0.5}]}
            ),
            "usage": {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010},
        },
        Prices(2.0, 8.0),
    )
    assert (answer.response, answer.logprobs, answer.is_cut_off) == ("[3]", (-1.0, -0.5), True)
    assert answer.extra == {
        "usage": {"prompt_tokens": 1000, "completion_tokens": 10, "cost": pytest.approx(0.00208)}
    }
    assert answer.failure is None


@pytest.mark.parametrize(
    ("reason", "is_cut_off", "extra"),
    [
        ("stop", False, {}),
        ("length", True, {}),
        ("content_filter", False, {"finish_reason": "content_filter"}),
        (None, False, {}),
        (7, False, {}),
    ],
)
def test_why_an_answer_ended(reason: Any, is_cut_off: bool, extra: dict[str, Any]) -> None:
    answer = read_completion(completion(finish_reason=reason), Prices())
    assert (answer.is_cut_off, answer.extra) == (is_cut_off, extra)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ([], ""),
        ([text_part("a"), {"type": "reasoning", "text": "hm"}, text_part("b")], "ab"),
        ("a\ud83d", "a\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
    ],
)
def test_texts_in_all_their_forms(content: Any, text: str) -> None:
    assert read_completion(completion(content), Prices()).response == text


@pytest.mark.parametrize("content", [5, {"text": "a"}, True, [{"type": "text", "text": 5}]])
def test_a_content_that_is_no_text(content: Any) -> None:
    with pytest.raises(MalformedError, match="a chat completion whose content is no text"):
        read_completion(completion(content), Prices())


@pytest.mark.parametrize(
    "answer",
    [None, [], "x", 5, {}, {"choices": []}, {"choices": [5]}, {"choices": [{"message": None}]},
     {"choices": [{"message": {}}]}, {"choices": {"0": 1}}],
)  # fmt: skip
def test_what_is_no_completion(answer: Any) -> None:
    with pytest.raises(MalformedError, match="JSON that is no chat completion"):
        read_completion(answer, Prices())


def test_an_error_in_the_place_of_an_answer() -> None:
    with pytest.raises(
        MalformedError, match=r"an error in the place of an answer \(no such model\)"
    ):
        read_completion({"error": {"message": "no such model"}}, Prices())
    # beside an answer it is none
    assert read_completion({**completion(), "error": None}, Prices()).response == "[3]"


@pytest.mark.parametrize(
    "usage",
    [
        None, 5, {}, {"prompt_tokens": 5}, {"prompt_tokens": 5, "completion_tokens": -1},
        {"prompt_tokens": True, "completion_tokens": 1}, {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": 2**53, "completion_tokens": 1},
    ],
)  # fmt: skip
def test_odd_counts_are_no_counts(usage: Any) -> None:
    assert "usage" not in read_completion({**completion(), "usage": usage}, Prices(1, 1)).extra


def test_a_price_stands_only_where_there_are_prices() -> None:
    answer = {**completion(), "usage": {"prompt_tokens": 4, "completion_tokens": 2}}
    assert read_completion(answer, Prices()).extra["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 2,
    }
    assert read_completion(answer, Prices(0, 1e6)).extra["usage"]["cost"] == 2
    assert not Prices()
    assert Prices(per_million_in=0.1)
    # a sum of floats is cut to what it means
    assert Prices(0.1, 0.2).cost(1, 1) == 0.0000003


@pytest.mark.parametrize(
    "logprobs", [None, 5, {}, {"content": None}, {"content": [{}]}, {"content": [5]}]
)
def test_odd_probabilities_are_none(logprobs: Any) -> None:
    answer = read_completion(completion(logprobs=logprobs), Prices())
    assert (answer.logprobs, answer.extra) == (None, {})


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**400])
def test_probabilities_that_no_file_can_hold_are_left_out_and_told(value: float) -> None:
    content = [{"logprob": -0.5}, {"logprob": value}]
    answer = read_completion(completion(logprobs={"content": content}), Prices())
    assert (answer.logprobs, answer.extra) == (None, {"logprobs_left_out": "not all finite"})
