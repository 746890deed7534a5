"""Which queries a model has no room for: what is said at the door is what the plan would say."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from ffr.dialogue import Dialogue, Example, Image, Utterance
from ffr.evaluation.room import AnswerRoom, with_room
from ffr.models.loading import load_skeleton
from ffr.models.prompts import PromptBuilder
from ffr.models.rules import VlmRules
from ffr.models.vlm import Vlm
from ffr.prompt import IMAGE_MARK
from ffr.retrieval.rules import ServerRules
from ffr.settings import AnswerConfig


@pytest.fixture(scope="module")
def vlm() -> Vlm:
    return load_skeleton("tiny")


def chat(*texts: str) -> Example:
    return Example(Dialogue("d", tuple(Utterance("a", (text,)) for text in texts)), "q")


def num_tokens(vlm: Vlm, example: Example) -> int:
    """Tokens of a prompt by the encoder itself, pictures in it."""
    return PromptBuilder(vlm, template="en")(example).num_tokens


def test_prompt_and_answer_share_the_context_to_the_token(vlm: Vlm) -> None:
    example = chat("ab " * 1000)
    size = num_tokens(vlm, example)
    for more, fault in (
        (0, ""),
        (
            1,
            f"its prompt of {size} tokens and an answer of up to {8192 - size + 1} exceed the "
            "model's 8192; lower --max-new-tokens, cut long dialogues by --window, or take a "
            "model with a longer context",
        ),
    ):
        settings = AnswerConfig(template="en", max_new_tokens=8192 - size + more)
        assert AnswerRoom(vlm, settings).no_room(example, {}) == fault


def test_pictures_take_room_as_the_model_counts_them(vlm: Vlm, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (112, 56), "red").save(tmp_path / "a.png")
    lines = (Utterance("a", ("hi",)), Utterance("b", (Image("a.png"),)))
    example = Example(Dialogue("d", lines), "q", image_root=tmp_path)
    size = num_tokens(vlm, example)
    assert size > num_tokens(vlm, chat("hi", IMAGE_MARK.strip("<>")))
    for more, fits in ((0, True), (1, False)):
        settings = AnswerConfig(template="en", max_new_tokens=8192 - size + more)
        fault = AnswerRoom(vlm, settings).no_room(example, {"a.png": (112, 56)})
        assert (fault == "") is fits


def test_a_dialogue_that_is_cut_needs_room_for_its_pieces_alone(vlm: Vlm) -> None:
    example = chat("ab " * 600, "ab " * 600, "ab " * 5000)
    settings = {"template": "en", "max_new_tokens": 4000}
    assert "its prompt of " in AnswerRoom(vlm, AnswerConfig(**settings)).no_room(example, {})
    by_one = AnswerConfig(**settings, window=1)
    fault = AnswerRoom(vlm, by_one).no_room(example, {})
    assert fault.startswith("dialogue 'd, utterances 2-2': its prompt of ")
    assert AnswerRoom(vlm, by_one).no_room(chat("ab " * 600, "ab " * 600), {}) == ""


def test_only_models_with_a_known_context_are_bound(vlm: Vlm) -> None:
    server = ServerRules()
    assert with_room(server, AnswerConfig()) is server
    assert with_room(None, AnswerConfig()) is None
    rules = with_room(VlmRules(PromptBuilder(vlm)), AnswerConfig())
    assert isinstance(rules, AnswerRoom)
    assert rules.picture(4, 1000) == VlmRules(PromptBuilder(vlm)).picture(4, 1000) != ""
