"""Examples as a model's input: whose settings hold, what an answer is, and which errors name the dialogue."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ffr.answer import format_answer
from ffr.dialogue import Dialogue, Example, FilePrompt, Fragment, Image, Utterance
from ffr.errors import DataError
from ffr.models.prompts import PromptBuilder
from ffr.prompt import render

CHAT = Dialogue("d", (Utterance("a", ("hello", Image("a.png"))), Utterance("b", ("bye",))))
TRUTH = Fragment((1,))


class Recorder:
    """A model that notes what it is given; what it encodes has so many tokens."""

    def __init__(self, num_tokens: int = 5, **known: Any) -> None:
        self.prompt_settings: dict[str, Any] = known.pop("prompt_settings", {})
        self.max_context: int | None = known.pop("max_context", None)
        self.opened_thought: str = known.pop("opened_thought", "")
        assert not known
        self.num_tokens = num_tokens
        self.given: dict[str, Any] = {}

    def encode(self, prompt: FilePrompt, images: list[Any], **more: Any) -> Any:
        self.given = {"prompt": prompt, "images": images, **more}
        return SimpleNamespace(num_tokens=self.num_tokens)

    def count_answer_tokens(self, text: str) -> int:
        return len(text)


def builder(model: Recorder, **options: Any) -> PromptBuilder:
    vlm: Any = model
    return PromptBuilder(vlm, **options)


def test_what_is_asked_goes_before_the_models_own_before_the_files() -> None:
    own = FilePrompt("as the file has it <image>")
    example = Example(CHAT, "q", prompt=own)
    assert builder(Recorder()).prompt(example) == own
    trained = Recorder(prompt_settings={"template": "en", "query_position": "last"})
    assert builder(trained).prompt(example) == render(
        CHAT, "q", template="en", query_position="last"
    )
    asked = builder(trained, template="zh", query_position="first")
    assert asked.prompt(example) == render(CHAT, "q", template="zh", query_position="first")
    assert asked.prompt_settings == {"template": "zh", "query_position": "first"}
    assert builder(Recorder()).prompt_settings == {}
    thinking = builder(Recorder(prompt_settings={"answer_style": "think"}))
    assert thinking.prompt_settings == {"answer_style": "think"}
    assert builder(trained, answer_style="bare").answer_style == "bare"


def test_an_example_is_encoded_with_its_pictures() -> None:
    model = Recorder()
    example = Example(CHAT, "q", TRUTH, image_root=Path("/pictures"))
    builder(model)(example)
    assert model.given["images"] == [Path("/pictures/a.png")]
    assert model.given["where"] == "dialogue 'd'"
    assert model.given["answer"] is None
    assert model.given["closes_thought"] is False
    builder(model)(example, with_answer=True, where="a.jsonl:3")
    assert model.given["where"] == "a.jsonl:3"
    assert model.given["answer"] == format_answer(TRUTH)


@pytest.mark.parametrize(("with_answer", "closes"), [(False, True), (True, False)])
def test_a_thought_is_closed_where_an_answer_is_asked(with_answer: bool, closes: bool) -> None:
    model = Recorder(opened_thought="<think>\n")
    builder(model, closes_thought=True)(Example(CHAT, "q", TRUTH), with_answer=with_answer)
    assert model.given["closes_thought"] is closes


def test_answers_are_worded_as_the_model_learns_them() -> None:
    example = Example(CHAT, "q", TRUTH)
    bare = format_answer(TRUTH)
    assert builder(Recorder()).answer_text(example) == bare
    assert builder(Recorder()).count_answer_tokens(example) == len(bare)
    thinking = builder(Recorder(), answer_style="think").answer_text(example)
    assert thinking.startswith("<think>")
    assert bare in thinking
    # what the template has opened is not opened again
    opened = builder(Recorder(opened_thought="<think>\n"), answer_style="think").answer_text(
        example
    )
    assert not opened.startswith("<think>")
    assert bare in opened
    with pytest.raises(DataError, match=r"^dialogue 'd': has no true answer to train on"):
        builder(Recorder()).answer_text(Example(CHAT, "q"))
    with pytest.raises(DataError, match=r"^a\.jsonl:3: has no true answer to train on"):
        builder(Recorder())(Example(CHAT, "q"), with_answer=True, where="a.jsonl:3")


def test_an_answer_that_will_be_written_needs_room_in_the_context() -> None:
    """Ten tokens of context, of which an answer may take four; `max_tokens` bounds inputs alone."""
    model = Recorder(max_context=10)
    held = builder(model, max_tokens=8, answer_tokens=4)
    example = Example(CHAT, "q")
    model.num_tokens = 6
    held(example)
    model.num_tokens = 7
    with pytest.raises(DataError, match="7 tokens, which leaves no room for 4 of an answer in the"):
        held(example)
    model.num_tokens = 11
    with pytest.raises(DataError, match="'d' makes 11 tokens, more than the 6 allowed"):
        held(example)
    assert builder(Recorder(), max_tokens=8, answer_tokens=4).max_tokens == 8


@pytest.mark.parametrize(
    ("asked", "context", "limit"),
    [(None, None, None), (6, None, 6), (None, 4, 4), (6, 4, 4), (4, 6, 4)],
)
def test_the_lower_bound_holds(asked: int | None, context: int | None, limit: int | None) -> None:
    model = Recorder(max_context=context)
    built = builder(model, max_tokens=asked)
    assert built.max_tokens == limit
    example = Example(CHAT, "q")
    model.num_tokens = limit or 10**9
    built(example)
    if limit is not None:
        model.num_tokens = limit + 1
        with pytest.raises(
            DataError, match=f"'d' makes {limit + 1} tokens, more than the {limit} allowed; lower"
        ):
            built(example)
