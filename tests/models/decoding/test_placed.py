"""Tokens read at their places, right ones over wrong ones, against the whole text read at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from vlm_reference import with_lora

from ffr.models.decoding import placed
from ffr.models.decoding.decoders import SharedDecoder
from ffr.models.decoding.placed import PlacedTail
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm

PROMPTS = [[20 + 3 * place for place in range(size)] for size in (30, 17)]
WRITTEN = torch.tensor([[50 + (11 * row + 7 * place) % 200 for place in range(12)] for row in range(4)])  # fmt: skip


@torch.no_grad()
def expected(vlm: Vlm, row: int) -> torch.Tensor:
    """(12, V) behind each token of an answer, read with its prompt at once."""
    ids = torch.tensor([PROMPTS[row // 2] + WRITTEN[row].tolist()])
    hidden = vlm.core(input_ids=ids, use_cache=False).last_hidden_state
    logits: torch.Tensor = vlm.base.get_output_embeddings()(hidden)[0, -12:]
    return logits


@torch.no_grad()
def test_places_are_written_over(
    model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two prompts with two answers each; a row that has its own speed, wrong guesses, more room, and a prompt let go."""
    monkeypatch.setattr(placed, "_PLACES_AT_FIRST", 5)
    vlm = with_lora(model_folder("qwen2-vl")).eval()
    assert PrefixSharing(vlm).is_active
    decoder = SharedDecoder(vlm, [Encoded(ids) for ids in PROMPTS], 2, PlacedTail)
    wanted = torch.stack([expected(vlm, row) for row in range(4)])
    first = torch.tensor([0, 1, 0, 0])  # row 1 is one ahead from the second pass on
    decoder.step_at(torch.full((4, 2), 60), torch.arange(2).expand(4, 2), 2)  # all wrong
    at = torch.zeros(4, dtype=torch.long)
    for _ in range(3):
        places = at[:, None] + torch.arange(3)
        guessed = WRITTEN.gather(1, places)
        guessed[:, 2] = 61  # the last of each pass is wrong
        logits = decoder.step_at(guessed, places, int(places.max()) + 1)
        right = wanted.gather(1, places[..., None].expand(-1, -1, wanted.shape[2]))
        assert torch.allclose(logits[:, :2], right[:, :2], atol=1e-4)
        assert not torch.allclose(logits[:, 2], right[:, 2], atol=1e-2)
        at = at + 1 + first
    kept = decoder.drop_finished([False, False, True, False])
    assert kept == [2, 3]
    places = at[2:, None] + torch.arange(4)
    logits = decoder.step_at(WRITTEN[2:].gather(1, places), places, int(places.max()) + 1)
    right = wanted[2:].gather(1, places[..., None].expand(-1, -1, wanted.shape[2]))
    assert torch.allclose(logits, right, atol=1e-4)
