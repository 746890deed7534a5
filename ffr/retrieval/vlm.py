"""A vision-language model as a retriever: it writes answers; queries on a dialogue share a pass."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ffr.answer import AnswerGrammar
from ffr.dialogue import Example, FilePrompt
from ffr.prompt import MAX_SHARED_QUERIES, UTT_ID_START, QueryPosition
from ffr.retrieval.interface import Answer, token_score
from ffr.retrieval.prompt_sizes import PromptSizes, query_line

if TYPE_CHECKING:
    # a baseline or a server needs no torch
    from ffr.models.decoding.loop import Generated
    from ffr.models.rows import Encoded
    from ffr.models.shared_prefix import PrefixSharing
    from ffr.models.vlm import Vlm


class VlmRetriever:
    """A vision-language model that reads the whole dialogue and writes the answer, greedily.

    Where the query stands behind the dialogue, the queries on one dialogue are answered together,
    and the dialogue passes through the model once for all of them. That is exact, but for the order
    of floating-point sums. The score of an answer is the geometric mean of its tokens'
    probabilities, under the model's own distribution.

    Args:
        vlm: The model; its decoder's attention is set to one that can share prefixes where that is
            of use.
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
        from ffr.models.prompts import PromptBuilder

        self.vlm = vlm
        self._name = name
        # an answer of the grammar has no place for a thought, so the prompt closes one that it
        # opens
        self._encode = PromptBuilder(
            vlm, template=template, query_position=query_position, closes_thought=is_constrained
        )
        self._is_constrained = is_constrained
        self._max_new_tokens = max_new_tokens
        self._batch_tokens = batch_tokens
        self._with_logprobs = with_logprobs
        self._is_prefix_shared = is_prefix_shared
        self._sharing: PrefixSharing | None = None
        self._sizes = PromptSizes(vlm, self._encode, max_new_tokens=max_new_tokens)

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> dict[str, Any]:
        from ffr.models.chat import preparation_digests

        return {
            "kind": "vlm",
            "name": self._name,
            "fingerprint": self.vlm.fingerprint,
            **preparation_digests(self.vlm),
            "dtype": str(next(self.vlm.parameters()).dtype).removeprefix("torch."),
            "device": self.vlm.device.type,
            "max_image_pixels": self.vlm.tower.max_image_pixels,
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
        """Batches of like length within the token budget.

        The longest first shows what does not fit.

        Queries that share their dialogue stay together and count for what they put into the model.
        One that cannot be answered stands alone, at the end.
        """
        units: list[list[int]] = []
        sizes: list[int] = []
        unanswerable: list[list[int]] = []
        for unit in self._units(examples):
            good = [unit[place] for place in self._sizes.fitting([examples[i] for i in unit])]
            unanswerable += [[index] for index in unit if index not in good]
            if good:
                units.append(good)
                sizes.append(self._sizes.of_unit([examples[index] for index in good]))
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
        return batches + unanswerable

    def _units(self, examples: Sequence[Example]) -> list[list[int]]:
        """Indices answered behind one copy of a dialogue.

        Each alone where nothing can be shared.
        """
        groups: dict[Any, list[int]] = {}
        for index, example in enumerate(examples):
            prompt = self.prompt(example)
            head = prompt.user[: query_line(prompt.user)] if self._is_prefix_shared else ""
            key: Any = index
            if UTT_ID_START in head:  # the dialogue stands before the query
                content = repr(
                    (prompt.system, head, [str(location) for location in example.image_locations()])
                )
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

    def prompt(self, example: Example) -> FilePrompt:
        return self._encode.prompt(example)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        if len(examples) == 1:
            # what the plan left alone is refused here, in a sentence
            self._sizes.of_unit(examples)
        stops = set(self.vlm.stop_ids)
        # a response that begins within a thought would not show it to who reads it
        begun = "" if self._is_constrained else self.vlm.opened_thought
        return [
            Answer(
                response=begun + item.text,
                logprobs=item.logprobs if self._with_logprobs else None,
                is_cut_off=not item.token_ids or item.token_ids[-1] not in stops,
                score=token_score(item.logprobs),
            )
            for item in self._generate(examples)
        ]

    def _encoded(self, example: Example) -> Encoded:
        prompt = self._encode(example)
        if self.vlm.tower.cache is not None:
            # so that the next query on the dialogue need not open its pictures again
            for image in prompt.images:
                self.vlm.tower.features(image)
                image.inputs = None
        return prompt

    def _generate(self, examples: Sequence[Example]) -> list[Generated]:
        from ffr.models.decoding.greedy import answer_neighbours, generate_answers
        from ffr.models.packing import shared_beginning

        prompts = [self._encoded(example) for example in examples]
        grammars = None
        if self._is_constrained:
            grammars = [
                AnswerGrammar(len(example.dialogue.utterances), len(example.dialogue.images))
                for example in examples
            ]
        units: list[list[int]] = []
        for unit in self._units(examples):
            # a tokenizer that joins what goes before with the query could leave a picture behind
            # the common part
            length = shared_beginning([prompts[index] for index in unit], self.vlm.placeholder_ids)
            units += [unit] if length is not None else [[index] for index in unit]
        if len(units) == len(examples):
            return generate_answers(
                self.vlm, prompts, max_new_tokens=self._max_new_tokens, grammars=grammars
            )
        parts = answer_neighbours(
            self.vlm,
            [[prompts[index] for index in unit] for unit in units],
            max_new_tokens=self._max_new_tokens,
            grammars=None
            if grammars is None
            else [[grammars[index] for index in unit] for unit in units],
        )
        found = dict(zip(itertools.chain(*units), itertools.chain(*parts), strict=True))
        return [found[index] for index in range(len(examples))]
