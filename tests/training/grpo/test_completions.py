"""The files of completions: what a resumed run does again is dropped, all else stays."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet

from ffr.training.grpo.completions import drop_completions, write_completions


def _answer(text: str, reward: float) -> dict[str, object]:
    return {"text": text, "reward": reward, "advantage": -reward, "terms": {"f1": reward}}


def test_a_row_an_answer(tmp_path: Path) -> None:
    samples = [
        {"dialogue_id": "d", "query": "q", "truth": "t", "answers": [_answer("a", 1.0)] * 2},
        {"dialogue_id": "e", "query": "r", "truth": "u", "answers": [_answer("b", 0.5)]},
    ]
    path = write_completions(tmp_path, 123456, samples, ["one", "two"])
    assert path == tmp_path / "completions" / "completions_123456.parquet"
    table = pyarrow.parquet.read_table(path)
    assert table.column_names == [
        "step",
        "dialogue_id",
        "query",
        "solution",
        "prompt",
        "completion",
        "reward",
        "reward_f1",
        "advantage",
    ]
    assert table["prompt"].to_pylist() == ["one", "one", "two"]
    assert table["advantage"].to_pylist() == [-1.0, -1.0, -0.5]


def test_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    sample = {"dialogue_id": "d", "query": "q", "truth": "t", "answers": [_answer("a", 1.0)]}
    for step in (1, 20, 40):
        write_completions(tmp_path, step, [sample], ["p"])
    notes = tmp_path / "completions" / "completions_mine.parquet"
    notes.write_bytes(b"x")
    drop_completions(tmp_path, 20)
    left = sorted(path.name for path in (tmp_path / "completions").iterdir())
    assert left == ["completions_00001.parquet", "completions_00020.parquet", notes.name]
    drop_completions(tmp_path / "none", 0)
