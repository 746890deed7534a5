"""Greedy answers against transformers' own; constrained answers are well-formed whatever the model would say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from answer_tokenizers import TOKENIZERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from vlm_reference import ANSWERS, reference_inputs, with_lora

from ffr.answer import AnswerGrammar, format_answer, parse_strict
from ffr.dialogue import Dialogue, FilePrompt, Fragment, Utterance
from ffr.errors import ModelError
from ffr.models.decoding.grammar import GrammarGuide, _answer_vocabulary
from ffr.models.decoding.grammar_table import state_of
from ffr.models.decoding.greedy import generate_answers
from ffr.models.loading import load_vlm
from ffr.models.vlm import Vlm
from ffr.prompt import render

Ask = Callable[..., tuple[FilePrompt, list[Path]]]


def assert_well_formed(text: str, num_utterances: int, num_images: int) -> None:
    fragment = parse_strict(text)
    assert fragment is not None, text
    for ids, limit in ((fragment.utterance_ids, num_utterances), (fragment.image_ids, num_images)):
        assert list(ids) == sorted(set(ids)), text
        assert all(item < limit for item in ids), text


@pytest.mark.parametrize("chosen", [(), (0,), (1, 2)])
def test_greedy_answer_is_that_of_transformers(
    folder: Path, ask: Ask, chosen: tuple[int, ...]
) -> None:
    vlm = with_lora(folder)
    prompt, images = ask(*chosen)
    inputs = reference_inputs(vlm, prompt, images)
    expected = vlm.base.generate(**inputs, max_new_tokens=12, do_sample=False)[
        0, inputs["input_ids"].shape[1] :
    ]
    [answer] = generate_answers(vlm, [vlm.encode(prompt, images)], max_new_tokens=12)
    assert list(answer.token_ids) == expected.tolist()


def test_a_batch_is_to_the_bit_that_of_transformers(folder: Path, ask: Ask) -> None:
    """Tokens and log-probabilities of rows of other lengths, some of which end before others."""
    vlm = with_lora(folder)
    rows = [vlm.encode(*ask(*chosen)) for chosen in ((), (3,), (1, 2, 0))]
    batch = vlm.collate(rows, padding_side="left")
    output = vlm.base.generate(
        **batch.inputs, max_new_tokens=30, do_sample=False, eos_token_id=vlm.stop_ids, pad_token_id=0,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    written = output.sequences[:, batch.inputs["input_ids"].shape[1] :]
    for number, answer in enumerate(generate_answers(vlm, rows, max_new_tokens=30)):
        size = len(answer.token_ids)
        assert list(answer.token_ids) == written[number, :size].tolist()
        expected = [
            float(step[number].log_softmax(-1)[item])
            for step, item in zip(output.logits[:size], answer.token_ids, strict=True)
        ]
        assert list(answer.logprobs) == expected


def test_batch_is_its_rows(folder: Path, ask: Ask) -> None:
    """float32: the same tokens, log-probabilities to 1e-4; with no, one and three images beside each other."""
    vlm = with_lora(folder)
    rows = [
        vlm.encode(*ask(*chosen, words="x" * 9 * len(chosen))) for chosen in ((), (3,), (1, 2, 0))
    ]
    grammars = [AnswerGrammar(number + 2, number) for number in range(3)]
    for some, longest in ((None, 24), (grammars, 90)):
        together = generate_answers(vlm, rows, max_new_tokens=longest, grammars=some)
        for number, row in enumerate(rows):
            [alone] = generate_answers(
                vlm, [row], max_new_tokens=longest, grammars=some and some[number : number + 1]
            )
            assert alone.token_ids == together[number].token_ids
            assert alone.text == together[number].text
            assert alone.logprobs == pytest.approx(together[number].logprobs, abs=1e-4)


def test_logprobs_are_those_of_the_unconstrained_model(folder: Path, ask: Ask) -> None:
    """float32, to 1e-4: what `answer_logits` gives for the same answer, constrained or not."""
    vlm = with_lora(folder)
    question = ask(2, 0)
    for grammars in (None, [AnswerGrammar(4, 2)]):
        [answer] = generate_answers(
            vlm, [vlm.encode(*question)], max_new_tokens=60, grammars=grammars
        )
        row = vlm.encode(*question)
        row.input_ids = row.input_ids + list(answer.token_ids)
        row.num_answer_tokens = len(answer.token_ids)
        with torch.no_grad():
            logits, targets, _ = vlm.answer_logits(vlm.collate([row], padding_side="right"))
        expected = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0].tolist()
        assert answer.logprobs == pytest.approx(expected, abs=1e-4)
        if grammars:
            assert_well_formed(answer.text, 4, 2)
            assert answer.token_ids[-1] == vlm.end_of_turn_id


def test_modes_are_left_as_they_were(model_folder: Callable[[str], Path], ask: Ask) -> None:
    vlm = with_lora(model_folder("qwen2-vl"))
    vlm.enable_gradient_checkpointing()
    row = vlm.encode(*ask(0))
    vlm.eval()
    expected = generate_answers(vlm, [row], max_new_tokens=8)
    vlm.train()
    assert generate_answers(vlm, [row], max_new_tokens=8) == expected
    assert vlm.training
    assert vlm.model.training
    assert generate_answers(vlm, [], max_new_tokens=8) == []


@pytest.fixture(scope="module")
def small(model_folder: Callable[[str], Path]) -> Vlm:
    return load_vlm(model_folder("qwen2-vl"))


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_a_random_model_answers_in_the_grammar(
    small: Vlm, sizes: list[tuple[int, int]], seed: int
) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        small.base.lm_head.weight.normal_(0, 3)
    prompts = [
        render(Dialogue("d", tuple(Utterance("u", ("x",)) for _ in range(max(1, number)))), "q")
        for number, _ in sizes
    ]
    rows = [small.encode(prompt, []) for prompt in prompts]
    grammars = [AnswerGrammar(*size) for size in sizes]
    for answer, size in zip(
        generate_answers(small, rows, max_new_tokens=400, grammars=grammars), sizes, strict=True
    ):
        assert_well_formed(answer.text, *size)


@pytest.fixture(scope="module", params=sorted(TOKENIZERS))
def any_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    return TOKENIZERS[request.param]()


def decode_at_random(
    tokenizer: PreTrainedTokenizerBase, sizes: list[tuple[int, int]], seed: int
) -> list[str]:
    """Texts of rows whose every next token is drawn at random from what the grammar leaves."""
    generator = torch.Generator().manual_seed(seed)
    stop = tokenizer.eos_token_id
    model = SimpleNamespace(tokenizer=tokenizer, end_of_turn_id=stop, name="random")
    guide = GrammarGuide(model, [AnswerGrammar(*size) for size in sizes])  # type: ignore[arg-type]
    ids = torch.zeros((len(sizes), 0), dtype=torch.long)
    while not (ids == stop).any(1).all():
        assert ids.shape[1] < 1500
        scores = torch.randn((len(sizes), len(tokenizer)), generator=generator)
        done = (ids == stop).any(1)
        chosen = guide.allowed(scores).argmax(-1)
        assert bool((chosen[done] == stop).all())
        guide.note(chosen)
        ids = torch.cat([ids, chosen[:, None]], 1)
    guide.check()
    ends = [row.index(stop) for row in ids.tolist()]
    return [
        tokenizer.decode(row[:end], clean_up_tokenization_spaces=False)
        for row, end in zip(ids.tolist(), ends, strict=True)
    ]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 130), st.integers(0, 25)), min_size=1, max_size=3),
    seed=st.integers(0, 10_000),
)
def test_every_tokenizer_spells_only_well_formed_answers(
    any_tokenizer: PreTrainedTokenizerBase, sizes: list[tuple[int, int]], seed: int
) -> None:
    for text, size in zip(decode_at_random(any_tokenizer, sizes, seed), sizes, strict=True):
        assert_well_formed(text, *size)


def test_the_true_answers_own_tokens_are_allowed(any_tokenizer: PreTrainedTokenizerBase) -> None:
    """The grammar never forbids the spelling that training teaches."""
    vocabulary = _answer_vocabulary(any_tokenizer)
    for fragment in (
        Fragment((), ()),
        Fragment((0, 9, 10, 11, 100), (1,)),
        Fragment((7,), (0, 2, 19)),
    ):
        ids: list[int] = any_tokenizer(format_answer(fragment), add_special_tokens=False).input_ids
        grammar = AnswerGrammar(120, 20)
        text = vocabulary.first[ids[0]]
        for item in ids[1:]:
            assert grammar.allows(text)
            text = state_of(text + vocabulary.later[item], 120, 20)
        assert grammar.is_complete(text)


def test_a_tokenizer_that_cannot_spell_the_answer_is_named() -> None:
    words = Tokenizer(
        models.WordLevel({"<s>": 0, "<|utt_ids_start|>": 1, "<unk>": 2, ";": 3}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<s>", unk_token="<unk>")
    with pytest.raises(
        ModelError, match=r"^random: its tokenizer has no tokens that spell the answer; "
    ):
        decode_at_random(fast, [(3, 1)], 0)


def test_answers_of_the_tests_are_well_formed() -> None:
    for text in ANSWERS:
        assert_well_formed(text, 4, 2)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.85, 0.999, 1.0])
@pytest.mark.parametrize("width", [3, 50, 400])
def test_a_nucleus_is_that_of_transformers(top_p: float, width: int) -> None:
    """Every token of the set is drawn about as often as it should be, and none outside it; wide sets need the full sort."""
    from transformers import TopPLogitsWarper

    from ffr.models.decoding.sampling import draw_tokens

    logits = torch.randn(1, width, generator=torch.Generator().manual_seed(width)) * (
        0.3 if width == 400 else 2
    )
    logits[0, 0] = logits[0, -1] = -torch.inf
    kept = logits if top_p == 1 else TopPLogitsWarper(top_p)(None, logits.clone())
    expected = kept.softmax(1)[0]
    draws = 20_000
    generator = torch.Generator().manual_seed(1)
    points = 1 - torch.rand(draws, generator=generator)
    points[:2] = torch.tensor([1e-30, 1.0])  # the ends must stay within the set, too
    drawn = draw_tokens(logits.softmax(1).expand(draws, -1), points, top_p=top_p)
    share = torch.bincount(drawn, minlength=width) / draws
    assert not share[expected == 0].any()
    assert (share - expected).abs().max() < 0.02
