"""Chats asked from Python: by threads, after the end, with what is no list."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

import ffr
from ffr.errors import DataError, UsageError


@pytest.fixture
def index(tmp_path: Path):  # type: ignore[no-untyped-def]
    path = tmp_path / "WhatsApp Chat with Trip.txt"
    path.write_text("12/05/2023, 18:02 - Ann: a flat in Alfama\n13/05/2023, 18:05 - Bob: yes\n")
    with ffr.Index(tmp_path / "kept", model="baseline:overlap") as opened:
        opened.add(path, path)
        yield opened


def test_several_threads_ask_and_add_at_once(index: Any, tmp_path: Path) -> None:
    def work(number: int) -> int:
        if number % 4:
            return len(index.retrieve("Alfama").hits)
        other = tmp_path / f"WhatsApp Chat with {number}.txt"
        other.write_text(f"12/05/2023, 18:02 - Zoe: zebra {number}\n")
        return len(index.add(other))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(24))) == [1] * 24
    assert len(index.chats) == 7


def test_a_chat_goes_by_its_number_too(index: Any) -> None:
    assert len(index.retrieve("Alfama", chats=[1], since=date(2023, 5, 12)).hits) == 1
    index.forget(1)
    with pytest.raises(UsageError, match="holds no chat yet"):
        index.retrieve("Alfama")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda index: index.retrieve(None), "give a text"),
        (lambda index: index.retrieve("x", by="Ann"), "give a list of names"),
        (lambda index: index.retrieve("x", by=[7]), "give a list of names"),
        (lambda index: index.retrieve("x", top="3"), "give a whole number"),
        (lambda index: index.retrieve("x", since="2023"), r"give a `datetime\.date`"),
        (lambda index: index.retrieve("x", until=datetime(2023, 5, 1)), r"give a `datetime\.date`"),
        (lambda index: index.add(7), "is no path"),
    ],
)
def test_what_is_of_a_wrong_kind(index: Any, call: Callable[[Any], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(index)


def test_what_cannot_be_is_said(index: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give numbers from 0"):
        index.add(tmp_path, pause_hours="8")
    with pytest.raises(UsageError, match="--has moon is unknown"):
        index.retrieve("x", has="moon")
    index.close()
    index.close()
    with pytest.raises(UsageError, match="was closed"):
        index.retrieve("Alfama")
    (tmp_path / "a file").write_text("")
    with pytest.raises(DataError, match="cannot be used as a store"):
        ffr.Index(tmp_path / "a file")
