"""How often the right one of some dialogues is recalled, by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from chat_builds import Letters, add, no_bar, said, stored_encoder
from script_modules import script

from ffr.corpus.archive import Archive
from ffr.corpus.indexing import index_store
from ffr.corpus.store import Store
from ffr.dialogue import Dialogue, Example

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def trained() -> Iterator[ModuleType]:
    with script(ROOT / "benchmarks" / "trained_encoder.py") as module:
        yield module


def test_the_right_one_of_some_dialogues(trained: ModuleType, tmp_path: Path) -> None:
    lines = ("aaaa", "bbbb", "cccc", "bbbbbbba")
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        for number, line in enumerate(lines):
            add(store, (said("Zoe", line, number),), f"chat {number}")
        encoder = stored_encoder(store, Letters())
        index_store(store, store.numbers(), encoder, None, say=print, bar=no_bar)
        archive = Archive(store, None, encoder, lambda given: Letters().embed_texts(given))
        dialogues = [Dialogue.of([("Zoe", line)]) for line in lines]
        # the fourth is not among those that are asked
        chats = {its.fingerprint: number for number, its in enumerate(dialogues[:3], 1)}
        asked = [Example(dialogues[1], "bbbbbbba"), Example(dialogues[0], "cccca")]
        rows = trained.asked_of(archive, chats, asked)
    found = trained.summary(rows, asked, ["one", "other"])
    assert found["recall_at_1"]["mean"] == 0.5
    assert found["reciprocal_rank"]["mean"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["recall_at_20_by_kind"] == {"one": 1.0, "other": 1.0}
    # of two runs each query's mean counts
    nothing = [dict.fromkeys(row, 0.0) for row in rows]
    of_both = trained.summary(trained.mean_rows([rows, nothing]), asked, ["one", "other"])
    assert of_both["recall_at_1"]["mean"] == 0.25
    assert of_both["recall_at_20_by_kind"] == {"one": 0.5, "other": 0.5}
