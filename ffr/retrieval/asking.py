"""A model to be asked from Python: `ffr.load_model(NAME).retrieve(dialogue, query)`.

The same retrievers that `ffr eval` measures, opened by the same names and settings.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from ffr.answer import read_response
from ffr.chats.chat import Chat
from ffr.chats.dialogues import dialogue_of_chat
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.errors import DataError, UsageError
from ffr.progress import Progress
from ffr.retrieval.fitting import AskedData
from ffr.retrieval.interface import Answer, Retriever, answers_of
from ffr.retrieval.opening import (
    ModelChoice,
    OpenModel,
    choose_model,
    open_model,
    rules_of,
)
from ffr.settings import AnswerConfig, without_effect
from ffr.text import described, one_line

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RetrievedFragment(Fragment):
    """What a model found: a fragment that knows its dialogue. It equals the fragment of its ids.

    Ids that the dialogue does not have are left out and named in `problems`.

    Args:
        utterance_ids: As in `Fragment`.
        image_ids: As in `Fragment`.
        example: Dialogue and query.
        score: How sure the model is, from 0 to 1, comparable among answers of one model alone:
            docs/python.md says what it is for each kind of model. None where it is not known.
        response: The answer as the model wrote it.
        problems: What was wrong with it.
    """

    example: Example | None = field(default=None, repr=False)
    score: float | None = None
    response: str = field(default="", repr=False)
    problems: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fragment):
            return NotImplemented
        return (self.utterance_ids, self.image_ids) == (other.utterance_ids, other.image_ids)

    def __hash__(self) -> int:
        return hash((self.utterance_ids, self.image_ids))

    @property
    def dialogue(self) -> Dialogue:
        """The dialogue that it was found in."""
        if self.example is None:
            raise ValueError("this fragment was made by hand and knows no dialogue")
        return self.example.dialogue

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """Its utterances, in the order of its ids."""
        return tuple(self.dialogue.utterances[item] for item in self.utterance_ids)

    @property
    def images(self) -> tuple[Image, ...]:
        """Its images, in the order of its ids."""
        return tuple(self.dialogue.images[item] for item in self.image_ids)

    @property
    def text(self) -> str:
        """Its utterances in words, one a line, in the dialogue's order; its images beside them.

        An image whose utterance is not in the fragment has a line of its own.
        """
        dialogue, lines = self.dialogue, list[str]()
        for number, utterance in enumerate(dialogue.utterances):
            said = [utterance.text] if number in self.utterance_ids and utterance.text else []
            said += [
                f"[image {image_id}: {dialogue.images[image_id].source}]"
                for image_id, host in enumerate(dialogue.image_utterance_ids)
                if host == number and image_id in self.image_ids
            ]
            if said or number in self.utterance_ids:
                lines.append(f"{utterance.speaker}: {' '.join(said)}".rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self.dialogue.html(self)


class Model:
    """Whatever answers queries on dialogues. Made by `load_model`.

    Args:
        choice: What was named.
        opened: The same, loaded.
        settings: How it is asked.
    """

    def __init__(self, choice: ModelChoice, opened: OpenModel, settings: AnswerConfig) -> None:
        self.choice = choice
        self._opened = opened
        self._settings = settings
        self._retriever = self.retriever(AskedData((), "the dialogue", None))

    def __repr__(self) -> str:
        return f"<ffr model {one_line(self.name)}>"

    @property
    def name(self) -> str:
        """What tables call it."""
        return self._retriever.name

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides its answers, JSON-ready."""
        return self._retriever.identity

    @property
    def takes_images(self) -> bool:
        """Whether it looks at pictures."""
        return self._opened.takes_images

    @property
    def rules(self) -> Any:
        """What data must not hold for it (`ffr.data.judgement.ModelRules`); None for nothing."""
        return rules_of(self.choice, self._opened)

    def retriever(self, asked: AskedData) -> Retriever:
        """What answers on some data; one that is fitted sees that it was not fitted on them.

        Raises:
            UsageError: where it was.
        """
        return self._opened.retriever(asked, self._settings, say=_log.info, progress=_no_bar)

    @overload
    def retrieve(
        self, dialogue: Any, query: str, *, image_root: str | Path | None = None
    ) -> RetrievedFragment: ...

    @overload
    def retrieve(
        self, dialogue: Any, query: Sequence[str], *, image_root: str | Path | None = None
    ) -> list[RetrievedFragment]: ...

    def retrieve(
        self, dialogue: Any, query: str | Sequence[str], *, image_root: str | Path | None = None
    ) -> RetrievedFragment | list[RetrievedFragment]:
        """Finds the fragment of a dialogue that a query means.

        Several queries are answered together: where the model's prompt has the query behind the
        dialogue, the dialogue goes through the model once for all of them.

        Args:
            dialogue: A `Dialogue`; a `Chat`, uncut; an `Example`, for its dialogue and its
                pictures' folder; or a list of pairs (speaker, text) as `Dialogue.of` takes it.
            query: What is looked for; a list for several.
            image_root: Folder that the pictures' paths are relative to; None for the example's,
                else the working folder.

        Returns:
            The fragment; a list of them for a list of queries.

        Raises:
            ValueError: where dialogue or query are no such thing.
            DataError: where a query cannot be answered, such as for a picture that is missing.

        >>> chat = [("Ann", "the bus is late"), ("Bob", "too bad")]
        >>> found = load_model("baseline:overlap").retrieve(chat, "bus")
        >>> found.utterance_ids, found.text, found.score
        ((0,), 'Ann: the bus is late', 1.0)
        """
        queries = _queries_of(query)
        examples = _examples_of(dialogue, queries, image_root)
        answers = _answered(self._retriever, examples)
        found = [_found(*pair) for pair in zip(examples, answers, strict=True)]
        return found[0] if isinstance(query, str) else found


def load_model(
    name: str | Path,
    *,
    device: str = "auto",
    seed: int = 0,
    trust_remote_code: bool = False,
    **settings: Any,
) -> Model:
    """Opens what answers, by the names that `ffr eval --model` takes.

    Args:
        name: `tiny`, a run's folder, a model's folder, a hub id, `api:URL#MODEL`,
            `embedding:ENCODER`, `lines`, `lines+ENCODER`, or `baseline:NAME` (everything, nothing,
            random-third, overlap, bm25, bm25+ENCODER).
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`; of no matter for servers and baselines.
        seed: Seed of `baseline:random-third`.
        trust_remote_code: Run code that comes with the model.
        settings: Those of `ffr eval`, by name: `constrained=True`, `threshold=0.3`,
            `fit_dataset="train.jsonl"`, `window=100`, ….

    Raises:
        UsageError: where there is no such model, device or setting, a setting means nothing for it,
            or an encoder is not told what is similar enough.
        ModelError: where it cannot be loaded.

    >>> load_model("baseline:overlap")
    <ffr model baseline:overlap>
    """
    if not isinstance(name, str | Path):
        raise ValueError(f"{described(name)} is no model; give its name or folder")
    choice = choose_model(str(name))
    config = AnswerConfig(device=device, **settings)
    for setting in settings:
        if setting in without_effect(choice.kind):
            raise UsageError(f"setting {setting} has no meaning for {choice.label}; leave it out")
    if choice.kind == "embedding" and config.threshold is None and config.fit_dataset is None:
        raise UsageError(
            f"{choice.label} must know what is similar enough; name data with true answers that it "
            'is fitted on, fit_dataset="train.jsonl" or "sample", or give threshold=0.3'
        )
    if choice.kind in ("lines", "encoded-lines") and config.fit_dataset is None:
        raise UsageError(
            f"{choice.label} must be fitted; name data with true answers, fit_dataset="
            '"train.jsonl" or "sample"'
        )
    opened = open_model(
        choice, config, name=choice.name, seed=seed, trust_remote_code=trust_remote_code
    )
    return Model(choice, opened, config)


def _no_bar(num_queries: int) -> AbstractContextManager[Progress | None]:
    return nullcontext()


def _queries_of(query: str | Sequence[str]) -> list[str]:
    if not isinstance(query, str | Iterable) or isinstance(query, bytes | dict):
        raise ValueError(f"the query is {described(query)}; give a text, or a list of texts")
    queries = [query] if isinstance(query, str) else list(query)
    for number, item in enumerate(queries):
        if not isinstance(item, str):
            raise ValueError(f"query {number} is {described(item)}; give a text")
        if not item.strip():
            raise ValueError(f"query {number} is empty; say what is looked for")
    return queries


def _examples_of(
    dialogue: Any, queries: Sequence[str], image_root: str | Path | None
) -> list[Example]:
    root = None if image_root is None else Path(image_root)
    if isinstance(dialogue, Example):
        root = dialogue.image_root if root is None else root
        dialogue = dialogue.dialogue
    if isinstance(dialogue, Chat):
        dialogue = dialogue_of_chat(dialogue)
    if not isinstance(dialogue, Dialogue):
        dialogue = Dialogue.of(dialogue)
    return [Example(dialogue, query, image_root=root) for query in queries]


def _answered(retriever: Retriever, examples: Sequence[Example]) -> list[Answer]:
    batches = retriever.plan(examples) if examples else []
    found: dict[int, Answer] = {}
    for number, answers in answers_of(retriever, batches, examples):
        for index, answer in zip(batches[number], answers, strict=True):
            if answer.failure is not None:
                query = one_line(examples[index].query, 60)
                raise DataError(
                    answer.failure, where=f"query {query!r}" if len(batches) > 1 else None
                )
            found[index] = answer
    return [found[index] for index in range(len(examples))]


def _found(example: Example, answer: Answer) -> RetrievedFragment:
    dialogue = example.dialogue
    read = read_response(answer.response).within(len(dialogue.utterances), len(dialogue.images))
    problems = (*read.problems, *(("cut off at the longest length",) * answer.is_cut_off))
    return RetrievedFragment(
        read.fragment.utterance_ids,
        read.fragment.image_ids,
        example,
        answer.score,
        answer.response,
        problems,
    )
