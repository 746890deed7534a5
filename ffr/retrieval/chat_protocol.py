"""The chat-completions protocol: what a request says, and how an answer is read; who sends it is `api_client`."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ffr.dialogue import FilePrompt
from ffr.errors import DataError
from ffr.images import open_image
from ffr.prompt import IMAGE_MARK
from ffr.retrieval.api_client import MalformedError, error_text
from ffr.retrieval.interface import Answer, token_score
from ffr.text import one_line


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in any one currency."""

    per_million_in: float = 0.0
    per_million_out: float = 0.0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The price of one request.

        >>> Prices(2.5, 10.0).cost(1_000_000, 100_000)
        3.5
        """
        total = prompt_tokens * self.per_million_in + completion_tokens * self.per_million_out
        return round(total / 1_000_000, 12)

    def __bool__(self) -> bool:
        return bool(self.per_million_in or self.per_million_out)


def chat_messages(
    prompt: FilePrompt, picture_urls: Sequence[str], *, where: str | None = None
) -> list[dict[str, Any]]:
    """The messages of a request: the prompt, each picture at its place.

    Args:
        prompt: The prompt; one `<image>` for each picture.
        picture_urls: The pictures, in order, as `data_url` makes them.
        where: The place to name in an error.

    Raises:
        DataError: where the marks and the pictures do not agree.

    >>> chat_messages(FilePrompt("see <image>"), ["data:…"])[0]["content"][1]["type"]
    'image_url'
    """
    texts = prompt.user.split(IMAGE_MARK)
    if len(texts) != len(picture_urls) + 1:
        raise DataError(
            f"the prompt has places for {len(texts) - 1} images but the record has "
            f"{len(picture_urls)}",
            where=where,
        )
    content: Any = prompt.user
    if picture_urls:
        content = []
        for number, text in enumerate(texts):
            if number:
                url = picture_urls[number - 1]
                content.append({"type": "image_url", "image_url": {"url": url}})
            if text:
                content.append({"type": "text", "text": text})
    system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    return [*system, {"role": "user", "content": content}]


def data_url(location: str | Path, max_image_pixels: int, *, where: str | None = None) -> str:
    """A picture as a `data:` address: a photo (JPEG) again as JPEG of quality 95, all else as PNG.

    Args:
        location: Where it lies.
        max_image_pixels: Larger pictures are scaled down.
        where: The place to name in an error.

    Raises:
        DataError: where it cannot be opened.
    """
    picture = open_image(location, max_image_pixels=max_image_pixels, where=where)
    with Path(location).open("rb") as file:
        is_photo = file.read(3) == b"\xff\xd8\xff"
    content = io.BytesIO()
    if is_photo:
        picture.save(content, "JPEG", quality=95, subsampling=0)
    else:
        picture.save(content, "PNG")
    kind = "jpeg" if is_photo else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def read_completion(answer: Any, prices: Prices) -> Answer:
    """The answer in what the server sent, as read from JSON.

    Args:
        answer: What it sent.
        prices: What tokens cost; falsy to leave costs out.

    Raises:
        MalformedError: where it is no chat completion.

    >>> read_completion({"choices": [{"message": {"content": "[3]"}}]}, Prices()).response
    '[3]'
    """
    if isinstance(answer, dict) and "error" in answer and not answer.get("choices"):
        raise MalformedError(
            f"an error in the place of an answer ({one_line(error_text(answer), 300)})"
        )
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"]
        reason = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise MalformedError("JSON that is no chat completion") from None
    text = _text_of(text)
    if text is None:
        raise MalformedError("a chat completion whose content is no text")
    extra: dict[str, Any] = {}
    if isinstance(reason, str) and reason not in ("stop", "length"):
        extra["finish_reason"] = _writable(reason)
    usage = _usage(answer.get("usage"), prices)
    if usage:
        extra["usage"] = usage
    logprobs = _read_logprobs(choice.get("logprobs"))
    if logprobs is not None and not all(map(math.isfinite, logprobs)):
        # no JSON can hold them; a line that says so is better than an answer that is lost
        logprobs, extra["logprobs_left_out"] = None, "not all finite"
    return Answer(
        _writable(text),
        logprobs,
        is_cut_off=reason == "length",
        extra=extra,
        score=token_score(logprobs or ()),
    )


def _usage(usage: Any, prices: Prices) -> dict[str, Any]:
    if not isinstance(usage, dict):
        return {}
    prompt_tokens, completion_tokens = (
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
    )
    if not (_is_count(prompt_tokens) and _is_count(completion_tokens)):
        return {}
    found = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return found | ({"cost": prices.cost(prompt_tokens, completion_tokens)} if prices else {})


def _text_of(content: Any) -> str | None:
    """The text of an answer, which may come in parts; None where it is none.

    >>> _text_of([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), _text_of(5)
    ('ab', None)
    """
    if content is None:
        return ""  # a refusal, or all tokens went into a thought
    if isinstance(content, list):
        parts = [
            part.get("text")
            for part in content
            if isinstance(part, dict) and part.get("type") == "text"
        ]
        texts = [part for part in parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(parts) else None
    return content if isinstance(content, str) else None


def _is_count(value: Any) -> TypeGuard[int]:
    # a larger number is no count of tokens, and no float could hold its price
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _writable(text: str) -> str:
    r"""A text with U+FFFD in the place of half a surrogate pair, which no file can hold.

    >>> _writable("a\ud83d") == "a\ufffd"
    True
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _read_logprobs(value: Any) -> tuple[float, ...] | None:
    try:
        return tuple(float(entry["logprob"]) for entry in value["content"])
    except OverflowError:
        return (-math.inf,)
    except (KeyError, TypeError, ValueError):
        return None
