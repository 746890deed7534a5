"""`ffr index people`, as a person types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_builds import add, said
from click.testing import CliRunner, Result

from ffr.cli.main import ffr
from ffr.corpus.store import Store

NUMBER = "+351 912 345 678"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    with Store(tmp_path / "kept", is_new_allowed=True) as store:
        add(store)
        add(store, (said(NUMBER, "hi"),), "Work\x1b[2J", source=tmp_path / "work.txt")
    return tmp_path / "kept"


def _people(kept: Path, *arguments: str) -> Result:
    return CliRunner().invoke(ffr, ["index", "people", *arguments, "--index", str(kept)])


def test_people_are_listed_joined_and_parted(kept: Path) -> None:
    listed = _people(kept)
    assert listed.output.splitlines() == [
        "Ann (me): 3 messages in Trip (chat 1)",
        "Bob: 3 messages in Trip (chat 1)",
        f"{NUMBER}: 1 message in Work␛[2J (chat 2)",
        "3 people",
    ]
    joined = _people(kept, "--same", "Ann", NUMBER)
    assert (joined.exit_code, joined.output) == (0, f"Ann is also {NUMBER}, in 2 chats\n")
    assert _people(kept).output.splitlines()[:2] == [
        "Ann (me): 4 messages in Trip (chat 1), Work␛[2J (chat 2)",
        f"   also {NUMBER}",
    ]
    parted = _people(kept, "--apart", NUMBER)
    assert (parted.exit_code, parted.output) == (0, "1 is a person of its own again\n")
    assert _people(kept).output == listed.output


def test_a_number_that_two_have_is_said(kept: Path, tmp_path: Path) -> None:
    with Store(kept) as store:
        add(store, (said("351912345678", "ho"),), "Other", source=tmp_path / "other.txt")
    last = _people(kept).output.splitlines()[-1]
    asked = f'ffr index people --same "{NUMBER}" "351912345678"'
    assert last == f"perhaps one person, by a number: {asked}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Ann"], "names go with --same or with --apart"),
        (["--same"], "names go with --same"),
        (["--same", "--apart", "Ann"], "names go with --same"),
        (["--same", "Ann", "Eve"], "Eve: nobody in"),
        (["--apart", "Ann"], "nobody else was said to be the same"),
    ],
)
def test_what_cannot_be_is_said(kept: Path, arguments: list[str], words: str) -> None:
    found = _people(kept, *arguments)
    assert found.exit_code == 2
    assert words in found.output


def test_without_a_store(tmp_path: Path) -> None:
    found = _people(tmp_path / "none")
    assert found.exit_code == 1
    assert "holds no chat yet" in found.output
