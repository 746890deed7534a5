"""What is drawn for an answer depends on its prompt's seed and its own number alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vlm_reference import with_lora

from ffr.models.decoding.sampling import draw_points, draw_tokens, sample_answers

Ask = Callable[..., tuple[object, list[Path]]]


@settings(max_examples=50, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5, unique=True),
    num_samples=st.integers(1, 4),
    num_tokens=st.integers(1, 30),
    data=st.data(),
)
def test_points_are_those_of_prompt_and_number(
    seeds: list[int], num_samples: int, num_tokens: int, data: st.DataObject
) -> None:
    points = draw_points(seeds, num_samples, num_tokens)
    assert points.dtype == torch.float32
    assert bool((points > 0).all() and (points <= 1).all())
    chosen = data.draw(st.integers(0, len(seeds) - 1))
    alone = draw_points([seeds[chosen]], num_samples, num_tokens + 7)
    assert torch.equal(
        points[:, chosen * num_samples : (chosen + 1) * num_samples], alone[:num_tokens]
    )


def test_points_are_philox_by_numpy() -> None:
    """The stream of a key, as numpy's own generator makes floats of it, counted from the other end."""
    points = draw_points([5], 2, 6)[:, 1].numpy()
    chance = np.random.Generator(np.random.Philox(key=np.array([5, 1], dtype=np.uint64)))
    # 24 bits of each number, as ours; numpy takes 53 of them
    assert points == pytest.approx(chance.random(6) + 2**-24, abs=2**-24)


def test_points_are_uniform() -> None:
    points = draw_points(list(range(200)), 4, 50)
    shares = torch.histc(points, 10, 0, 1) / points.numel()
    assert (shares - 0.1).abs().max() < 0.006
    # neither neighbours in time nor neighbours in number go together
    for pairs in ((points[1:], points[:-1]), (points[:, 1:], points[:, :-1])):
        both = torch.stack([item.flatten() for item in pairs])
        assert abs(float(torch.corrcoef(both)[0, 1])) < 0.02


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("scale", [0.2, 3.0], ids=["flat", "peaked"])
def test_a_draw_that_never_looks_is_the_same(top_p: float, scale: float) -> None:
    chance = torch.Generator().manual_seed(0)
    probabilities = (torch.randn(500, 300, generator=chance) * scale).softmax(1)
    points = 1 - torch.rand(500, generator=chance)
    looking, blind = (
        draw_tokens(probabilities, points, top_p=top_p, looks=looks) for looks in (True, False)
    )
    assert torch.equal(looking, blind)


@pytest.mark.parametrize("is_cache_shared", [True, False], ids=["shared", "copied"])
def test_an_answer_does_not_depend_on_what_is_answered_beside_it(
    folder: Path, ask: Ask, is_cache_shared: bool
) -> None:
    """float32: neither on the other prompts of the call, nor on when the host looks."""
    vlm = with_lora(folder)
    prompts = [vlm.encode(*ask(*chosen)) for chosen in ((), (1, 2), (3,))]  # type: ignore[arg-type]

    def answers(*parts: list[int], tokens_a_look: int | None = None) -> list[list[tuple[int, ...]]]:
        chance = torch.Generator().manual_seed(3)
        return [
            [answer.token_ids for answer in group]
            for part in parts
            for group in sample_answers(
                vlm, [prompts[item] for item in part], num_samples=3, max_new_tokens=30, generator=chance,
                is_cache_shared=is_cache_shared, tokens_a_look=tokens_a_look,
            )
        ]  # fmt: skip

    some = {
        ids[place]
        for group in answers([0, 1, 2])
        for place, ids in zip((3, 9, 20), group, strict=True)
    }
    vlm.base.generation_config.eos_token_id = sorted(some)  # so that answers end at other times
    together = answers([0, 1, 2])
    assert answers([0], [1, 2]) == answers([0, 1], [2]) == together
    assert answers([0, 1, 2], tokens_a_look=4) == together
    lengths = {len(answer) for group in together for answer in group}
    assert len(lengths) > 1
