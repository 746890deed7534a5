"""A model's chat template at work: prompts as text around images, and how a turn ends."""

from __future__ import annotations

import hashlib
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ffr.answer import format_answer
from ffr.dialogue import FilePrompt, Fragment
from ffr.errors import ModelError
from ffr.models.rendering import RenderingError, render
from ffr.prompt import IMAGE_MARK
from ffr.text import one_line
from ffr.thoughts import closed_thought, opened_thought


def template_of(processor: Any, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The text of a model's chat template; the processor's goes before the tokenizer's."""
    found = getattr(processor, "chat_template", None) or tokenizer.chat_template
    return None if found is None else str(found)


def preparation_digests(vlm: Any) -> dict[str, str]:
    """SHA-256 of what decides a model's answers besides its weights and the prompt.

    Args:
        vlm: The model (`ffr.models.Vlm`).

    Returns:
        `chat_template_sha`, of the template's text; `preparation`, of the template, the tokenizer
        and how pictures are prepared.
    """
    template = template_of(vlm.processor, vlm.tokenizer) or ""
    words = vlm.tokenizer.backend_tokenizer.to_str().encode("utf-8", "surrogatepass")
    whole = hashlib.sha256(f"{template}\0{vlm.tower.fingerprint}\0".encode())
    whole.update(words)
    return {
        "chat_template_sha": hashlib.sha256(template.encode()).hexdigest(),
        "preparation": whole.hexdigest(),
    }


class ChatTemplate:
    """The chat template of a model, with what has to be known of it found out on making.

    Args:
        tokenizer: The model's tokenizer, which renders the template.
        processor: Its processor; its template goes before the tokenizer's.
        name: What the user called the model.

    Raises:
        ModelError: where the tokenizer cannot write an answer, or the template cannot be used,
            leaves out what the user says, or does not close a turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, processor: Any, *, name: str) -> None:
        self._tokenizer = tokenizer
        self._processor = processor
        self._name = name
        self._check_tokenizer()
        self.turn_end = self._find_turn_end()
        """The id that closes the assistant's turn, as a list of one."""
        self._keeps_image_places = self._finds_image_places_kept()
        self.opened_thought = self._find_opened_thought()
        """The end of every prompt, from the tag of a thought that the template leaves open.

        Else empty.
        """

    @property
    def image_token(self) -> str:
        """The text that stands for an image in a rendered prompt."""
        return str(self._processor.image_token)

    def pieces(self, prompt: FilePrompt) -> list[str]:
        """The rendered prompt, up to where the answer begins, cut where its images stand.

        Args:
            prompt: The prompt; one `<image>` for each image.
        """
        parts: list[dict[str, str]] = []
        if self._keeps_image_places:
            for number, text in enumerate(prompt.user.split(IMAGE_MARK)):
                if number:
                    parts.append({"type": "image"})
                if text:
                    parts.append({"type": "text", "text": text})
        else:
            # as text the image token stays where it is
            text = prompt.user.replace(IMAGE_MARK, self.image_token)
            parts.append({"type": "text", "text": text})
        messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]
        if prompt.system is not None:
            system = [{"type": "text", "text": prompt.system}]
            messages.insert(0, {"role": "system", "content": system})
        return self._render(messages, ask=True).split(self.image_token)

    def prompt_ids(self, text: str) -> list[int]:
        """A rendered prompt's ids, as the processor's `apply_chat_template` has them.

        What the tokenizer puts before every text (a begin token) stands first, but not a second
        time where the template has written it.

        Args:
            text: The rendered prompt, image tokens included.
        """
        begin = self._tokenizer.bos_token
        is_begun = begin is not None and text.startswith(begin)
        ids: list[int] = self._tokenizer(text, add_special_tokens=not is_begun).input_ids
        return ids

    def answer_ids(self, answer: str) -> list[int]:
        """An answer's ids with the end of its turn.

        Args:
            answer: The answer's text; tokenised by itself, whatever prompt stands before it.
        """
        return self._ids(answer) + self.turn_end

    def closed_thought_ids(self) -> list[int]:
        """What closes the thought that every prompt opens; empty where none is opened."""
        return self._ids(closed_thought(self.opened_thought)) if self.opened_thought else []

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def _check_tokenizer(self) -> None:
        """Refuses a tokenizer that loses text.

        One whose files are missing comes up empty, unsaid.
        """
        text = format_answer(Fragment((0, 12), (3,)))
        if self._tokenizer.decode(self._ids(text), clean_up_tokenization_spaces=False) != text:
            raise ModelError(
                "its tokenizer cannot write the answer format; restore its tokenizer files",
                self._name,
            )

    def _find_turn_end(self) -> list[int]:
        """The id that closes the assistant's turn, without white space after it."""
        answer = "answer-0"
        text = self._render(
            [
                {"role": "user", "content": [{"type": "text", "text": "?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            ],
            ask=False,
        )
        end = text.rpartition(answer)[2].strip() if answer in text else ""
        ids = self._ids(end) if end else []
        if not ids and self._tokenizer.eos_token_id is not None:
            ids = [self._tokenizer.eos_token_id]
        if not ids:
            raise ModelError(
                "its chat template does not close a turn and its tokenizer has no end token",
                self._name,
            )
        return ids[:1]

    def _find_opened_thought(self) -> str:
        messages = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
        said = self._render(messages, ask=False)
        # rules of a template's own may name the tags before
        return opened_thought(self._render(messages, ask=True).removeprefix(said))

    def _finds_image_places_kept(self) -> bool:
        """Whether the template writes an image where it stands (LLaVA-OneVision's: all first)."""
        first, last = "text-0", "text-1"
        content = [
            {"type": "text", "text": first},
            {"type": "image"},
            {"type": "text", "text": last},
        ]
        text = self._render([{"role": "user", "content": content}], ask=True)
        if first not in text or last not in text:
            raise ModelError(
                "its chat template leaves out what the user says; restore chat_template.jinja",
                self._name,
            )
        return text.index(first) < text.find(self.image_token) < text.index(last)

    def _render(self, messages: list[dict[str, Any]], *, ask: bool) -> str:
        try:
            template = getattr(self._processor, "chat_template", None)
            # the processor's template with the tokenizer's tokens: some processors look for videos
            # while they render
            template = self._tokenizer.get_chat_template(template)
            return render(template, messages, self._tokenizer.special_tokens_map, ask=ask)
        except (ValueError, AttributeError, TypeError, TemplateError, RenderingError) as error:
            reason = one_line(error)
            raise ModelError(f"its chat template cannot be used ({reason})", self._name) from None
