"""Answers that are guessed ahead are those that are not, whatever is guessed; only the passes are fewer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_builds import BUILDS
from vlm_reference import with_lora

from ffr.models.decoding import placed
from ffr.models.decoding.decoders import SharedDecoder
from ffr.models.decoding.drafts import Drafts
from ffr.models.decoding.loop import Generated
from ffr.models.decoding.sampling import sample_answers
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm

Ask = Callable[..., tuple[object, list[Path]]]


def answers(
    vlm: Vlm, prompts: list[Encoded], drafts: Drafts | None, **options: object
) -> list[Generated]:
    found = sample_answers(
        vlm, prompts, generator=torch.Generator().manual_seed(0), drafts=drafts,
        **{"num_samples": 3, "max_new_tokens": 16, **options},  # type: ignore[arg-type]
    )  # fmt: skip
    return [answer for group in found for answer in group]


def assert_same(mine: list[Generated], theirs: list[Generated]) -> None:
    assert [answer.token_ids for answer in mine] == [answer.token_ids for answer in theirs]
    assert [answer.text for answer in mine] == [answer.text for answer in theirs]
    for one, other in zip(mine, theirs, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def met(found: list[Generated], num_prompts: int) -> list[list[tuple[int, ...]]]:
    """For each prompt, its answers."""
    size = len(found) // num_prompts
    ids = [answer.token_ids for answer in found]
    return [ids[start : start + size] for start in range(0, len(ids), size)]


@pytest.fixture
def policy(model_folder: Callable[[str], Path]) -> Vlm:
    vlm = with_lora(model_folder("qwen2-vl"))
    assert PrefixSharing(vlm).is_active
    return vlm


@pytest.fixture
def num_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each answer had in each pass."""
    widths: list[int] = []
    plain = SharedDecoder.step_at

    def counted(self: SharedDecoder, tokens: torch.Tensor, *given: object) -> torch.Tensor:  # type: ignore[type-arg]
        widths.append(tokens.shape[1])
        return plain(self, tokens, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(SharedDecoder, "step_at", counted)
    return widths


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_answers_are_those_without_guesses(
    model_folder: Callable[[str], Path], ask: Ask, name: str
) -> None:
    """float32, every architecture: nothing to guess from, wrong guesses, and right ones; on three prompts and on one."""
    vlm = with_lora(model_folder(name))
    assert PrefixSharing(vlm).is_active
    prompts = [
        vlm.encode(*ask(0, 2)),  # type: ignore[arg-type]
        vlm.encode(*ask()),  # type: ignore[arg-type]
        vlm.encode(*ask(1, words="a longer line " * 4)),  # type: ignore[arg-type]
    ]
    for options in ({"temperature": 0.0}, {"top_p": 0.9}, {"temperature": 0.7, "num_samples": 1}):
        for some in (prompts, prompts[1:2]):
            expected = answers(vlm, some, None, **options)
            right = met(expected, len(some))
            wrong = [[ids[:3] + ids[:3] for ids in group] for group in right]
            for num_tokens, texts in ((4, [[] for _ in some]), (1, right), (5, wrong), (5, right)):
                assert_same(answers(vlm, some, Drafts(num_tokens, texts), **options), expected)


@pytest.mark.parametrize("tokens_a_look", [1, 3])
def test_answers_that_end_within_a_guess(policy: Vlm, tokens_a_look: int) -> None:
    """At many places: by a stop, and at the longest length; whole prompts are let go on the way."""
    prompts = [
        Encoded([20 + (7 * place + size) % 300 for place in range(size)]) for size in (50, 30, 70)
    ]
    free = answers(policy, prompts, None, max_new_tokens=30)
    ends = sorted({answer.token_ids[4 + 2 * number] for number, answer in enumerate(free)})
    policy.base.generation_config.eos_token_id = ends
    expected = answers(policy, prompts, None, max_new_tokens=30)
    assert len({len(answer.token_ids) for answer in expected}) > 4
    # as they would go on behind their ends
    texts = met(free, 3)
    for most in range(1, 31, 3):
        shorter = answers(policy, prompts, None, max_new_tokens=most)
        for num_tokens in (1, 4, 12):
            drafts = Drafts(num_tokens, texts)
            options = {"max_new_tokens": most, "tokens_a_look": tokens_a_look}
            assert_same(answers(policy, prompts, drafts, **options), shorter)


@pytest.mark.parametrize("tokens_a_look", [1, 3])
def test_answers_of_unlike_speed(policy: Vlm, tokens_a_look: int) -> None:
    """One answer's guesses are all right, all others' wrong; the memory has to grow on the way."""
    prompts = [Encoded([20 + place % 300 for place in range(size)]) for size in (40, 25)]
    expected = answers(policy, prompts, None, max_new_tokens=150)
    texts = met(expected, 2)
    texts[0][1:], texts[1][:] = [], []
    drafts = Drafts(6, texts)
    options = {"max_new_tokens": 150, "tokens_a_look": tokens_a_look}
    assert_same(answers(policy, prompts, drafts, **options), expected)


def test_queries_on_one_dialogue(policy: Vlm) -> None:
    dialogues = [
        [20 + (7 * number + 3 * place) % 300 for place in range(60)] for number in range(2)
    ]
    prompts = [
        Encoded(dialogues[item] + [30 + item, 40 + end]) for item, end in ((0, 1), (0, 2), (1, 1))
    ]
    expected = answers(policy, prompts, None)
    for texts in ([[], [], []], met(expected, 3)):
        found = answers(policy, prompts, Drafts(4, texts), dialogue_numbers=[0, 0, 1])
        assert_same(found, expected)


def test_right_guesses_save_passes(policy: Vlm, num_passes: list[int]) -> None:
    prompt = Encoded([20 + place % 300 for place in range(40)])
    policy.base.generation_config.eos_token_id = [0]
    one = {"num_samples": 1, "max_new_tokens": 31}
    expected = answers(policy, [prompt], None, **one)
    assert len(set(expected[0].token_ids)) > 25, "an answer that repeats itself has several guesses"
    assert_same(answers(policy, [prompt], Drafts(5, met(expected, 1)), **one), expected)
    # the first token comes of the prompt, each pass then has the newest and five guesses, of which
    # all are right, and chooses one token more
    assert num_passes == [6] * 5
    num_passes.clear()
    answers(policy, [prompt], Drafts(5, [[[1, 2]]]), **{**one, "max_new_tokens": 2})
    assert num_passes == [1], "nothing was met yet, so a pass has the newest token alone"


def test_an_answer_that_repeats_itself_is_guessed_from_itself(
    policy: Vlm, num_passes: list[int]
) -> None:
    prompt = Encoded([20 + place % 300 for place in range(40)])
    policy.base.generation_config.eos_token_id = [0]
    options = {"temperature": 0.0, "max_new_tokens": 60}
    expected = answers(policy, [prompt], None, **options)
    assert len(set(expected[0].token_ids)) < 20
    assert_same(answers(policy, [prompt], Drafts(5, [[]]), **options), expected)
    assert len(num_passes) < 40 < 59, "without guesses a pass writes one token"


def test_what_was_never_written_is_not_read(policy: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask alone would not do: 0 times what is no number is none."""
    prompt = Encoded([20 + place % 300 for place in range(40)])
    expected = answers(policy, [prompt], None)
    plain = torch.Tensor.new_empty
    monkeypatch.setattr(placed, "_PLACES_AT_FIRST", 2)
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda self, *size, **k: plain(self, *size, **k).fill_(torch.nan)
    )
    assert_same(answers(policy, [prompt], Drafts(3, [[]])), expected)


def test_under_autocast_values_have_a_type_of_their_own(
    model_folder: Callable[[str], Path], ask: Ask
) -> None:
    vlm = with_lora(model_folder("smolvlm"))
    vlm.train_language_model()
    assert PrefixSharing(vlm).is_active
    prompt = vlm.encode(*ask(1))  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        theirs = answers(vlm, [prompt], None, temperature=0.0)
        mine = answers(vlm, [prompt], Drafts(4, met(theirs, 1)), temperature=0.0)
    assert [answer.token_ids for answer in mine] == [answer.token_ids for answer in theirs]
    for one, other in zip(mine, theirs, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=0.05)
