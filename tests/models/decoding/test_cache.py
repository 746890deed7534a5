"""Keys and values in room set aside: always those of transformers' own growing cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, Qwen2Config
from vlm_reference import with_lora

import ffr.models.decoding.reading
from ffr.models.decoding.cache import RoomyCache, RoomyLayer
from ffr.models.decoding.sampling import sample_answers
from ffr.models.vlm import Vlm

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 9)),
        st.tuples(st.just("repeat"), st.integers(1, 2)),
        st.tuples(st.just("select"), st.integers(0, 99)),
        st.tuples(st.just("crop"), st.integers(1, 3)),
        st.tuples(st.just("reset"), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS)
def test_the_same_as_the_plain_cache(steps: list[tuple[str, int]]) -> None:
    """Bit for bit, whatever is done to the rows and whenever."""
    config = Qwen2Config(num_hidden_layers=2)
    caches = [DynamicCache(config=config), RoomyCache(config)]
    chance = torch.Generator().manual_seed(0)
    num_rows = 2
    for name, number in [("add", 4), *steps, ("add", 1)]:
        if name == "add":
            for layer in range(2):
                keys, values = torch.randn(2, num_rows, 3, number, 5, generator=chance)
                plain, roomy = (cache.update(keys, values, layer) for cache in caches)
                assert all(map(torch.equal, plain, roomy))
        elif name == "repeat" and num_rows < 20:
            num_rows *= number if caches[0].get_seq_length() else 1
            for cache in caches:
                cache.batch_repeat_interleave(number)
        elif name == "select" and caches[0].get_seq_length():
            kept = torch.randint(num_rows, (1 + number % num_rows,), generator=chance)
            num_rows = len(kept)
            for cache in caches:
                cache.batch_select_indices(kept)
        elif name == "crop" and caches[0].get_seq_length() > number:
            for cache in caches:
                cache.crop(-number)
        elif name == "reset":
            for cache in caches:
                cache.reset()
        assert caches[0].get_seq_length() == caches[1].get_seq_length()


def test_tokens_are_written_into_room() -> None:
    """Most tokens leave what is there where it is."""
    layer = RoomyLayer()
    layer.update(torch.zeros(1, 1, 100, 2), torch.zeros(1, 1, 100, 2))
    places = {
        layer.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))[0].data_ptr()
        for _ in range(25)
    }
    assert len(places) == 1
    assert layer.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))[0].data_ptr() not in places


@pytest.mark.parametrize("is_cache_shared", [True, False])
def test_sampled_answers_are_the_same(
    folder: Path, ask: Callable[..., object], is_cache_shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens equal, log-probabilities to the bit."""
    vlm = with_lora(folder)
    rows = [vlm.encode(*ask(*chosen)) for chosen in ((), (1, 2))]  # type: ignore[misc]

    def answers() -> object:
        chance = torch.Generator().manual_seed(0)
        return sample_answers(
            vlm,
            rows,
            num_samples=3,
            max_new_tokens=40,
            generator=chance,
            is_cache_shared=is_cache_shared,
        )

    roomy = answers()
    monkeypatch.setattr(
        ffr.models.decoding.reading, "RoomyCache", lambda config: DynamicCache(config=config)
    )
    assert answers() == roomy


def test_weights_that_were_cast_once_are_forgotten(
    folder: Path, ask: Callable[..., object]
) -> None:
    """Under autocast without a cache, as Lightning sets it: moved weights are seen at once, and sampling leaves nothing behind."""
    vlm, other = with_lora(folder), with_lora(folder)
    for each in (vlm, other):
        each.train_language_model()
    row = vlm.encode(*ask(1))  # type: ignore[misc]

    def answers(of: Vlm) -> object:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            found = sample_answers(
                of,
                [row],
                num_samples=4,
                max_new_tokens=20,
                generator=torch.Generator().manual_seed(0),
            )
            assert not torch.is_autocast_cache_enabled()
            return found

    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        before = answers(vlm)
        for each in (vlm, other):
            with torch.no_grad():
                for weight in each.language_model.parameters():
                    weight.mul_(1.1)
        assert answers(vlm) == answers(other) != before
