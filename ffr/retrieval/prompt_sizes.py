"""How many tokens prompts put into a model, without tokenising a picture or a dialogue twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ffr.dialogue import Example, FilePrompt
from ffr.errors import DataError
from ffr.prompt import IMAGE_MARK, QUERY_START

if TYPE_CHECKING:
    # a baseline or a server needs no torch
    from ffr.models.prompts import PromptBuilder
    from ffr.models.vlm import Vlm


def query_line(user: str) -> int:
    r"""Where the line of the query begins in a prompt.

    >>> query_line("line 0\n<|query_start|>?")
    7
    """
    return user.rfind("\n", 0, max(0, user.rfind(QUERY_START))) + 1


class PromptSizes:
    """Counts tokens of prompts, and refuses those that the model cannot hold.

    Args:
        vlm: The model.
        builder: Makes prompts of examples.
        max_new_tokens: Longest answer, for which there must be room behind a prompt.
    """

    def __init__(self, vlm: Vlm, builder: PromptBuilder, *, max_new_tokens: int) -> None:
        self._vlm = vlm
        self._builder = builder
        self._max_new_tokens = max_new_tokens
        self._image_tokens: dict[str, int] = {}

    def of_unit(self, examples: Sequence[Example]) -> int:
        """Tokens that queries on one dialogue put into the model together.

        A prompt, and of each further query its line.

        Args:
            examples: At least one; several have one dialogue, which stands before the query.

        Raises:
            DataError: where a picture does not open, or a prompt and its answer exceed the model's
                context.
        """
        whole = self._num_tokens(examples[0])
        lines = (
            [self._num_line_tokens(example) for example in examples] if len(examples) > 1 else [0]
        )
        for example, line in zip(examples, lines, strict=True):
            self._check_length(example, whole + line - lines[0])
        return whole + sum(lines[1:])

    def fitting(self, examples: Sequence[Example]) -> list[int]:
        """Places of those whose pictures open and whose prompts the model can hold.

        Args:
            examples: As for `of_unit`.
        """
        try:
            self.of_unit(examples)
        except DataError:
            if len(examples) == 1:
                return []
            return [place for place, one in enumerate(examples) if self.fitting([one])]
        return list(range(len(examples)))

    def _num_line_tokens(self, example: Example) -> int:
        user = self._builder.prompt(example).user
        return len(
            self._vlm.tokenizer(user[query_line(user) :], add_special_tokens=False).input_ids
        )

    def _num_tokens(self, example: Example) -> int:
        # each picture is opened once, however many queries its dialogue has
        where = f"dialogue {example.dialogue.id!r}"
        prompt = self._builder.prompt(example)
        text = FilePrompt(prompt.user.replace(IMAGE_MARK, ""), prompt.system)
        num_tokens = self._vlm.encode(text, [], where=where).num_tokens
        for location in example.image_locations():
            key = str(location)
            if key not in self._image_tokens:
                empty = self._vlm.encode(FilePrompt("", prompt.system), []).num_tokens
                picture = self._vlm.encode(
                    FilePrompt(IMAGE_MARK, prompt.system), [location], where=where
                )
                self._image_tokens[key] = picture.num_tokens - empty
            num_tokens += self._image_tokens[key]
        return num_tokens

    def _check_length(self, example: Example, num_tokens: int) -> None:
        limit = self._vlm.max_context
        if limit is not None and num_tokens + self._max_new_tokens > limit:
            raise DataError(
                f"its prompt of {num_tokens} tokens and an answer of up to {self._max_new_tokens} "
                f"exceed the model's {limit}; "
                "lower --max-new-tokens, cut long dialogues by --window, or take a model with a "
                "longer context",
                where=f"dialogue {example.dialogue.id!r}",
            )
