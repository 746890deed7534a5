"""The script that counts guesses: its counts by hand, and that the pages say what its results say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from script_modules import script

from ffr.answer import format_answer
from ffr.dialogue import Dialogue, Example, Fragment, Utterance
from ffr.models.decoding.decoders import SharedDecoder
from ffr.models.loading import load_vlm
from ffr.shipped.tiny import TINY_FOLDER

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with script(REPOSITORY / "benchmarks" / "drafts.py") as module:
        yield module


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    path = REPOSITORY / "benchmarks" / "results" / "drafts.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_passes_of_a_scripted_answer(bench: ModuleType) -> None:
    """An empty answer: the first token, a pass that guesses an id and is wrong, and one for all the rest."""
    tokenizer = load_vlm(str(TINY_FOLDER)).tokenizer
    chat = Dialogue("d", tuple(Utterance("user", (f"line {n}",)) for n in range(3)))
    found = bench.scripted(tokenizer, [Example(chat, "q", Fragment())])
    num = len(tokenizer(format_answer(Fragment()), add_special_tokens=False).input_ids) + 1
    assert found["tokens_an_answer"] == num
    assert found["all_guesses_an_answer"] == 3
    assert found["all_guesses_an_answer"] < found["forced_alone_an_answer"] <= num


def test_widths_are_counted(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedDecoder, "step", lambda self, tokens: tokens)
    monkeypatch.setattr(SharedDecoder, "step_at", lambda self, tokens, *given: tokens)
    decoder: Any = SharedDecoder.__new__(SharedDecoder)
    with bench.counted(SharedDecoder) as widths:
        decoder.step(torch.zeros(4))
        decoder.step_at(torch.zeros(4, 9), None, 9)
    decoder.step(torch.zeros(4))
    assert widths == [1, 9]


def rows_of(result: dict[str, Any], at_once: int, visit: int) -> dict[int, dict[str, Any]]:
    return {
        row["guesses"]: row
        for row in result["rollouts"]
        if (row["prompts_at_once"], row["visit"]) == (at_once, visit)
    }


def test_the_pages_say_what_the_results_say(result: dict[str, Any]) -> None:
    pages = [REPOSITORY / "benchmarks" / "README.md", REPOSITORY / "docs" / "gpu.md"]
    page, gpu = (" ".join(path.read_text(encoding="utf-8").split()) for path in pages)
    for guesses in (0, 2, 4, 8, 16):
        cells = [str(guesses)]
        for at_once, visit in ((1, 1), (1, 2), (4, 1), (4, 2)):
            row = rows_of(result, at_once, visit)[guesses]
            cells += [f"{row['passes_a_token']:.2f}", f"{row['times_without']:.2f}"]
        assert f"| {' | '.join(cells)} |" in page
    assert all(row["waits_a_token"] == 0 for row in result["rollouts"])
    inside = result["constrained"]
    assert f"{inside['passes_plain']} passes to {inside['passes_guessed']}" in page
    assert f"{inside['times_plain']:.2f} of the time" in page
    for name, row in result["scripted"].items():
        cells = [f"{row[f'{way}_an_answer']:.1f}" for way in ("tokens", "forced_alone", "all_guesses")]  # fmt: skip
        assert f"| {name} | {' | '.join(cells)} |" in page
    path = REPOSITORY / "benchmarks" / "results" / "rollout_ops.json"
    forms = json.loads(path.read_text(encoding="utf-8"))["forms"]
    kernels = forms["merged weights, a pass of 8 guesses"]["kernels_a_token"]
    assert f"eight guesses starts {kernels:,.0f}" in gpu
    for visit, where in ((1, "at a prompt's first visit"), (2, "at a second")):
        passes = rows_of(result, 4, visit)[8]["passes_a_token"]
        assert f"{passes:.2f}" in gpu
        assert f"{kernels * passes:,.0f} {'a token ' * (visit == 1)}{where}" in gpu
