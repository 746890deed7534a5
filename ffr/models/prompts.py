"""Example → the model's input: prompt, pictures, answer; errors name the dialogue."""

from __future__ import annotations

from ffr.answer import AnswerStyle, format_answer, wrap_answer
from ffr.dialogue import Example, FilePrompt
from ffr.errors import DataError
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm
from ffr.prompt import QueryPosition, prompt_of
from ffr.text import counted


class PromptBuilder:
    """Encodes examples for one model, each the same way in training, validation and evaluation.

    Args:
        vlm: The model.
        template: Prompt template; None = the model's own setting, else the file's prompt text.
        query_position: Query before or after the dialogue; None likewise.
        max_tokens: A longer input is an error; None = the model's own context.
        answer_tokens: What an answer that is still to be written may take of that context.
        answer_style: `think` asks for a thought before the answer; None = the model's own setting,
            else `bare`.
        closes_thought: Whether a prompt to be answered closes the thought that the model's template
            opens.
    """

    def __init__(
        self,
        vlm: Vlm,
        *,
        template: str | None = None,
        query_position: QueryPosition | None = None,
        max_tokens: int | None = None,
        answer_tokens: int = 0,
        answer_style: AnswerStyle | None = None,
        closes_thought: bool = False,
    ) -> None:
        self.vlm = vlm
        self.template: str | None = template or vlm.prompt_settings.get("template")
        self.query_position: QueryPosition | None = query_position or vlm.prompt_settings.get(
            "query_position"
        )
        self.answer_style: AnswerStyle = (
            answer_style or vlm.prompt_settings.get("answer_style") or "bare"
        )
        self.closes_thought = closes_thought
        self._answer_tokens = answer_tokens
        room = None if vlm.max_context is None else vlm.max_context - answer_tokens
        limits = [limit for limit in (max_tokens, room) if limit is not None]
        self.max_tokens = min(limits) if limits else None

    @property
    def prompt_settings(self) -> dict[str, str]:
        """What `ffr.json` notes of a model trained on these inputs."""
        settings = {"template": self.template, "query_position": self.query_position}
        if self.answer_style != "bare":
            settings["answer_style"] = self.answer_style
        return {name: value for name, value in settings.items() if value is not None}

    def prompt(self, example: Example) -> FilePrompt:
        """The prompt that an example is asked with."""
        return prompt_of(
            example,
            template=self.template,
            query_position=self.query_position,
            answer_style=self.answer_style,
        )

    def opened_prompt(self, example: Example) -> str:
        """The words that an example is asked with, and what the template opens of the answer."""
        return self.prompt(example).user + self.vlm.opened_thought

    def __call__(
        self, example: Example, *, with_answer: bool = False, where: str | None = None
    ) -> Encoded:
        """Encodes one example.

        Args:
            example: The dialogue and the query.
            with_answer: Whether the true answer follows the prompt, as training needs it.
            where: The place to name in an error; None = the dialogue's id.

        Raises:
            DataError: where a picture cannot be opened, the answer is missing, or the input is too
                long.
        """
        place = where or f"dialogue {example.dialogue.id!r}"
        answer = self._answer(example, place) if with_answer else None
        encoded = self.vlm.encode(
            self.prompt(example),
            list(example.image_locations()),
            answer=answer,
            closes_thought=self.closes_thought and answer is None,
            where=place,
        )
        if self.max_tokens is not None and encoded.num_tokens > self.max_tokens:
            raise DataError(self.too_long(example, encoded.num_tokens), where=where)
        return encoded

    def too_long(self, example: Example, num_tokens: int) -> str:
        """The sentence that refuses an example of so many tokens."""
        context = self.vlm.max_context
        if context is not None and num_tokens <= context < num_tokens + self._answer_tokens:
            return (
                f"dialogue {example.dialogue.id!r} makes {counted(num_tokens, 'token')}, which "
                f"leaves no room for {self._answer_tokens} of an answer in the model's context of "
                f"{context}; lower max_new_tokens or max_image_pixels"
            )
        return (
            f"dialogue {example.dialogue.id!r} makes {counted(num_tokens, 'token')}, more than the "
            f"{self.max_tokens} allowed; "
            "lower max_image_pixels or raise max_tokens within the model's context"
        )

    def count_answer_tokens(self, example: Example) -> int:
        """Number of ids of an example's true answer with the end of its turn."""
        return self.vlm.count_answer_tokens(self.answer_text(example))

    def answer_text(self, example: Example) -> str:
        """The text of an example's true answer, as the model learns to write it.

        Raises:
            DataError: where it has none.
        """
        return self._answer(example, f"dialogue {example.dialogue.id!r}")

    def _answer(self, example: Example, place: str) -> str:
        if example.fragment is None:
            raise DataError(
                "has no true answer to train on; leave it out or add `solution`", where=place
            )
        answer = format_answer(example.fragment)
        return wrap_answer(answer, self.answer_style, opened=self.vlm.opened_thought)
