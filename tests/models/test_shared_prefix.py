"""The packed form against the repeated one: log-probabilities, losses and every LoRA gradient, for every architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_builds import BUILDS
from vlm_reference import with_lora

from ffr.dialogue import FilePrompt
from ffr.models import prefix_attention, shared_prefix
from ffr.models.decoding.greedy import generate_answers
from ffr.models.decoding.sampling import sample_answers
from ffr.models.loading import load_vlm
from ffr.models.packing import PackedRows
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import BranchLogprobs, PrefixSharing
from ffr.models.vlm import Vlm

Ask = Callable[..., tuple[FilePrompt, list[Path]]]


def random_branches(vlm: Vlm, lengths: list[list[int]], seed: int = 0) -> list[list[list[int]]]:
    draw = torch.Generator().manual_seed(seed)
    usable = [item for item in range(len(vlm.tokenizer)) if item not in vlm.placeholder_ids]
    return [
        [
            [
                usable[item]
                for item in torch.randint(len(usable), (length,), generator=draw).tolist()
            ]
            for length in group
        ]
        for group in lengths
    ]


def loss_of(scores: BranchLogprobs, seed: int = 0) -> torch.Tensor:
    """Some smooth function of every log-probability, as a policy gradient is one."""
    weights = torch.randn(scores.logprobs.shape, generator=torch.Generator().manual_seed(seed))
    weights = weights.to(scores.logprobs.dtype)
    return (weights * scores.mask * (scores.logprobs + 0.1 * scores.logprobs.square())).sum()


def gradients(vlm: Vlm) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in vlm.named_parameters() if p.grad is not None}
    vlm.zero_grad(set_to_none=True)
    return found


def worst(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest difference of a gradient, relative to its norm."""
    assert mine
    assert mine.keys() == theirs.keys()
    assert all(gradient.abs().max() > 0 for gradient in theirs.values())
    return max(float((mine[name] - theirs[name]).norm() / theirs[name].norm()) for name in theirs)


def both_ways(
    vlm: Vlm, prompts: list[Encoded], branches: list[list[list[int]]], **options: object
) -> list[tuple[BranchLogprobs, dict[str, torch.Tensor]]]:
    results = []
    for is_wanted in (True, False):
        sharing = PrefixSharing(vlm, is_wanted=is_wanted)
        assert sharing.is_active == is_wanted, sharing.reason
        scores = sharing.score(prompts, branches, **options)  # type: ignore[arg-type]
        loss_of(scores).backward()
        results.append((scores, gradients(vlm)))
    return results


RAGGED = [[7, 1, 12, 4], [3, 9, 2, 2]]


@pytest.mark.parametrize(
    ("chosen", "is_checkpointed"),
    [
        pytest.param([()], False, id="words alone"),
        pytest.param([(), (2, 3)], False, id="some without pictures"),
        pytest.param([(1, 2, 0), (3,)], False, id="all with pictures"),
        pytest.param([(1, 2, 0), (3,)], True, id="checkpointed"),
    ],
)
def test_packed_equals_repeated(
    folder: Path, ask: Ask, chosen: list[tuple[int, ...]], is_checkpointed: bool
) -> None:
    """One and several prompts, images of mixed sizes and none, ragged branches; float32: 1e-4, gradients 1e-3 of their norm."""
    vlm = with_lora(folder)
    if is_checkpointed:
        vlm.enable_gradient_checkpointing()
        vlm.train()
    prompts = [
        vlm.encode(*ask(*numbers, words="看 " * (3 + 4 * place)))
        for place, numbers in enumerate(chosen)
    ]
    branches = random_branches(vlm, RAGGED[: len(prompts)])
    (shared, mine), (repeated, theirs) = both_ways(vlm, prompts, branches, with_entropy=True)
    assert shared.mask.sum() == sum(map(sum, RAGGED[: len(prompts)]))
    assert torch.equal(shared.mask, repeated.mask)
    assert (shared.logprobs - repeated.logprobs).abs().max() < 1e-4
    assert shared.entropy is not None
    assert repeated.entropy is not None
    assert (shared.entropy - repeated.entropy).abs().max() < 1e-4
    assert (shared.entropy[shared.mask] > 0).all()
    assert worst(mine, theirs) < 1e-3


@pytest.mark.parametrize(
    ("name", "is_checkpointed"), [*((name, False) for name in sorted(BUILDS)), ("qwen2-vl", True)]
)
def test_branches_in_blocks_equal_repeated(
    model_folder: Callable[[str], Path],
    name: str,
    ask: Ask,
    is_checkpointed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More branch tokens than the prompt has: they attend block by block; a second prompt fills one
    block and part of another."""
    vlm = with_lora(model_folder(name))
    if is_checkpointed:
        vlm.enable_gradient_checkpointing()
        vlm.train()
    prompts = [vlm.encode(*ask(0)), vlm.encode(*ask(words="看 " * 5))]
    longest = max(prompt.num_tokens for prompt in prompts)
    lengths = [[longest // 3, 1, 12, 0, longest // 2, 9, longest // 2, 15], [longest // 2, 9, 2]]
    branches = random_branches(vlm, lengths)
    expected = PrefixSharing(vlm)._score_shared(prompts, branches, lengths).logprobs
    blocks = set()
    original = prefix_attention._in_blocks

    def noted(rows: torch.Tensor, block: int) -> torch.Tensor:
        blocks.add(rows.shape[2] // block)
        return original(rows, block)

    monkeypatch.setattr(prefix_attention, "_in_blocks", noted)
    monkeypatch.setattr(shared_prefix, "block_size", lambda *_: longest // 2)
    (shared, mine), (repeated, theirs) = both_ways(vlm, prompts, branches, with_entropy=True)
    assert max(blocks) >= 4
    assert (shared.logprobs - expected).abs().max() < 1e-4
    assert (shared.logprobs - repeated.logprobs).abs().max() < 1e-4
    assert worst(mine, theirs) < 1e-3


def test_lengths_may_be_filled_up(folder: Path, ask: Ask) -> None:
    """To multiples of 32, prompts and branches: nothing but the shapes changes, and few are left."""
    vlm = with_lora(folder)
    prompts = [vlm.encode(*ask(0, 2)), vlm.encode(*ask(words="看 " * 5))]
    branches = random_branches(vlm, RAGGED)
    plain, padded = PrefixSharing(vlm), PrefixSharing(vlm, pad_to_multiple_of=32)
    expected = plain.score(prompts, branches)
    loss_of(expected).backward()
    theirs = gradients(vlm)
    shapes = set()
    hook = vlm.language_model.register_forward_hook(
        lambda module, arguments, output: shapes.add(tuple(output.last_hidden_state.shape[:2]))
    )
    scores = padded.score(prompts, branches)
    hook.remove()
    loss_of(scores).backward()
    assert all(width % 32 == 0 for _, width in shapes)
    assert shapes
    assert (scores.logprobs - expected.logprobs).abs().max() < 1e-4
    assert worst(gradients(vlm), theirs) < 1e-3


def test_packed_equals_repeated_in_double_precision(
    folder: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left in float64 comes from transformers' own norms and rotations, which compute in float32."""
    vlm = with_lora(folder).double()
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    prompts = [vlm.encode(*ask(0, 2)), vlm.encode(*ask(1, words="a longer line " * 3))]
    (shared, mine), (repeated, theirs) = both_ways(vlm, prompts, random_branches(vlm, RAGGED))
    assert (shared.logprobs - repeated.logprobs).abs().max() < 2e-5
    assert worst(mine, theirs) < 1e-5


def test_positions_that_go_on_would_be_noticed(
    folder: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: a second branch that counts on from the first is far off."""
    vlm = with_lora(folder)
    prompts, branches = [vlm.encode(*ask(0))], random_branches(vlm, [[6, 6]])
    sharing = PrefixSharing(vlm)
    right = sharing.score(prompts, branches)
    original = shared_prefix.next_positions

    def counted_on(*arguments: torch.Tensor) -> torch.Tensor:
        return original(*arguments) + 40

    monkeypatch.setattr(shared_prefix, "next_positions", counted_on)
    wrong = sharing.score(prompts, branches)
    assert (right.logprobs - wrong.logprobs).abs().max() > 1e-2


def test_only_the_end_of_a_branch_is_scored(folder: Path, ask: Ask) -> None:
    vlm = with_lora(folder)
    prompts, branches = [vlm.encode(*ask(0, 1)), vlm.encode(*ask())], random_branches(vlm, RAGGED)
    counts = [[3, 1, 5, 4], [2, 0, 2, 1]]
    (shared, mine), (repeated, theirs) = both_ways(vlm, prompts, branches, num_scored=counts)
    assert shared.mask.sum(1).tolist() == [3, 1, 5, 4, 2, 0, 2, 1]
    assert (shared.logprobs - repeated.logprobs).abs().max() < 1e-4
    assert worst(mine, theirs) < 1e-3
    everything = PrefixSharing(vlm).score(prompts, branches)
    assert torch.allclose(shared.logprobs[2, :5], everything.logprobs[2, 7:12], atol=1e-5)


def test_empty_branches_and_temperature(folder: Path, ask: Ask) -> None:
    vlm = with_lora(folder)
    prompts, branches = [vlm.encode(*ask(3))], random_branches(vlm, [[0, 5, 1]])
    (shared, mine), (repeated, theirs) = both_ways(vlm, prompts, branches, temperature=0.7)
    assert shared.mask.sum(1).tolist() == [0, 5, 1]
    assert (shared.logprobs - repeated.logprobs).abs().max() < 1e-4
    assert worst(mine, theirs) < 1e-3


def test_dropping_the_adapter_gives_the_model_it_started_from(folder: Path, ask: Ask) -> None:
    vlm, bare = with_lora(folder), load_vlm(folder)
    prompts, branches = [vlm.encode(*ask(1, 3))], random_branches(vlm, [[4, 2]])
    with torch.no_grad(), vlm.model.disable_adapter():
        reference = PrefixSharing(vlm).score(prompts, branches)
    with torch.no_grad():
        expected = PrefixSharing(bare, is_wanted=False).score(prompts, branches)
        policy = PrefixSharing(vlm).score(prompts, branches)
    assert (reference.logprobs - expected.logprobs).abs().max() < 1e-4
    assert (reference.logprobs - policy.logprobs).abs().max() > 1e-3


def test_an_image_token_in_a_branch_is_refused(folder: Path, ask: Ask) -> None:
    vlm = load_vlm(folder)
    with pytest.raises(ValueError, match="stands for an image"):
        PrefixSharing(vlm).score([vlm.encode(*ask(0))], [[[5, min(vlm.placeholder_ids)]]])


def test_an_architecture_that_does_not_fit_is_repeated_and_says_so(
    folder: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    vlm = with_lora(folder)
    prompts, branches = [vlm.encode(*ask(0))], random_branches(vlm, [[3, 5]])
    expected = PrefixSharing(vlm, is_wanted=False).score(prompts, branches)

    # an attention that lets branches see each other: the trial pass must notice
    def all_seen(rows: PackedRows, prompt_mask: torch.Tensor) -> torch.Tensor:
        size = prompt_mask.shape[1] + rows.block
        return torch.ones((len(prompt_mask), 1, rows.num_tokens, size), dtype=torch.bool)

    monkeypatch.setattr(PackedRows, "mask", all_seen)
    sharing = PrefixSharing(vlm)
    assert not sharing.is_active
    assert "trial pass was off" in str(sharing.reason)
    assert "once for each answer" in caplog.text
    assert torch.equal(sharing.score(prompts, branches).logprobs, expected.logprobs)


def test_layers_of_another_kind_are_left_alone(folder: Path) -> None:
    vlm = load_vlm(folder)
    vlm.base.config.get_text_config().layer_types = ["full_attention", "sliding_attention"]
    assert PrefixSharing(vlm).reason == "the model has layers of sliding_attention"


# -- rollouts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_cache_shared", "is_attention_replaced"),
    [(True, True), (False, False), (True, False)],
    ids=["shared", "expanded", "shared with the plain attention"],
)
def test_greedy_rollout_is_that_of_generate_on_repeated_prompts(
    folder: Path, ask: Ask, is_cache_shared: bool, is_attention_replaced: bool
) -> None:
    vlm = with_lora(folder)
    PrefixSharing(vlm, is_wanted=is_attention_replaced)
    prompts = [
        vlm.encode(*ask(0, 2)),
        vlm.encode(*ask()),
        vlm.encode(*ask(1, words="a longer line " * 4)),
    ]
    rollout = sample_answers(
        vlm,
        prompts,
        num_samples=3,
        max_new_tokens=12,
        temperature=0,
        is_cache_shared=is_cache_shared,
    )
    expected = generate_answers(
        vlm, [prompt for prompt in prompts for _ in range(3)], max_new_tokens=12
    )
    mine = [answer for group in rollout for answer in group]
    assert [answer.token_ids for answer in mine] == [answer.token_ids for answer in expected]
    for one, other in zip(mine, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert one.text == other.text


@pytest.mark.parametrize("is_cache_shared", [True, False], ids=["shared", "expanded"])
def test_sampled_log_probabilities_are_those_of_the_packed_pass(
    folder: Path, ask: Ask, is_cache_shared: bool
) -> None:
    vlm = with_lora(folder)
    sharing = PrefixSharing(vlm)
    prompts = [vlm.encode(*ask(0, 2)), vlm.encode(*ask(1))]
    draw = torch.Generator().manual_seed(3)
    groups = sample_answers(
        vlm, prompts, num_samples=4, max_new_tokens=9, temperature=1.3, top_p=0.9, generator=draw,
        is_cache_shared=is_cache_shared,
    )  # fmt: skip
    scores = sharing.score(
        prompts, [[list(a.token_ids) for a in group] for group in groups], temperature=1.3
    )
    answers = [answer for group in groups for answer in group]
    assert len({answer.token_ids for answer in answers}) > 4
    for answer, row, mask in zip(answers, scores.logprobs, scores.mask, strict=True):
        assert answer.logprobs == pytest.approx(row[mask].tolist(), abs=2e-4)


def test_a_seed_gives_the_same_answers_again(folder: Path, ask: Ask) -> None:
    vlm = load_vlm(folder)
    prompts = [vlm.encode(*ask(0)), vlm.encode(*ask(2, 1))]

    def draw(seed: int) -> list[tuple[int, ...]]:
        generator = torch.Generator().manual_seed(seed)
        groups = sample_answers(vlm, prompts, num_samples=3, max_new_tokens=8, generator=generator)
        return [answer.token_ids for group in groups for answer in group]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize("is_cache_shared", [True, False], ids=["shared", "expanded"])
def test_rows_that_ended_do_not_disturb_the_others(
    model_folder: Callable[[str], Path], ask: Ask, is_cache_shared: bool
) -> None:
    """Whichever token ends an answer, every answer is the greedy one up to it."""
    vlm = load_vlm(model_folder("qwen2-vl"))
    prompts = [vlm.encode(*ask(*numbers)) for numbers in ((0,), (), (1, 2), (3,))]
    whole = [
        group[0].token_ids
        for group in sample_answers(
            vlm,
            prompts,
            num_samples=1,
            max_new_tokens=20,
            temperature=0,
            is_cache_shared=is_cache_shared,
        )
    ]
    ends = sorted({ids[place] for place, ids in zip((2, 5, 8, 11), whole, strict=True)})
    vlm.base.generation_config.eos_token_id = ends
    cut = [
        group[0].token_ids
        for group in sample_answers(
            vlm,
            prompts,
            num_samples=1,
            max_new_tokens=20,
            temperature=0,
            is_cache_shared=is_cache_shared,
        )
    ]
    for ids, full in zip(cut, whole, strict=True):
        stop = next(place for place, item in enumerate(full) if item in {*ends, *vlm.stop_ids})
        assert ids == full[: stop + 1]
    assert len({len(ids) for ids in cut}) > 1
