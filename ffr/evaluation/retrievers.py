"""What answers queries: a vision-language model, or one of the trivial baselines that every result stands beside."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ffr.answer import AnswerGrammar, format_answer
from ffr.dialogue import Example, FilePrompt, Fragment
from ffr.errors import DataError, UsageError
from ffr.prompt import IMAGE_MARK, QueryPosition, prompt_of

if TYPE_CHECKING:
    from ffr.models.vlm import Vlm

BASELINE_PREFIX = "baseline:"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Args:
        response: The text.
        logprobs: Log-probability of each of its tokens; None where they were not asked for or do not exist.
        is_cut_off: Whether it ended only because it had reached the longest length allowed.
    """

    response: str
    logprobs: tuple[float, ...] | None = None
    is_cut_off: bool = False


class Retriever(Protocol):
    """Anything that answers queries on dialogues."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides its answers, JSON-ready; an interrupted evaluation is taken up only where this is the same."""
        ...

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        """Which examples are answered together, in the order of the work; every index once."""
        ...

    def prompt(self, example: Example) -> FilePrompt:
        """The prompt that the example is asked with."""
        ...

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        """Answers the examples of one batch."""
        ...


def _everything(example: Example, seed: int) -> Fragment:
    return Fragment(tuple(range(len(example.dialogue.utterances))), tuple(range(len(example.dialogue.images))))


def _nothing(example: Example, seed: int) -> Fragment:
    return Fragment()


def _random_third(example: Example, seed: int) -> Fragment:
    draw = random.Random(f"{seed} {example.key}")
    num_utterances, num_images = len(example.dialogue.utterances), len(example.dialogue.images)
    return Fragment.of(
        draw.sample(range(num_utterances), round(num_utterances / 3)),
        draw.sample(range(num_images), round(num_images / 3)),
    )


_WORD = re.compile(r"[a-z0-9]+")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")


def overlap_terms(text: str) -> set[str]:
    """What two texts may share: words of Latin letters and digits, and pairs of neighbouring Chinese characters.

    >>> sorted(overlap_terms("Bus 42, 公交车"))
    ['42', 'bus', '交车', '公交']
    """
    lowered = text.lower()
    terms = set(_WORD.findall(lowered))
    for run in _HAN.findall(lowered):
        terms.update(run[start : start + 2] for start in range(max(1, len(run) - 1)))
    return terms


def _overlap(example: Example, seed: int) -> Fragment:
    wanted = overlap_terms(example.query)
    chosen: list[int] = []
    is_chosen = False
    for utterance_id, utterance in enumerate(example.dialogue.utterances):
        # a line without words (a picture alone) goes with the line before it
        if utterance.text.strip():
            is_chosen = not wanted.isdisjoint(overlap_terms(utterance.text))
        if is_chosen:
            chosen.append(utterance_id)
    hosts = example.dialogue.image_utterance_ids
    return Fragment(tuple(chosen), tuple(image_id for image_id, host in enumerate(hosts) if host in set(chosen)))


BASELINES: dict[str, Callable[[Example, int], Fragment]] = {
    "everything": _everything,
    "nothing": _nothing,
    "random-third": _random_third,
    "overlap": _overlap,
}
"""`everything`: all ids. `nothing`: none. `random-third`: a third of the utterances and of the images, drawn by seed and
query. `overlap`: utterances that share a word or a pair of Chinese characters with the query, wordless lines going with the
line before, and the images on them."""


class BaselineRetriever:
    """A trivial baseline by name.

    Args:
        name: One of `BASELINES`.
        seed: Seed of the random one.

    Raises:
        UsageError: where there is no such baseline.

    >>> from ffr.dialogue import Dialogue, Utterance
    >>> chat = Dialogue("d", (Utterance("a", ("the bus is late",)), Utterance("b", ("too bad",))))
    >>> BaselineRetriever("overlap").answer([Example(chat, "bus stop")])[0].response
    '<|utt_ids_start|>[0]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>'
    """

    _BATCH = 256

    def __init__(self, name: str, *, seed: int = 0) -> None:
        if name not in BASELINES:
            raise UsageError(f"no baseline {name!r}; there are {', '.join(BASELINES)}")
        self._baseline = name
        self._seed = seed

    @property
    def name(self) -> str:
        return BASELINE_PREFIX + self._baseline

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "baseline", "name": self._baseline, "seed": self._seed}

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        return [
            list(range(start, min(start + self._BATCH, len(examples))))
            for start in range(0, len(examples), self._BATCH)
        ]

    def prompt(self, example: Example) -> FilePrompt:
        return prompt_of(example)

    def fragment(self, example: Example) -> Fragment:
        """The baseline's choice."""
        return BASELINES[self._baseline](example, self._seed)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        return [Answer(format_answer(self.fragment(example))) for example in examples]


class VlmRetriever:
    """A vision-language model that reads the whole dialogue and writes the answer, greedily.

    Args:
        vlm: The model.
        name: What tables call it.
        template: Prompt template; None = the model's own setting, else the file's prompt text.
        query_position: Query before or after the dialogue; None likewise.
        is_constrained: Decode within the answer grammar, so that every answer is well-formed.
        max_new_tokens: Longest answer.
        batch_tokens: Prompt tokens answered at once, padding included; a longer prompt goes alone.
        with_logprobs: Whether answers carry the log-probabilities of their tokens.
    """

    def __init__(
        self,
        vlm: Vlm,
        *,
        name: str,
        template: str | None = None,
        query_position: QueryPosition | None = None,
        is_constrained: bool = False,
        max_new_tokens: int = 512,
        batch_tokens: int = 16_384,
        with_logprobs: bool = False,
    ) -> None:
        from ffr.models.encode import ExampleEncoder

        self.vlm = vlm
        self._name = name
        self._encode = ExampleEncoder(vlm, template=template, query_position=query_position)
        self._is_constrained = is_constrained
        self._max_new_tokens = max_new_tokens
        self._batch_tokens = batch_tokens
        self._with_logprobs = with_logprobs
        self._image_tokens: dict[str, int] = {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "kind": "vlm",
            "name": self._name,
            "fingerprint": self.vlm.fingerprint,
            "dtype": str(next(self.vlm.parameters()).dtype).removeprefix("torch."),
            "device": self.vlm.device.type,
            "max_image_pixels": self.vlm.max_image_pixels,
            "template": self._encode.template,
            "query_position": self._encode.query_position,
            "answer_style": self._encode.answer_style,
            "constrained": self._is_constrained,
            "max_new_tokens": self._max_new_tokens,
            "batch_tokens": self._batch_tokens,
            "logprobs": self._with_logprobs,
        }

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        """Batches of like length within the token budget, the longest first: what does not fit in memory shows at once."""
        lengths = [self._num_tokens(example) for example in examples]
        order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
        batches: list[list[int]] = []
        for index in order:
            # padded to the longest of the batch, which is its first
            if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= self._batch_tokens:
                batches[-1].append(index)
            else:
                batches.append([index])
        return batches

    def _num_tokens(self, example: Example) -> int:
        # each picture is opened once, however many queries its dialogue has
        where = f"dialogue {example.dialogue.id!r}"
        prompt = self.prompt(example)
        text = FilePrompt(prompt.user.replace(IMAGE_MARK, ""), prompt.system)
        num_tokens = self.vlm.encode(text, [], where=where).num_tokens
        for location in example.image_locations():
            key = str(location)
            if key not in self._image_tokens:
                empty = self.vlm.encode(FilePrompt("", prompt.system), []).num_tokens
                picture = self.vlm.encode(FilePrompt(IMAGE_MARK, prompt.system), [location], where=where)
                self._image_tokens[key] = picture.num_tokens - empty
            num_tokens += self._image_tokens[key]
        limit = self.vlm.max_context
        if limit is not None and num_tokens + self._max_new_tokens > limit:
            raise DataError(
                f"its prompt of {num_tokens} tokens and an answer of up to {self._max_new_tokens} exceed the model's {limit}; "
                "lower --max-new-tokens, or take a model with a longer context",
                where=where,
            )
        return num_tokens

    def prompt(self, example: Example) -> FilePrompt:
        return self._encode.prompt(example)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        from ffr.models.generate import generate_answers

        grammars = None
        if self._is_constrained:
            grammars = [
                AnswerGrammar(len(example.dialogue.utterances), len(example.dialogue.images)) for example in examples
            ]
        generated = generate_answers(
            self.vlm,
            [self._encode(example) for example in examples],
            max_new_tokens=self._max_new_tokens,
            grammars=grammars,
        )
        stops = set(self.vlm.stop_ids)
        return [
            Answer(
                response=item.text,
                logprobs=item.logprobs if self._with_logprobs else None,
                is_cut_off=not item.token_ids or item.token_ids[-1] not in stops,
            )
            for item in generated
        ]
