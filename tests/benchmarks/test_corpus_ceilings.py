"""What is counted of an archive by hand, and the page has the committed table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from script_modules import script

from ffr.dialogue import Dialogue, Example, Fragment, Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ceilings() -> Iterator[ModuleType]:
    with script(ROOT / "benchmarks" / "corpus_ceilings.py") as module:
        yield module


def _example(name: str, query: str, concept: str, source: str, picture: str = "a.png") -> Example:
    dialogue = Dialogue.of([("Ann", name), ("Bob", Image(picture))])
    meta = {"query_kind": "topic", "concept": concept, "source_dialogue": source}
    return Example(dialogue, query, Fragment((0, 1), (0,)), meta=meta)


def test_concepts_of_pictures_and_dialogues(ceilings: ModuleType) -> None:
    known = [
        _example("one", "x", "bus", "s"),
        _example("one", "y", "bus", "s"),
        _example("two", "z", "tram", "t"),
        _example("three", "z", "tram", "u", picture="b.png"),
    ]
    assert ceilings.concepts_of_pictures(known) == {"a.png": "bus", "b.png": "tram"}
    of_concept = ceilings.dialogues_of_concepts(known)
    assert {name: len(found) for name, found in of_concept.items()} == {"bus": 1, "tram": 2}


def test_what_is_as_close_as_two_people_are(ceilings: ModuleType) -> None:
    # angles of 0, 20, 25, 45 and 90 degrees; 0 and 20 are of one conversation
    angles = {"a": 0, "b": 20, "c": 25, "d": 45, "e": 90}
    sources = {"a": "s", "b": "s", "c": "t", "d": "u", "e": "v"}
    known = [_example(name, name, "x", sources[name]) for name in angles]

    def vectors_of(texts: list[str]) -> np.ndarray:
        turned = np.radians([angles[text] for text in texts])
        return np.stack([np.cos(turned), np.sin(turned)], axis=1)

    alike = ceilings.AlikeWords(known, vectors_of)
    least = alike.threshold("topic")
    assert least == pytest.approx(np.cos(np.radians(20)))
    numbers = {e.query: alike.number(e, "topic", least - 1e-9) for e in known}
    # of b it is a and c; of c it is b and d
    assert numbers == {"a": 2, "b": 3, "c": 3, "d": 2, "e": 1}


def test_means_by_kind_leave_out_what_has_no_value(ceilings: ModuleType) -> None:
    rows = [{"recall": 1.0, "by_words": None}, {"recall": 0.0, "by_words": 0.5}]
    found = ceilings.figures_of(rows, ["one", "two"])
    assert found["num_queries"] == 2
    assert found["recall"]["mean"] == 0.5
    assert found["by_words"] is None


def test_what_is_reachable_by_hand(ceilings: ModuleType) -> None:
    def kind(number: int, words: float, concept: float) -> dict[str, Any]:
        return {
            "num_queries": number,
            "by_words": {"mean": words},
            "by_words_best": {"mean": words / 2},
            "by_concept": {"mean": concept},
            "by_concept_best": {"mean": concept / 2},
        }

    kinds = {
        "human_caption_en": kind(4, 0.1, 0.5),
        "human_topic_en": kind(4, 1.0, 0.1),
        "crosswoz_goal_zh": kind(2, 0.1, 0.1),
        "all": {"num_queries": 10},
    }
    assert ceilings.reachable(kinds, "") == pytest.approx((4 * 0.5 + 4 + 2) / 10)
    assert ceilings.reachable(kinds, ceilings.BEST) == pytest.approx((4 * 0.25 + 2 + 2) / 10)


def test_the_page_has_the_table_of_the_results(ceilings: ModuleType) -> None:
    page = (ROOT / "docs" / "archive-eval.md").read_text(encoding="utf-8")
    found = json.loads(ceilings.RESULTS.read_text(encoding="utf-8"))
    assert ceilings.with_table(page, ceilings.table_of(found)) == page
