"""Writing in shapes that do not change: the same answers, whatever has been written before in the same memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_builds import BUILDS
from transformers import StaticCache
from vlm_reference import with_lora

from ffr.models.decoding import fixed
from ffr.models.decoding.drafts import Drafts
from ffr.models.decoding.fixed import FixedSteps
from ffr.models.decoding.loop import Generated
from ffr.models.decoding.sampling import sample_answers
from ffr.models.merged import MergedLinears
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm

Ask = Callable[..., tuple[object, list[Path]]]


def answers(
    vlm: Vlm, prompts: list[Encoded], steps: FixedSteps | None, **options: object
) -> list[Generated]:
    found = sample_answers(
        vlm, prompts, generator=torch.Generator().manual_seed(0), fixed=steps,
        **{"num_samples": 3, "max_new_tokens": 16, **options},  # type: ignore[arg-type]
    )  # fmt: skip
    return [answer for group in found for answer in group]


def assert_same(mine: list[Generated], theirs: list[Generated]) -> None:
    assert [answer.token_ids for answer in mine] == [answer.token_ids for answer in theirs]
    for one, other in zip(mine, theirs, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_answers_are_those_of_growing_shapes(
    model_folder: Callable[[str], Path], ask: Ask, name: str
) -> None:
    """float32, every architecture: greedy and sampled, on three prompts of other lengths and on one."""
    vlm = with_lora(model_folder(name))
    assert PrefixSharing(vlm).is_active
    steps = FixedSteps(vlm, is_compiled=False)
    prompts = [
        vlm.encode(*ask(0, 2)),  # type: ignore[arg-type]
        vlm.encode(*ask()),  # type: ignore[arg-type]
        vlm.encode(*ask(1, words="a longer line " * 4)),  # type: ignore[arg-type]
    ]
    for options in ({"temperature": 0.0}, {"top_p": 0.9}, {"temperature": 0.7, "num_samples": 1}):
        for some in (prompts, prompts[1:2]):
            assert_same(answers(vlm, some, steps, **options), answers(vlm, some, None, **options))


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_answers_that_are_guessed_ahead(
    model_folder: Callable[[str], Path], ask: Ask, name: str
) -> None:
    """Guesses that are right, wrong and none, on three prompts of other lengths and on one."""
    vlm = with_lora(model_folder(name))
    assert PrefixSharing(vlm).is_active
    steps = FixedSteps(vlm, is_compiled=False)
    prompts = [
        vlm.encode(*ask(0, 2)),  # type: ignore[arg-type]
        vlm.encode(*ask()),  # type: ignore[arg-type]
        vlm.encode(*ask(1, words="a longer line " * 4)),  # type: ignore[arg-type]
    ]
    for options in ({"temperature": 0.0}, {"top_p": 0.9, "tokens_a_look": 3}):
        for some in (prompts, prompts[1:2]):
            expected = answers(vlm, some, None, **options)
            ids = [answer.token_ids for answer in expected]
            right = [ids[start : start + 3] for start in range(0, len(ids), 3)]
            wrong = [[one[:3] + one[:3] for one in group] for group in right]
            for texts in (right, wrong, [[] for _ in some]):
                assert_same(answers(vlm, some, steps, drafts=Drafts(4, texts), **options), expected)


def test_guesses_in_memory_that_is_used_again(
    model_folder: Callable[[str], Path], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer answers before, of another prompt; more room on the way; beside steps without guesses."""
    vlm = with_lora(model_folder("qwen2-vl"))
    assert PrefixSharing(vlm).is_active
    monkeypatch.setattr(fixed, "TOKENS_AT_ONCE", 64)
    monkeypatch.setattr(fixed, "STEPS_AT_FIRST", 5)
    steps = FixedSteps(vlm, is_compiled=False)
    prompt, other = vlm.encode(*ask(1)), vlm.encode(*ask(words="quite another line " * 6))  # type: ignore[arg-type]
    expected = answers(vlm, [prompt], None)
    right = Drafts(3, [[answer.token_ids for answer in expected]])
    assert_same(answers(vlm, [prompt], steps, drafts=right), expected)
    longer = answers(vlm, [other], None, max_new_tokens=150)
    for texts in ([[]], [[longer[0].token_ids]]):
        found = answers(vlm, [other], steps, max_new_tokens=150, drafts=Drafts(6, texts))
        assert_same(found, longer)
    assert_same(answers(vlm, [prompt], steps, drafts=right), expected)
    assert_same(answers(vlm, [prompt], steps), expected)
    assert_same(answers(vlm, [prompt], steps, drafts=right), expected)


def test_queries_on_one_dialogue(model_folder: Callable[[str], Path]) -> None:
    vlm = with_lora(model_folder("qwen2-vl"))
    assert PrefixSharing(vlm).is_active
    dialogues = [
        [20 + (7 * number + 3 * place) % 300 for place in range(60)] for number in range(2)
    ]
    prompts = [
        Encoded(dialogues[item] + [30 + item, 40 + end]) for item, end in ((0, 1), (0, 2), (1, 1))
    ]
    numbers = [0, 0, 1]
    steps = FixedSteps(vlm, is_compiled=False)
    growing = answers(vlm, prompts, None, dialogue_numbers=numbers)
    assert_same(answers(vlm, prompts, steps, dialogue_numbers=numbers), growing)
    texts = [[growing[3 * number].token_ids] for number in range(3)]
    guessed = answers(vlm, prompts, steps, dialogue_numbers=numbers, drafts=Drafts(4, texts))
    assert_same(guessed, growing)
    assert_same(growing, answers(vlm, prompts, None))


def test_memory_is_used_again_and_leaves_nothing_behind(
    model_folder: Callable[[str], Path], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer answers before, of another prompt; more room on the way; and shapes beyond those that are kept."""
    vlm = with_lora(model_folder("qwen2-vl"))
    assert PrefixSharing(vlm).is_active
    monkeypatch.setattr(fixed, "TOKENS_AT_ONCE", 64)
    monkeypatch.setattr(fixed, "STEPS_AT_FIRST", 5)
    steps = FixedSteps(vlm, is_compiled=False)
    prompt, other = vlm.encode(*ask(1)), vlm.encode(*ask(words="quite another line " * 6))  # type: ignore[arg-type]
    expected = answers(vlm, [prompt], None)
    assert_same(answers(vlm, [prompt], steps), expected)
    for some in ([other], [prompt, other]):
        longer = answers(vlm, some, None, max_new_tokens=150)
        assert max(len(answer.token_ids) for answer in longer) == 150
        assert_same(answers(vlm, some, steps, max_new_tokens=150), longer)
    assert_same(answers(vlm, [prompt], steps), expected)
    assert len(steps._caches) == 4
    assert_same(answers(vlm, [prompt], steps), expected)


def test_under_autocast_values_have_a_type_of_their_own(
    model_folder: Callable[[str], Path], ask: Ask
) -> None:
    vlm = with_lora(model_folder("smolvlm"))
    vlm.train_language_model()
    assert PrefixSharing(vlm).is_active
    prompt = vlm.encode(*ask(1))  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        steps = FixedSteps(vlm, is_compiled=False)
        mine = answers(vlm, [prompt], steps, temperature=0.0)
        theirs = answers(vlm, [prompt], None, temperature=0.0)
    assert [answer.token_ids for answer in mine] == [answer.token_ids for answer in theirs]
    for one, other in zip(mine, theirs, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=0.05)
    [cache] = steps._caches.values()
    assert cache.layers[0].keys.dtype == torch.float32
    assert cache.layers[0].values.dtype == torch.bfloat16


def test_a_step_that_cannot_be_compiled_runs_as_it_is_and_says_so(
    model_folder: Callable[[str], Path],
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    vlm = with_lora(model_folder("qwen2-vl"))
    assert PrefixSharing(vlm).is_active

    def refused(step: object, **options: object) -> Callable[..., object]:
        def run(cache: StaticCache, **inputs: object) -> object:
            cache.layers[0].cumulative_length.add_(3)  # one layer has got further than the others
            raise RuntimeError("no compiler\nwas found")

        return run

    monkeypatch.setattr(torch, "compile", refused)
    steps = FixedSteps(vlm, is_compiled=True)
    prompt = vlm.encode(*ask(1))  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        mine = answers(vlm, [prompt], steps)
    assert_same(mine, answers(vlm, [prompt], None))
    assert steps.reason == "no compiler was found"
    assert [record.getMessage() for record in caplog.records] == [
        "answers are written by steps that are not compiled: no compiler was found"
    ]


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_a_step_is_one_graph_for_prompts_of_all_lengths(
    model_folder: Callable[[str], Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every architecture, with its adapter beside the weights and folded into new copies of them."""
    vlm = with_lora(model_folder(name))
    assert PrefixSharing(vlm).is_active
    graphs: list[int] = []

    def counted(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    compiled = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda step, mode, **options: compiled(step, backend=counted, **options)
    )
    torch.compiler.reset()
    steps = FixedSteps(vlm, is_compiled=True)
    prompts = [Encoded([20 + place % 300 for place in range(size)]) for size in (50, 60, 600, 1200)]
    for prompt in prompts:
        assert_same(answers(vlm, [prompt], steps), answers(vlm, [prompt], None))
    assert (steps.reason, len(graphs)) == (None, 2)  # of one shape, and then of any
    for _ in range(2):
        with MergedLinears(vlm).in_place():
            answers(vlm, prompts[:1], steps)
    assert (steps.reason, len(graphs)) == (None, 3)


@pytest.mark.parametrize("name", ["qwen2-vl", "qwen3-vl", "smolvlm"])
def test_a_pass_of_guesses_is_one_graph_for_prompts_of_all_lengths(
    model_folder: Callable[[str], Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = with_lora(model_folder(name))
    assert PrefixSharing(vlm).is_active
    graphs: list[int] = []

    def counted(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    compiled = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda step, mode, **options: compiled(step, backend=counted, **options)
    )
    torch.compiler.reset()
    steps = FixedSteps(vlm, is_compiled=True)
    prompts = [Encoded([20 + place % 300 for place in range(size)]) for size in (50, 60, 600, 1200)]
    for prompt in prompts:
        expected = answers(vlm, [prompt], None)
        drafts = Drafts(4, [[expected[0].token_ids]])
        assert_same(answers(vlm, [prompt], steps, drafts=drafts), expected)
    assert (steps.reason, len(graphs)) == (None, 2)  # of one shape, and then of any


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2-vl", "smolvlm"])
def test_compiled_steps(model_folder: Callable[[str], Path], ask: Ask, name: str) -> None:
    """Compiled once for prompts of many lengths; the answers of steps that are not."""
    vlm = with_lora(model_folder(name))
    assert PrefixSharing(vlm).is_active
    steps = FixedSteps(vlm, is_compiled=True)
    for words in ("x", "a longer line " * 30, "y"):
        prompt = vlm.encode(*ask(1, words=words))  # type: ignore[arg-type]
        expected = answers(vlm, [prompt], None)
        assert_same(answers(vlm, [prompt], steps), expected)
        drafts = Drafts(4, [[expected[0].token_ids]])
        assert_same(answers(vlm, [prompt], steps, drafts=drafts), expected)
    assert steps.reason is None
