"""What answers queries: the interface, a vision-language model, and the trivial baselines that every result stands beside."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ffr.answer import AnswerGrammar, format_answer
from ffr.dialogue import Example, FilePrompt, Fragment
from ffr.errors import DataError, UsageError
from ffr.prompt import IMAGE_MARK, QUERY_START, UTT_ID_START, QueryPosition, prompt_of

if TYPE_CHECKING:
    from ffr.models.decoding.greedy import Generated
    from ffr.models.shared_prefix import PrefixSharing
    from ffr.models.vlm import Encoded, Vlm

BASELINE_PREFIX = "baseline:"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Args:
        response: The text.
        logprobs: Log-probability of each of its tokens; None where they were not asked for or do not exist.
        is_cut_off: Whether it ended only because it had reached the longest length allowed.
        extra: What else its line of the predictions file says; JSON-ready. Numbers under `usage` are added up in the results.
    """

    response: str
    logprobs: tuple[float, ...] | None = None
    is_cut_off: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


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


@runtime_checkable
class ParallelRetriever(Protocol):
    """A retriever that works on several batches at a time."""

    def answer_as_they_come(self, batches: Iterable[Sequence[Example]]) -> Iterator[tuple[int, list[Answer]]]:
        """The number of a batch and its answers, in the order in which they are ready.

        Batches are taken when there is room for them. One that cannot be answered raises once all that was under way has been handed
        out.
        """
        ...


def answers_of(
    retriever: Retriever, batches: Sequence[Sequence[int]], examples: Sequence[Example]
) -> Generator[tuple[int, list[Answer]], None, None]:
    """The number of each batch and its answers, as they come.

    Args:
        retriever: What answers.
        batches: Indices of the examples that are answered together, as `Retriever.plan` gives them.
        examples: The examples.
    """
    if isinstance(retriever, ParallelRetriever):
        yield from retriever.answer_as_they_come([examples[index] for index in batch] for batch in batches)
        return
    for number, batch in enumerate(batches):
        yield number, retriever.answer([examples[index] for index in batch])


def add_usage(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums of what was used, name by name.

    >>> add_usage([{"prompt_tokens": 7}, {"prompt_tokens": 5, "cost": 0.5}])
    {'prompt_tokens': 12, 'cost': 0.5}
    """
    total: dict[str, Any] = {}
    for usage in usages:
        for name, number in usage.items():
            total[name] = total.get(name, 0) + number
    return total


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


MAX_SHARED_QUERIES = 16
"""How many queries on one dialogue are answered behind one copy of it at most."""


def _query_line(user: str) -> int:
    """Where the line of the query begins in a prompt."""
    return user.rfind("\n", 0, max(0, user.rfind(QUERY_START))) + 1


class VlmRetriever:
    """A vision-language model that reads the whole dialogue and writes the answer, greedily.

    Where the query stands behind the dialogue, the queries on one dialogue are answered together, and the dialogue passes through the
    model once for all of them. That is exact, but for the order of floating-point sums.

    Args:
        vlm: The model; its decoder's attention is set to one that can share prefixes where that is of use.
        name: What tables call it.
        template: Prompt template; None = the model's own setting, else the file's prompt text.
        query_position: Query before or after the dialogue; None likewise.
        is_constrained: Decode within the answer grammar, so that every answer is well-formed.
        max_new_tokens: Longest answer.
        batch_tokens: Prompt tokens answered at once, padding included; a longer prompt goes alone.
        with_logprobs: Whether answers carry the log-probabilities of their tokens.
        is_prefix_shared: False sends the dialogue through the model once for each query.
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
        is_prefix_shared: bool = True,
    ) -> None:
        from ffr.models.prompts import ExampleEncoder

        self.vlm = vlm
        self._name = name
        self._encode = ExampleEncoder(vlm, template=template, query_position=query_position)
        self._is_constrained = is_constrained
        self._max_new_tokens = max_new_tokens
        self._batch_tokens = batch_tokens
        self._with_logprobs = with_logprobs
        self._is_prefix_shared = is_prefix_shared
        self._sharing: PrefixSharing | None = None
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
            # answers are the same but for the last bits of floating-point sums
            **({} if self._is_prefix_shared else {"prefix_shared": False}),
        }

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        """Batches of like length within the token budget, the longest first: what does not fit in memory shows at once.

        Queries that share their dialogue stay together and count for what they put into the model.
        """
        units = self._units(examples)
        sizes = [self._unit_size([examples[index] for index in unit]) for unit in units]
        order = sorted(range(len(units)), key=lambda number: (-sizes[number], units[number]))
        batches: list[list[int]] = []
        longest, num_units = 0, 0
        for number in order:
            # padded to the longest of the batch, which is its first
            if batches and (num_units + 1) * longest <= self._batch_tokens:
                batches[-1] += units[number]
                num_units += 1
            else:
                batches.append(list(units[number]))
                longest, num_units = sizes[number], 1
        return batches

    def _units(self, examples: Sequence[Example]) -> list[list[int]]:
        """Indices that are answered behind one copy of a dialogue; each alone where nothing can be shared."""
        groups: dict[Any, list[int]] = {}
        for index, example in enumerate(examples):
            prompt = self.prompt(example)
            head = prompt.user[: _query_line(prompt.user)] if self._is_prefix_shared else ""
            key: Any = index
            if UTT_ID_START in head:  # the dialogue stands before the query
                content = repr((prompt.system, head, [str(location) for location in example.image_locations()]))
                key = hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()
            groups.setdefault(key, []).append(index)
        if len(groups) == len(examples) or not self._can_share():
            return [[index] for index in range(len(examples))]
        return [
            group[start : start + MAX_SHARED_QUERIES]
            for group in groups.values()
            for start in range(0, len(group), MAX_SHARED_QUERIES)
        ]

    def _can_share(self) -> bool:
        from ffr.models.shared_prefix import PrefixSharing

        if self._sharing is None:
            self._sharing = PrefixSharing(self.vlm)
        return self._sharing.is_active

    def _unit_size(self, examples: Sequence[Example]) -> int:
        """Tokens that a unit puts into the model: a whole prompt, and of each further query its line."""
        whole = self._num_tokens(examples[0])
        lines = [self._num_line_tokens(example) for example in examples] if len(examples) > 1 else [0]
        for example, line in zip(examples, lines, strict=True):
            self._check_length(example, whole + line - lines[0])
        return whole + sum(lines[1:])

    def _num_line_tokens(self, example: Example) -> int:
        user = self.prompt(example).user
        return len(self.vlm.tokenizer(user[_query_line(user) :], add_special_tokens=False).input_ids)

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
        return num_tokens

    def _check_length(self, example: Example, num_tokens: int) -> None:
        limit = self.vlm.max_context
        if limit is not None and num_tokens + self._max_new_tokens > limit:
            raise DataError(
                f"its prompt of {num_tokens} tokens and an answer of up to {self._max_new_tokens} exceed the model's {limit}; "
                "lower --max-new-tokens, cut long dialogues by --window, or take a model with a longer context",
                where=f"dialogue {example.dialogue.id!r}",
            )

    def prompt(self, example: Example) -> FilePrompt:
        return self._encode.prompt(example)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        stops = set(self.vlm.stop_ids)
        return [
            Answer(
                response=item.text,
                logprobs=item.logprobs if self._with_logprobs else None,
                is_cut_off=not item.token_ids or item.token_ids[-1] not in stops,
            )
            for item in self._generate(examples)
        ]

    def _encoded(self, example: Example) -> Encoded:
        prompt = self._encode(example)
        if self.vlm.feature_cache is not None:
            # so that the next query on the dialogue need not open its pictures again
            for image in prompt.images:
                self.vlm.image_features(image)
                image.inputs = None
        return prompt

    def _generate(self, examples: Sequence[Example]) -> list[Generated]:
        from ffr.models.decoding.greedy import generate_answers
        from ffr.models.decoding.grouped import answer_groups, can_share

        prompts = [self._encoded(example) for example in examples]
        grammars = None
        if self._is_constrained:
            grammars = [
                AnswerGrammar(len(example.dialogue.utterances), len(example.dialogue.images)) for example in examples
            ]
        units: list[list[int]] = []
        for unit in self._units(examples):
            # a tokenizer that joins what goes before with the query could leave a picture behind the common part
            is_one = can_share(self.vlm, [prompts[index] for index in unit])
            units += [unit] if is_one else [[index] for index in unit]
        if len(units) == len(examples):
            return generate_answers(self.vlm, prompts, max_new_tokens=self._max_new_tokens, grammars=grammars)
        groups = answer_groups(
            self.vlm,
            [[prompts[index] for index in unit] for unit in units],
            max_new_tokens=self._max_new_tokens,
            grammars=None if grammars is None else [[grammars[index] for index in unit] for unit in units],
        )
        found = dict(zip(itertools.chain(*units), itertools.chain(*groups), strict=True))
        return [found[index] for index in range(len(examples))]
