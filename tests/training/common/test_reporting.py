"""Figures and tables of answers into trackio and Weights & Biases, by stand-ins for both packages."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger

from ffr.settings import SftConfig
from ffr.training.common.reporting import TrackioLogger, outside_loggers, report_table


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What a stand-in for trackio was called with."""
    made: list[tuple[Any, ...]] = []
    module = ModuleType("trackio")
    module.init = lambda **words: made.append(("init", words))  # type: ignore[attr-defined]
    module.log = lambda metrics, step: made.append(("log", metrics, step))  # type: ignore[attr-defined]
    module.finish = lambda: made.append(("finish",))  # type: ignore[attr-defined]
    module.Table = lambda dataframe: dataframe.to_dict("records")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trackio", module)
    return made


def test_trackio_gets_settings_figures_and_tables(
    calls: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    config = SftConfig(report_to="trackio", report_project="chats", seed=7)
    (logger,) = outside_loggers(config, tmp_path / "sft-a-1")
    (_, words) = calls.pop()
    assert (words["project"], words["name"], words["resume"]) == ("chats", "sft-a-1", "allow")
    assert words["config"]["seed"] == 7
    logger.log_metrics({"loss": 2.5}, step=3)
    rows = [{"step": 3, "completion": "a"}, {"step": 3, "completion": "b"}]
    report_table([logger, CSVLogger(tmp_path)], "completions", rows, 3)
    logger.finalize("success")
    assert calls == [("log", {"loss": 2.5}, 3), ("log", {"completions": rows}, 3), ("finish",)]
    assert (logger.name, logger.version) == ("trackio", "sft-a-1")


def test_a_logger_as_lightning_has_them_gets_the_table() -> None:
    found: list[Any] = []

    class Keeps(TrackioLogger):
        def __init__(self) -> None:
            Logger.__init__(self)

        def log_table(self, key: str, columns: Any, data: Any, step: int) -> None:
            found.append((key, columns, data, step))

    report_table([Keeps()], "completions", [{"a": 1, "b": None}], 5)
    report_table([Keeps()], "completions", [], 6)
    assert found == [("completions", ["a", "b"], [[1, None]], 5)]


def test_nothing_is_reported_unasked(tmp_path: Path) -> None:
    assert outside_loggers(SftConfig(), tmp_path) == []
