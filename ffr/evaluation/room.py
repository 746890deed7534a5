"""Which queries a model has no room for, known at the door of the data before it is asked.

It is `ffr.retrieval.prompt_sizes` that counts, as it does when answers are planned: what is let in
without a word here is asked there.
"""

from __future__ import annotations

from collections.abc import Mapping

from ffr.data.judgement import ModelRules
from ffr.dialogue import Example
from ffr.errors import DataError
from ffr.models.prompts import PromptBuilder
from ffr.models.rules import VlmRules
from ffr.models.vlm import Vlm
from ffr.retrieval.prompt_sizes import PromptSizes
from ffr.retrieval.windows import asked_pieces
from ffr.settings import AnswerConfig


def with_room(rules: ModelRules | None, settings: AnswerConfig) -> ModelRules | None:
    """What a model cannot take to answer, the length of prompts as it will be asked included.

    Args:
        rules: What is known of it without its being asked (`ffr.retrieval.opening.rules_of`).
        settings: How it will be asked.

    Returns:
        The rules as they are where no length is a bound: servers know theirs, encoders cut.
    """
    return AnswerRoom(rules.vlm, settings) if isinstance(rules, VlmRules) else rules


class AnswerRoom:
    """What a vision-language model cannot take to answer: `ffr.data.judgement.RoomRules`.

    Args:
        vlm: The model; it needs no weights.
        settings: How it will be asked.
    """

    def __init__(self, vlm: Vlm, settings: AnswerConfig) -> None:
        builder = PromptBuilder(
            vlm,
            template=settings.template,
            query_position=settings.query_position,
            closes_thought=settings.constrained,
        )
        self._rules = VlmRules(builder, checks_length=False)
        self._sizes = PromptSizes(vlm, builder, max_new_tokens=settings.max_new_tokens)
        self._limit = vlm.max_context
        self._settings = settings

    def picture(self, width: int, height: int) -> str:
        """What keeps the model from taking a picture of this size; empty for nothing."""
        return self._rules.picture(width, height)

    def example(self, example: Example, sizes: Mapping[str, tuple[int, int]]) -> str:
        """What keeps it from taking a whole example; empty for nothing."""
        return self._rules.example(example, sizes)

    def no_room(self, example: Example, sizes: Mapping[str, tuple[int, int]]) -> str:
        """That a prompt, or that of a piece of it, leaves no room for the answer; else empty."""
        if self._limit is None:
            return ""
        settings = self._settings
        try:
            for piece in asked_pieces(
                example, settings.window, settings.overlap, settings.best_windows
            ):
                room = self._limit - settings.max_new_tokens
                # pictures are prepared for counting only where a prompt comes near the limit
                if not self._rules.surely_fits(piece.example, room):
                    self._sizes.of_unit([piece.example])
        except DataError as error:
            # of a cut dialogue the piece is named
            is_whole = error.where == f"dialogue {example.dialogue.id!r}"
            return error.message if is_whole else str(error)
        return ""
