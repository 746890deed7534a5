"""The order that the settings ask for: what it is made of, and how its settings change what is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ffr.dialogue import Dialogue, Example, Fragment, Utterance
from ffr.errors import DataError
from ffr.runs import ModelSource
from ffr.settings import GrpoConfig
from ffr.training.common.stage import Job, Start
from ffr.training.curriculum.difficulty import write_difficulties
from ffr.training.curriculum.order import (
    Difficulty,
    OnlineOrder,
    PacedOrder,
    PaperOrder,
    ShuffledOrder,
)
from ffr.training.grpo.data_order import ChosenOrder, choose_order

NO_MODEL: Any = None
"""In place of the start model: with a table nothing is asked of it."""


@pytest.fixture
def data() -> list[Example]:
    """Ten queries on five dialogues, the harder the later."""
    dialogues = [
        Dialogue(f"d{number}", (Utterance("a", (f"line {number}",)),)) for number in range(5)
    ]
    return [
        Example(dialogues[number % 5], f"query {number}", Fragment((0,))) for number in range(10)
    ]


@pytest.fixture
def table(tmp_path: Path, data: list[Example]) -> Path:
    write_difficulties(
        tmp_path / "table.csv",
        data,
        [Difficulty(1 - number / 10, number / 10, False) for number in range(10)],
    )
    return tmp_path / "table.csv"


def choose(data: Any, **settings: Any) -> ChosenOrder:
    config = GrpoConfig(batch_size=1, accumulate=2, **settings)
    return choose_order(Start(config, ModelSource("tiny", "tiny"), data, None, ""), NO_MODEL, Job())


def test_without_a_curriculum(data: list[Example]) -> None:
    chosen = choose(data, epochs=1.5)
    assert isinstance(chosen.order, ShuffledOrder)
    assert chosen.num_steps == 8, "15 items in steps of 2"
    assert (chosen.levels, chosen.note) == (None, None)
    packed = choose(data, pack_queries=True, query_position="last").order.draw(10)
    assert all(packed[place] % 5 == packed[place + 1] % 5 for place in range(0, 10, 2)), (
        "queries of a dialogue meet"
    )


def test_the_paper_drops_items_and_the_steps_follow(data: list[Example], table: Path) -> None:
    chosen = choose(data, curriculum="paper", difficulty=str(table))
    assert isinstance(chosen.order, PaperOrder)
    assert chosen.levels is not None
    # quartiles 0.325, 0.55, 0.775 of F1 and their like of entropy: three easy, two medium, two confusing, three hard
    assert chosen.levels == ["easy"] * 3 + ["medium"] * 2 + ["confusing"] * 2 + ["hard"] * 3
    assert (
        chosen.note
        == "curriculum paper: 3 easy, 2 medium, 2 confusing, 3 hard; 8 of 10 items are trained on"
    )
    assert chosen.num_steps == 4
    drawn = chosen.order.draw(8)
    assert (sorted(drawn[:3]), drawn[3:5], sorted(drawn[5:])) == ([0, 1, 2], [3, 5], [7, 8, 9])


def test_a_pool_starts_with_its_share(data: list[Example], table: Path) -> None:
    """Of a large training's first draws: the pool has just begun to grow from 1 item, from 5, or has all."""
    for share, first in ((0.1, {0, 1}), (0.5, set(range(6))), (1.0, set(range(10)))):
        settings = {
            "curriculum": "paced",
            "difficulty": str(table),
            "pace_start_share": share,
            "epochs": 1000.0,
        }
        order = choose(data, **settings).order
        assert isinstance(order, PacedOrder)
        assert set(order.draw(10)) == first


def test_online(data: list[Example], table: Path) -> None:
    chosen = choose(data, curriculum="online", difficulty=str(table))
    assert isinstance(chosen.order, OnlineOrder)
    assert chosen.num_steps == 5


def test_a_missing_table_is_named(data: list[Example], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: not found"):
        choose(data, curriculum="paced", difficulty=str(tmp_path / "none.csv"))
