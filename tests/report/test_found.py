"""What people see of what a search found."""

from __future__ import annotations

import io
from pathlib import Path

import PIL.Image
import pytest
from chat_builds import TRIP, add, said

from ffr.chats.chat import Media
from ffr.corpus.archive import Archive
from ffr.corpus.found import Found
from ffr.corpus.pictures import lay_out_pictures
from ffr.corpus.store import Store
from ffr.report.found import found_as_json, picture_escape, print_found
from ffr.retrieval.lexical import BaselineRetriever
from ffr.terminal import PlainConsole


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    PIL.Image.new("RGB", (8, 6), "red").save(tmp_path / "flat.png")
    (tmp_path / "export.txt").write_text("as an app wrote it")
    with Store(tmp_path / "s", is_new_allowed=True) as opened:
        add(opened, source=tmp_path / "export.txt")
        lay_out_pictures(opened)
        yield opened


def _printed(found: Found, store: Store) -> str:
    console = PlainConsole(file=io.StringIO(), width=80, is_coloured=False)
    print_found(found, store, console, environment={})
    return console.file.getvalue()  # type: ignore[attr-defined]


def _ask(store: Store, query: str) -> Found:
    return Archive(store, BaselineRetriever("overlap"), None, None).ask(query)


def test_a_fragment_in_its_conversation(store: Store) -> None:
    path = store.folder.parent / "flat.png"
    assert _printed(_ask(store, "公园"), store) == (
        "1  12 May 2023 · Trip · Ann, Bob · 2 messages, 1 picture · 1.00\n"
        "   12 May 2023\n"
        "   18:00 Ann  shall we fly to Lisbon in May?\n"
        "   18:05 Bob  I found a flat in Alfama\n"
        " > 18:10 Ann  这周末去公园吗\n"
        f" > 18:11 Bob  [picture {path}]\n"
        "   13 May 2023\n"
        "   18:00 Ann  did the dentist call?\n"
        "   18:01 Bob  no dentist today\n"
        "\n"
        "1 fragment; searched 6 of 6 messages\n"
    )


def test_nothing_is_an_answer(store: Store) -> None:
    found = _ask(store, "zebra")
    assert _printed(found, store) == "Nothing found; searched 6 of 6 messages\n"
    assert found_as_json(found) == {
        "query": "zebra",
        "found": False,
        "hits": [],
        "num_more": 0,
        "num_searched": 6,
        "num_messages": 6,
        "num_not_understood": 0,
        "failures": [],
        "searched": "searched 6 of 6 messages",
    }


def test_it_is_said_how_a_hit_was_found(store: Store) -> None:
    console = PlainConsole(file=io.StringIO(), width=80, is_coloured=False)
    print_found(_ask(store, "公园"), store, console, environment={}, says_how=True)
    assert "   by words #1; it has 公园\n\n1 fragment" in console.file.getvalue()  # type: ignore[attr-defined]


def test_json_says_all(store: Store) -> None:
    (hit,) = found_as_json(_ask(store, "公园"))["hits"]
    assert (hit["ways"], hit["words"], hit["is_weak"]) == ({"words": 1}, ["公园"], False)
    assert (hit["chat"], hit["score"], hit["found_by"]) == ("Trip", 1.0, ["meaning", "words"])
    first, second = hit["messages"]
    assert (first["speaker"], first["is_me"], first["time"]) == ("Ann", True, "2023-05-12T18:10:00")
    assert second["media"] == [
        {
            "kind": "picture",
            "name": "flat.png",
            "path": str(store.folder.parent / "flat.png"),
            "is_found": True,
        }
    ]


def test_a_stranger_cannot_steer_the_terminal(store: Store) -> None:
    evil = "\x1b[2J\x1b]0;title\x07 ‮gnp.exe zebra"
    add(
        store,
        (said("Eve\x1b[31m", evil, 5), said("Eve", "", 6, Media("file", "a\nb\x1b.txt"))),
        "x\x1b",
    )
    printed = _printed(_ask(store, "zebra"), store)
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "‮" not in printed
    assert "zebra" in printed


def test_a_long_fragment_is_cut_and_says_so(store: Store) -> None:
    add(store, tuple(said("Zoe", f"zebra {number}", number) for number in range(60)), "zoo")
    printed = _printed(_ask(store, "zebra"), store)
    assert "60 messages" in printed
    assert printed.count("zebra ") == 26
    assert "   …\n" in printed


def test_a_picture_goes_to_a_terminal_packed_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PIL.Image.new("RGB", (2000, 100), "red").save(path)
    kitty = picture_escape(str(path), "kitty")
    iterm = picture_escape(str(path), "iterm")
    assert kitty is not None
    assert kitty.startswith("\x1b_Ga=T,f=100,m=0;iVBOR")
    assert kitty.endswith("\x1b\\")
    assert iterm is not None
    assert iterm.startswith("\x1b]1337;File=inline=1;width=240px:iVBOR")
    path.write_bytes(b"no picture \x1b]0;evil\x07")
    assert picture_escape(str(path), "kitty") is None
    assert len(TRIP) == 6
