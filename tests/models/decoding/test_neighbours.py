"""Answers from a shared prefix against those of each prompt by itself, for every architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_builds import BUILDS
from vlm_reference import with_lora

from ffr.answer import AnswerGrammar
from ffr.dialogue import Dialogue, Example, Image, Utterance
from ffr.errors import DataError
from ffr.models.decoding import greedy
from ffr.models.decoding.greedy import answer_neighbours, generate_answers
from ffr.models.decoding.loop import Generated
from ffr.models.decoding.sampling import sample_answers
from ffr.models.features import ImageFeatureCache
from ffr.models.packing import neighbours_of, shared_beginning
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm
from ffr.prompt import QueryPosition, render
from ffr.retrieval.interface import Answer, Retriever
from ffr.retrieval.vlm import VlmRetriever
from ffr.retrieval.windows import WindowedRetriever

QUICK = ("qwen2-vl", "smolvlm")
QUERIES = ["a picture", "公交车晚点", "x", "what was said about the weather that day", "a picture"]


@pytest.fixture
def group(pictures: list[Path]) -> Callable[..., list[Encoded]]:
    """The prompts of some queries on one dialogue with the named pictures."""

    def make(
        vlm: Vlm,
        *chosen: int,
        num_queries: int,
        words: str = "看 this",
        position: QueryPosition = "last",
    ) -> list[Encoded]:
        turns = [Utterance("user1", (words,))]
        turns += [
            Utterance("user2", (f"no. {number} ", Image(str(pictures[number])), " tail"))
            for number in chosen
        ]
        chat = Dialogue("d", (*turns, Utterance("user1", ("bye",))))
        return [
            vlm.encode(
                render(chat, query, query_position=position),
                [pictures[number] for number in chosen],
            )
            for query in QUERIES[:num_queries]
        ]

    return make


def assert_same(mine: list[Generated], theirs: list[Generated]) -> None:
    for one, other in zip(mine, theirs, strict=True):
        assert one.token_ids == other.token_ids
        assert one.text == other.text
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "is_constrained"),
    [
        *(pytest.param(name, False, id=f"{name}-free") for name in sorted(BUILDS)),
        # the grammar sees tokens, not architectures
        *(
            pytest.param(
                name, True, id=f"{name}-constrained", marks=[pytest.mark.slow] * (name not in QUICK)
            )
            for name in sorted(BUILDS)
        ),
    ],
)
def test_answers_are_those_of_each_prompt_alone(
    model_folder: Callable[[str], Path],
    name: str,
    group: Callable[..., list[Encoded]],
    is_constrained: bool,
) -> None:
    """float32: the same tokens, log-probabilities to 1e-4; groups of 3, 1 and 4 queries with other lengths
    and pictures."""
    vlm = with_lora(model_folder(name))
    assert PrefixSharing(vlm).is_active
    groups = [
        group(vlm, 1, 2, 0, num_queries=3),
        group(vlm, num_queries=1, words="long " * 60),
        group(vlm, 3, num_queries=4, words="x"),
    ]
    longest = 70 if is_constrained else 24
    sizes = [(5, 3), (2, 0), (3, 1)]
    grammars = [
        [AnswerGrammar(*size)] * len(prompts) for size, prompts in zip(sizes, groups, strict=True)
    ]
    shared = answer_neighbours(
        vlm, groups, max_new_tokens=longest, grammars=grammars if is_constrained else None
    )
    for prompts, answers, its_grammars in zip(groups, shared, grammars, strict=True):
        alone = [
            generate_answers(
                vlm,
                [prompt],
                max_new_tokens=longest,
                grammars=[grammar] if is_constrained else None,
            )[0]
            for prompt, grammar in zip(prompts, its_grammars, strict=True)
        ]
        assert_same(answers, alone)
    # what is compared is not one and the same answer eight times
    assert len({answer.logprobs for answers in shared for answer in answers}) > 5


@pytest.mark.parametrize("name", ["qwen2-vl", "smolvlm"])
def test_answers_that_end_at_other_times(
    model_folder: Callable[[str], Path], group: Callable[..., list[Encoded]], name: str
) -> None:
    """Groups leave the cache when all their answers have ended; those that stay are not moved by it."""
    vlm = with_lora(model_folder(name))
    assert PrefixSharing(vlm).is_active
    groups = [
        group(vlm, number % 4, num_queries=1 + number % 3, words="words " * (1 + number))
        for number in range(6)
    ]
    # the stop token that comes up at the most places; random models write nearly the same to everybody, so some are tried
    stop, num_ends = 0, 0
    for seed in range(12):
        with torch.no_grad():
            head = vlm.base.get_output_embeddings().weight
            head.copy_(torch.randn(head.shape, generator=torch.Generator().manual_seed(seed)))
        written = [
            [answer.token_ids for answer in answers]
            for answers in answer_neighbours(vlm, groups, max_new_tokens=24)
        ]
        for item in {item for answers in written for ids in answers for item in ids}:
            ends = {max((*ids, item).index(item) for ids in answers) for answers in written}
            if len(ends) > num_ends:
                stop, num_ends = item, len(ends)
        if num_ends > 1:
            break
    assert num_ends > 1, "all groups end at once; nothing is tested"
    vlm.base.generation_config.eos_token_id = [vlm.end_of_turn_id, stop]
    shared = answer_neighbours(vlm, groups, max_new_tokens=24)
    for prompts, answers in zip(groups, shared, strict=True):
        assert_same(answers, generate_answers(vlm, prompts, max_new_tokens=24))


def test_modes_and_limits(
    model_folder: Callable[[str], Path], group: Callable[..., list[Encoded]]
) -> None:
    vlm = with_lora(model_folder("qwen2-vl"))
    assert PrefixSharing(vlm).is_active
    vlm.train()
    [answers] = answer_neighbours(vlm, [group(vlm, 0, num_queries=2)], max_new_tokens=3)
    assert vlm.training
    assert [len(answer.token_ids) for answer in answers] == [3, 3]
    assert answer_neighbours(vlm, [], max_new_tokens=3) == []


def test_pictures_behind_the_query_are_refused(
    model_folder: Callable[[str], Path], group: Callable[..., list[Encoded]]
) -> None:
    vlm = with_lora(model_folder("qwen2-vl"))
    first = group(vlm, 0, num_queries=2, position="first")
    placeholders = vlm.placeholder_ids
    assert shared_beginning(first, placeholders) is None
    with pytest.raises(ValueError, match="behind what the prompts of a part have in common"):
        answer_neighbours(vlm, [first], max_new_tokens=3)
    assert shared_beginning(group(vlm, 0, num_queries=2), placeholders) is not None
    # the same ids with another picture of the same size behind them are not the same prefix
    one, other = (group(vlm, 0, num_queries=2), group(vlm, 0, num_queries=2))
    other[1].images[0].digest = "another"
    assert shared_beginning(one, placeholders) is not None
    assert shared_beginning(other, placeholders) is None


# -- in an evaluation ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(pictures: list[Path]) -> list[Example]:
    """Four dialogues of other lengths and pictures with 3, 1, 20 and 2 queries, in mixed order."""
    found = []
    for number, num_queries in enumerate((3, 1, 20, 2)):
        lines = [
            Utterance("a", (f"line {index} of talk {number}",)) for index in range(2 + 3 * number)
        ]
        images = [Utterance("b", (Image(str(pictures[index])),)) for index in range(number)]
        chat = Dialogue(f"d{number}", (*lines, *images))
        found += [Example(chat, f"query no. {query}") for query in range(num_queries)]
    return found[::2] + found[1::2]


def answers_of(retriever: Retriever, examples: list[Example]) -> dict[int, Answer]:
    found = {}
    for batch in retriever.plan(examples):
        answers = retriever.answer([examples[index] for index in batch])
        found |= dict(zip(batch, answers, strict=True))
    assert sorted(found) == list(range(len(examples)))
    return found


@pytest.mark.parametrize("is_constrained", [False, True], ids=["free", "constrained"])
def test_a_retriever_shares_dialogues_and_answers_the_same(
    model_folder: Callable[[str], Path],
    asked: list[Example],
    is_constrained: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vlm = with_lora(model_folder("qwen2-vl"))
    vlm.tower.cache = ImageFeatureCache(memory_bytes=64 << 20)
    options: dict[str, Any] = {
        "name": "m",
        "query_position": "last",
        "max_new_tokens": 40,
        "with_logprobs": True,
    }
    options["is_constrained"] = is_constrained
    repeated = answers_of(VlmRetriever(vlm, is_prefix_shared=False, **options), asked)
    groups: list[int] = []

    def counted(vlm: Vlm, made: Any, **more: Any) -> Any:
        groups.extend(len(group) for group in made)
        return answer_neighbours(vlm, made, **more)

    monkeypatch.setattr(greedy, "answer_neighbours", counted)
    # a budget that cuts the work into several batches
    shared = answers_of(VlmRetriever(vlm, batch_tokens=2_000, **options), asked)
    assert sorted(groups) == [1, 2, 3, 4, 16]
    for number, answer in shared.items():
        assert answer.response == repeated[number].response
        assert answer.logprobs == pytest.approx(repeated[number].logprobs, abs=1e-4)
        assert answer.is_cut_off == repeated[number].is_cut_off


def test_nothing_is_shared_where_it_cannot_be(
    model_folder: Callable[[str], Path],
    asked: list[Example],
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
) -> None:
    """Query first; one query each; a model with layers of sliding attention."""
    monkeypatch.setattr(greedy, "answer_neighbours", lambda *_, **__: pytest.fail("shared"))
    vlm = with_lora(model_folder("qwen2-vl"))
    answers_of(VlmRetriever(vlm, name="m", query_position="first", max_new_tokens=2), asked)
    one_each = list({example.dialogue.id: example for example in asked}.values())
    answers_of(VlmRetriever(vlm, name="m", query_position="last", max_new_tokens=2), one_each)
    assert not caplog.records
    retriever = VlmRetriever(vlm, name="m", query_position="last", max_new_tokens=2)
    with monkeypatch.context() as patch:
        patch.setattr(
            vlm.base.config.get_text_config(),
            "layer_types",
            ["full_attention", "sliding_attention"],
        )
        assert len(retriever.plan(asked)) < len(asked)
    answers_of(retriever, asked)
    assert [record.message for record in caplog.records if "sliding_attention" in record.message]


def test_what_exceeds_the_context_is_named(
    model_folder: Callable[[str], Path], asked: list[Example]
) -> None:
    vlm = with_lora(model_folder("qwen2-vl"))
    long = Dialogue("long one", tuple(Utterance("a", ("word " * 30,)) for _ in range(120)))
    queries = [Example(long, "short"), Example(long, "longer " * 9)]
    for position in ("first", "last"):
        retriever = VlmRetriever(vlm, name="m", query_position=position, max_new_tokens=8)
        # they stand alone, at the end, so that the others are answered all the same
        assert retriever.plan([*asked, *queries])[-2:] == [[len(asked)], [len(asked) + 1]]
        with pytest.raises(
            DataError,
            match=r"^dialogue 'long one': its prompt of \d+ tokens .* cut long dialogues by --window,",
        ):
            retriever.answer(queries[:1])
        windowed = WindowedRetriever(retriever, window=20, overlap=2)
        assert len(answers_of(windowed, [*asked[:3], *queries])[4].extra["pieces"]) == 7
    # every query of a unit is checked, not only the first
    alone = VlmRetriever(vlm, name="m", query_position="last", max_new_tokens=8)
    length = vlm.encode(alone.prompt(queries[0]), []).num_tokens
    vlm.base.config.get_text_config().max_position_embeddings = length + 8
    assert alone.plan(queries[:1]) == [[0]]
    assert alone.plan(queries) == [[0], [1]]
    with pytest.raises(DataError, match="long one"):
        alone.answer(queries[1:])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampled_answers_are_those_of_each_prompt_alone(
    folder: Path, group: Callable[..., list[Encoded]], temperature: float
) -> None:
    """float32: the same random numbers give the same tokens, log-probabilities to 1e-4, three answers to each query."""
    vlm = with_lora(folder)
    assert PrefixSharing(vlm).is_active
    groups = [
        group(vlm, 1, 2, num_queries=3),
        group(vlm, num_queries=1, words="long " * 40),
        group(
            vlm, 3, num_queries=2, words="x", position="first"
        ),  # shares nothing behind a picture
    ]
    prompts = [prompt for part in groups for prompt in part]
    numbers = [number for number, part in enumerate(groups) for _ in part]
    assert list(map(len, neighbours_of(prompts, numbers, vlm.placeholder_ids))) == [3, 1, 1, 1]

    def answers(of: list[int] | None) -> list[list[Generated]]:
        chance = torch.Generator().manual_seed(1)
        return sample_answers(
            vlm,
            prompts,
            num_samples=3,
            max_new_tokens=30,
            temperature=temperature,
            generator=chance,
            dialogue_numbers=of,
        )

    for mine, theirs in zip(answers(numbers), answers(None), strict=True):
        assert_same(mine, theirs)
