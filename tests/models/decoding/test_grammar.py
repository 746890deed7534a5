"""The grammar over several places of a pass: the same as token by token, and what it forces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from answer_tokenizers import TOKENIZERS
from model_builds import BUILDS
from transformers import PreTrainedTokenizerBase

from ffr.answer import AnswerGrammar, format_answer
from ffr.dialogue import Fragment
from ffr.models.decoding.drafted import decode_drafted
from ffr.models.decoding.drafts import NONE, Drafts, forms_of_answers
from ffr.models.decoding.grammar import GrammarGuide
from ffr.models.decoding.greedy import Greedy, Guesses

SIZES = [(12, 3), (3, 0), (25, 6)]
FRAGMENTS = [Fragment((1, 2, 10), (0, 2)), Fragment(), Fragment(tuple(range(7, 19)), (3,))]


@pytest.fixture(scope="module", params=sorted(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    return TOKENIZERS[request.param]()


def vlm_of(tokenizer: PreTrainedTokenizerBase) -> Any:
    stop = tokenizer.eos_token_id
    return SimpleNamespace(
        tokenizer=tokenizer, end_of_turn_id=stop, stop_ids=[stop], padding_id=0, placeholder_ids=frozenset(), name="m",
        device=torch.device("cpu"),
    )  # fmt: skip


def guide_of(tokenizer: PreTrainedTokenizerBase) -> GrammarGuide:
    return GrammarGuide(vlm_of(tokenizer), [AnswerGrammar(*size) for size in SIZES])


def answers_of(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    return [
        [*tokenizer(format_answer(item), add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        for item in FRAGMENTS
    ]  # fmt: skip


def allowed_one_by_one(tokenizer: PreTrainedTokenizerBase) -> list[torch.Tensor]:
    """For each answer, (tokens, V) what may come at each place."""
    answers, found = answers_of(tokenizer), []
    for row, ids in enumerate(answers):
        guide = guide_of(tokenizer)
        may_come = []
        for item in ids:
            logits = guide.allowed(torch.zeros(3, len(tokenizer)))
            may_come.append(logits[row] == 0)
            guide.note(torch.tensor([item if number == row else int(logits[number].argmax()) for number in range(3)]))  # fmt: skip
        found.append(torch.stack(may_come))
    return found


def test_along_a_pass_it_allows_what_it_does_token_by_token(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Guesses are right up to a place of their own in each answer, then wrong, forbidden or none."""
    answers, expected = answers_of(tokenizer), allowed_one_by_one(tokenizer)
    guide = guide_of(tokenizer)
    at, width = [0, 0, 0], 5
    while any(place < len(ids) for place, ids in zip(at, answers, strict=True)):
        guesses = torch.full((3, width - 1), NONE)
        rights = []
        for row, ids in enumerate(answers):
            right = min((sum(at) + row) % width, max(0, len(ids) - at[row] - 1))
            guesses[row, :right] = torch.tensor(ids[at[row] : at[row] + right])
            if right < width - 1 and row != 1:
                # the end of the turn is no guess that may come there
                guesses[row, right] = tokenizer.eos_token_id
            rights.append(right)
        logits = guide.allowed_along(torch.zeros(3, width, len(tokenizer)), guesses)
        tokens = torch.zeros(3, width, dtype=torch.long)
        num_new = []
        for row, ids in enumerate(answers):
            left = ids[at[row] : at[row] + rights[row] + 1]
            for place, item in enumerate(left):
                assert torch.equal(logits[row, place] == 0, expected[row][at[row] + place])
                tokens[row, place] = item
            num_new.append(len(left))
            at[row] += len(left)
        guide.note_along(tokens, torch.tensor(num_new))
    guide.check()


def test_forced_is_what_alone_may_come(
    tokenizer: PreTrainedTokenizerBase, request: pytest.FixtureRequest
) -> None:
    """From every state of three answers: while one token alone may come, which it is."""
    answers, expected = answers_of(tokenizer), allowed_one_by_one(tokenizer)
    guide = guide_of(tokenizer)
    guide.allowed(torch.zeros(3, len(tokenizer)))
    num_forced = 0
    for place in range(max(map(len, answers))):
        forced = guide.forced(4)
        for row, ids in enumerate(answers):
            run = []
            for may_come in expected[row][place : place + 4] if place < len(ids) else ():
                only = may_come.nonzero()[:, 0].tolist()
                if len(only) != 1 or only == [tokenizer.eos_token_id]:
                    break
                run += only
            if place < len(ids):
                assert forced[row].tolist() == run + [NONE] * (4 - len(run))
                num_forced += len(run)
        guide.allowed(torch.zeros(3, len(tokenizer)))
        guide.note(torch.tensor([ids[min(place, len(ids) - 1)] for ids in answers]))
    # where a tokenizer has the markers whole, their first letters may come too
    assert (num_forced > 0) == (request.node.callspec.params["tokenizer"] in BUILDS)


class Script:
    """A decoder by which the three answers are likeliest, and everything else is as likely."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        answers = answers_of(tokenizer)
        longest = max(map(len, answers))
        filled = [ids + [tokenizer.eos_token_id] * (longest - len(ids)) for ids in answers]
        ids = torch.tensor(filled)
        self._logits = torch.nn.functional.one_hot(ids, len(tokenizer)).float()
        self.num_passes = 0

    def first_logits(self) -> torch.Tensor:
        return self._logits[:, 0]

    def step_at(self, tokens: torch.Tensor, places: torch.Tensor, num_places: int) -> torch.Tensor:
        self.num_passes += 1
        at = (places + 1).clamp(max=self._logits.shape[1] - 1)
        return self._logits[torch.arange(3)[:, None], at]

    def drop_finished(self, is_open: object) -> None:
        return None


def test_the_form_of_answers_and_what_is_forced_save_passes(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    vlm, answers = vlm_of(tokenizer), answers_of(tokenizer)
    longest = max(map(len, answers))
    passes = []
    for texts in ([[], [], []], [forms_of_answers(vlm)] * 3):
        script, guide = Script(tokenizer), guide_of(tokenizer)
        met = Drafts(8, texts).guesses(1, vlm.device)
        found = decode_drafted(
            vlm, script, Greedy(vlm, guide), Guesses(guide, met), max_new_tokens=longest, num_drafts=8
        )  # fmt: skip
        assert [list(answer.token_ids) for answer in found] == answers
        passes.append(script.num_passes)
    assert passes[1] < passes[0] <= longest - 1
    assert passes[1] < longest / 2
