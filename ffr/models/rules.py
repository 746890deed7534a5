"""What a model cannot take: pictures of some shapes, inputs beyond a length.

It is known from the model's files without its weights, and the door of the data asks it, so that no
run dies in its middle of a record that it could not have used.
"""

from __future__ import annotations

from collections.abc import Mapping

from ffr.dialogue import Example, FilePrompt
from ffr.models.prompts import PromptBuilder
from ffr.models.vlm import Vlm
from ffr.prompt import IMAGE_MARK

PLAIN_RATIO = 20
"""Sides of a picture within this ratio are taken by every model; the odd ones are tried."""
_SIDE_SHAPES = ((1, 1), (2, 1), (1, 2), (4, 1), (1, 4), (10, 1), (1, 10))
_MARGIN = 1.25
"""How many times the tokens of the costliest of these shapes a picture may need, rounded up."""


class VlmRules:
    """What a vision-language model cannot take.

    Args:
        builder: Builds its prompts; its model needs no weights
            (`ffr.models.loading.load_skeleton`).
        with_answer: Whether the true answer follows the prompt, as in training.
        checks_length: Whether an input that is too long is a fault of the data.
    """

    def __init__(
        self, builder: PromptBuilder, *, with_answer: bool = False, checks_length: bool = True
    ) -> None:
        self._builder = builder
        self._with_answer = with_answer
        self._limit = builder.max_tokens if checks_length else None
        self._most: int | None = None

    @property
    def vlm(self) -> Vlm:
        """The model, which may have no weights."""
        return self._builder.vlm

    def picture(self, width: int, height: int) -> str:
        """What keeps the model from taking a picture of this size; empty for nothing.

        In the words that follow the picture's name in an error.
        """
        if max(width, height) <= PLAIN_RATIO * min(width, height):
            return ""
        reason = self._builder.vlm.tower.refusal(width, height)
        if not reason:
            return ""
        strip = f"is a strip of {width}×{height} pixels"
        return f"{strip}, which the model cannot take ({reason}); cut it to a wider one"

    def example(self, example: Example, sizes: Mapping[str, tuple[int, int]]) -> str:
        """What keeps the model from taking a whole example; empty for nothing.

        Args:
            example: The example; its pictures are sound.
            sizes: Width and height of its pictures, by source.
        """
        if self._limit is None:
            return ""
        prompt = self._builder.prompt(example)
        answer = (
            self._builder.answer_text(example)
            if self._with_answer and example.fragment is not None
            else None
        )
        if self._surely_fits(prompt, answer, len(example.dialogue.images), self._limit):
            return ""
        vlm, images = self._builder.vlm, example.dialogue.images
        text = FilePrompt(prompt.user.replace(IMAGE_MARK, ""), prompt.system)
        num_tokens = vlm.encode(text, [], answer=answer).num_tokens
        num_tokens += sum(
            vlm.tower.num_tokens(*sizes[image.source], is_among_several=len(images) > 1)
            for image in images
        )
        return "" if num_tokens <= self._limit else self._builder.too_long(example, num_tokens)

    def surely_fits(self, example: Example, num_tokens: int) -> bool:
        """Whether the prompt of an example has at most so many tokens, seen without counting them.

        Args:
            example: The example.
            num_tokens: The most that its prompt may have.
        """
        prompt = self._builder.prompt(example)
        return self._surely_fits(prompt, None, len(example.dialogue.images), num_tokens)

    def _surely_fits(
        self, prompt: FilePrompt, answer: str | None, num_images: int, num_tokens: int
    ) -> bool:
        # no token is shorter than a byte; the chat template adds some, which the first count shows
        num_bytes = sum(
            len(text.encode("utf-8", "surrogatepass"))
            for text in (prompt.user, prompt.system, answer)
            if text
        )
        return (
            num_bytes + 256 + num_images * (self._most_tokens() if num_images else 0) <= num_tokens
        )

    def _most_tokens(self) -> int:
        """Tokens that a picture of any shape takes at most, by far."""
        if self._most is None:
            tower = self._builder.vlm.tower
            side = tower.max_image_pixels**0.5
            sizes = [(max(1, int(side * w)), max(1, int(side * h))) for w, h in _SIDE_SHAPES]
            counts = [
                tower.num_tokens(*size, is_among_several=several)
                for size in sizes
                for several in (False, True)
            ]
            self._most = round(max(counts) * _MARGIN)
        return self._most
