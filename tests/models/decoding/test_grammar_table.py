"""The table allows what the grammar allows, in every state that an answer can reach."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from answer_tokenizers import TOKENIZERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from ffr.answer import AnswerGrammar, format_answer
from ffr.dialogue import Fragment
from ffr.models.decoding.grammar import GrammarGuide, _answer_vocabulary, kinds_of
from ffr.models.decoding.grammar_table import FORBIDDEN, grammar_table, state_of


@pytest.fixture(scope="module", params=sorted(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    return TOKENIZERS[request.param]()


@pytest.mark.parametrize(
    "size", [(0, 0), (1, 0), (2, 11), (112, 3)], ids=lambda size: "x".join(map(str, size))
)
def test_every_state_allows_what_the_grammar_allows(
    tokenizer: PreTrainedTokenizerBase, size: tuple[int, int]
) -> None:
    """Each state by the first text that led to it: its tokens one by one, as the grammar reads them."""
    grammar = AnswerGrammar(*size)
    kinds, _ = kinds_of(tokenizer, tokenizer.eos_token_id)
    table = grammar_table(*size, kinds)
    texts = {0: ""}
    waiting = [0]
    while waiting:
        state = waiting.pop()
        text = texts[state]
        if grammar.is_complete(text):
            assert (table.next_state[state] != FORBIDDEN).nonzero()[0].tolist() == [0]
            continue
        assert table.next_state[state, 0] == FORBIDDEN  # the turn may not end yet
        for kind, (first, later) in enumerate(kinds, start=1):
            piece = later if text else first
            follows = int(table.next_state[state, kind])
            assert (follows != FORBIDDEN) == bool(piece and grammar.allows(text + piece)), (
                text,
                piece,
            )
            if follows not in texts and follows != FORBIDDEN:
                texts[follows] = text + piece
                waiting.append(follows)
    # all but the ended and the stuck, which the texts do not lead to
    assert len(texts) <= len(table.next_state) - 2
    assert len(texts) > 30


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 130), st.integers(0, 25)), min_size=1, max_size=3),
    seed=st.integers(0, 10_000),
)
def test_answers_are_allowed_what_their_whole_texts_are(
    tokenizer: PreTrainedTokenizerBase, sizes: list[tuple[int, int]], seed: int
) -> None:
    """Token by token at random, by the grammar's reading of all that was written."""
    chance = torch.Generator().manual_seed(seed)
    stop = tokenizer.eos_token_id
    model = SimpleNamespace(tokenizer=tokenizer, end_of_turn_id=stop, name="random")
    grammars = [AnswerGrammar(*size) for size in sizes]
    guide = GrammarGuide(model, grammars)  # type: ignore[arg-type]
    vocabulary = _answer_vocabulary(tokenizer)
    texts, ended = [""] * len(sizes), [False] * len(sizes)
    for step in range(25):
        scores = torch.randn((len(sizes), len(tokenizer)), generator=chance)
        found = guide.allowed(scores)
        pieces = vocabulary.later if step else vocabulary.first
        for row, grammar in enumerate(grammars):
            if ended[row] or grammar.is_complete(texts[row]):
                expected = {stop}
            else:
                expected = {
                    item for item, piece in pieces.items() if grammar.allows(texts[row] + piece)
                }
            is_allowed = found[row] > -torch.inf
            assert set(is_allowed.nonzero()[:, 0].tolist()) == expected
            assert torch.equal(found[row][is_allowed], scores[row][is_allowed])
        token = found.argmax(1)
        guide.note(token)
        for row, item in enumerate(token.tolist()):
            ended[row] = ended[row] or item == stop
            texts[row] += "" if ended[row] else pieces[item]


@given(
    utterances=st.sets(st.integers(0, 140)), images=st.sets(st.integers(0, 12)), cut=st.integers(0, 400),
    more=st.text("0123456789, ]<|;", max_size=4),
)  # fmt: skip
def test_a_state_has_the_same_continuations(
    utterances: set[int], images: set[int], cut: int, more: str
) -> None:
    grammar = AnswerGrammar(141, 13)
    text = format_answer(Fragment(tuple(sorted(utterances)), tuple(sorted(images))))[:cut]
    state = state_of(text, 141, 13)
    assert grammar.allows(state) is grammar.allows(text) is True
    assert grammar.allows(state + more) is grammar.allows(text + more)
    assert grammar.is_complete(state + more) is grammar.is_complete(text + more)


def test_a_table_grows_with_the_lines_and_not_with_their_square() -> None:
    for lines in (10, 100, 1000):
        assert len(grammar_table(lines, 0, (("", "1"),)).next_state) <= 5 * lines + 80
