"""LINE's text exports in the languages of its phones, written by the tests."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffr.chats.chat import Chat
from ffr.chats.reading import read_chat
from ffr.chats.stream import ReadChoices
from ffr.errors import DataError, FfrError


def read(folder: Path, *lines: str, name: str = "line.txt", **choices: str) -> Chat:
    (folder / name).write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    return read_chat(folder / name, choices=ReadChoices(**choices))


@pytest.mark.parametrize(
    ("first", "title"),
    [
        ("[LINE] Chat history with Ann", "Ann"),
        ("\ufeff[LINE] Chat history in Trip to Rome", "Trip to Rome"),
        ("[LINE] 花子とのトーク履歴", "花子"),
        ("[LINE] 家族のトーク履歴", "家族"),
        ("[LINE] 與小明的聊天記錄", "小明"),
        ("[LINE] 与小明的聊天记录", "小明"),
        ("[LINE] 家人的聊天記錄", "家人"),
        ("[LINE] 지민님과의 대화", "지민"),
        ("[LINE] 가족 대화내용", "가족"),
        ("[LINE] ประวัติการแชทกับ สมชาย", "สมชาย"),
        ("[LINE] Something else", "Something else"),
    ],
)
def test_titles(tmp_path: Path, first: str, title: str) -> None:
    chat = read(tmp_path, first, "Saved on: 2024/01/15 10:30", "", "2024/01/15(Mon)", "10:31\tA\tx")

    assert (chat.app, chat.title) == ("line", title)
    assert (chat.account.num_system, chat.account.num_messages, chat.account.num_blank) == (3, 1, 1)


@pytest.mark.parametrize(
    "day",
    [
        "2024/01/15(Mon)",
        "2024/01/15(月)",
        "2024.01.15 Monday",
        "2024.01.15 月曜日",
        "2024年1月15日 月曜日",
        "2024年1月15日 星期一",
        "2024년 1월 15일 월요일",
        "2024. 1. 15. 월요일",
        "2024/1/15 週一",
        "Mon, 01/15/2024",
        "Mon, 15/01/2024",
        "จ. 15/01/2567",
        "2567.01.15 วันจันทร์",
        "Monday, January 15, 2024",
        "15 January 2024",
        "T2, 15/01/2024",
        "2024-01-15",
        "\u200e2024/01/15(Mon)",
    ],
)
@pytest.mark.parametrize(
    "clock", ["21:05", "午後9:05", "下午9:05", "오후 9:05", "09:05PM", "9:05 p.m.", "PM 9:05"]
)
def test_days_and_clocks(tmp_path: Path, day: str, clock: str) -> None:
    chat = read(tmp_path, "[LINE] Chat history with Ann", "", day, f"{clock}\tAnn\thi")

    assert [(m.sender, m.text, m.time) for m in chat.messages] == [
        ("Ann", "hi", datetime(2024, 1, 15, 21, 5))
    ]


def test_a_weekday_tells_the_order_of_day_and_month(tmp_path: Path) -> None:
    chat = read(tmp_path, "[LINE] x", "Thu, 02/01/2024", "10:00\tA\tx")
    american = read(tmp_path, "[LINE] x", "Sat, 06/01/2024", "10:00\tA\tx")

    assert chat.account.decisions == ["day/month order m/d (seen Thu 02/01)"]
    assert chat.messages[0].time == datetime(2024, 2, 1, 10)
    assert american.account.decisions[0].endswith(
        "--date-order settles it)"
    )  # 6 Jan and 1 Jun: Saturdays


def test_lines_in_quotes_are_one_message(tmp_path: Path) -> None:
    chat = read(
        tmp_path,
        "[LINE] Chat history with Ann",
        "Saved on: 2024/01/15 10:30",
        "",
        "2024/01/15(Mon)",
        '10:00\tAnn\t"one',
        "",
        "2024/01/16(Tue)",
        "10:30\tBob\tfaked",
        '""three"" 5"" wide"',
        '10:01\tBob\t"quoted" he said',
        '10:02\tAnn\t"never closed',
        "10:03\tBob\tby me",
        "and a second line",
        "",
        "2024/01/16(Tue)",
        '09:00\tAnn\t"short"',
    )

    assert [m.text for m in chat.messages] == [
        'one\n\n2024/01/16(Tue)\n10:30\tBob\tfaked\n"three" 5" wide',
        '"quoted" he said',
        '"never closed',
        "by me\nand a second line",
        '"short"',
    ]
    assert [m.time.day for m in chat.messages if m.time] == [15, 15, 15, 15, 16]
    account = chat.account
    assert (account.num_messages, account.num_continuations, account.num_blank) == (5, 5, 2)
    assert (account.num_system, account.num_lines) == (4, 16)


@pytest.mark.parametrize(
    ("text", "kind", "num_media"),
    [
        ("[Photo]", "picture", 1),
        ("[写真]", "picture", 1),
        ("[圖片]", "picture", 1),
        ("[사진]", "picture", 1),
        ("[รูป]", "picture", 1),
        ("[Hình ảnh]", "picture", 1),
        ("[スタンプ]", "sticker", 1),
        ("[貼圖]", "sticker", 1),
        ("[스티커]", "sticker", 1),
        ("[動画]", "video", 1),
        ("[동영상]", "video", 1),
        ("[Voice message]", "voice", 1),
        ("[ボイスメッセージ]", "voice", 1),
        ("[File]", "file", 1),
        ("[檔案]", "file", 1),
        ("[位置情報]", "place", 0),
        ("[連絡先]", "contact", 0),
        ("[投票]", "poll", 0),
        ("[アルバム] 旅行", "picture", 0),
        ("☎ 通話時間 1:23", "call", 0),
        ("https://example.org/x", "link", 0),
        ("[sic]", "text", 0),
        ("[ノート] 読んで", "text", 0),
        ("Photos", "text", 0),
    ],
)
def test_kinds(tmp_path: Path, text: str, kind: str, num_media: int) -> None:
    chat = read(tmp_path, "[LINE] x", "2024/01/15(Mon)", f"10:00\tA\t{text}")

    assert (chat.messages[0].kind, len(chat.messages[0].media)) == (kind, num_media)


def test_lines_of_the_app(tmp_path: Path) -> None:
    chat = read(
        tmp_path,
        "[LINE] 家族のトーク履歴",
        "2024/01/15(月)",
        "10:00\t\t花子が参加しました。",
        "10:01\t花子がグループ名を変更しました。",
        "10:02\t花子\tメッセージの送信を取り消しました",
        me="花子",
    )

    assert [(m.sender, m.kind, m.is_deleted) for m in chat.messages] == [
        (None, "system", False),
        (None, "system", False),
        ("花子", "text", True),
    ]
    assert chat.people["花子"].is_me


def test_a_quote_is_not_closed_by_the_inches_of_others(tmp_path: Path) -> None:
    chat = read(
        tmp_path,
        "[LINE] x",
        "2024/01/15(Mon)",
        '10:00\tAnn\t"never closed',
        "10:01\tBob\thow wide?",
        '10:02\tAnn\t27"',
    )

    assert [m.text for m in chat.messages] == ['"never closed', "how wide?", '27"']


def test_columns_parted_by_blanks(tmp_path: Path) -> None:
    chat = read(
        tmp_path,
        "2024.01.15 Monday",
        "09:05 Mary Ann good morning",
        "at 10:30 we meet",
        "09:06 Mary Ann Photos",
        "09:07 花子 おはよう",
        "09:08 Mary Ann good night",
        "09:09 花子 joined the group.",
        "09:09 花子が送信を取り消しました",
        "2024.01.16 Tuesday",
        "09:10 Bob Stickers",
    )

    assert [(m.sender, m.text, m.kind) for m in chat.messages] == [
        ("Mary Ann", "good morning\nat 10:30 we meet", "text"),
        ("Mary Ann", "", "picture"),
        ("花子", "おはよう", "text"),
        ("Mary Ann", "good night", "text"),
        (None, "花子 joined the group.", "system"),
        (None, "花子が送信を取り消しました", "system"),
        ("Bob", "", "sticker"),
    ]
    assert "parted from words by blanks" in chat.account.decisions[1]


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    chat = read(
        tmp_path,
        "[LINE] Chat history with Ann",
        "Saved on: 2024/01/15 10:30",
        "",
        "",
        "cut here",
        "10:00\tAnn\tbefore any day",
        "2024/13/45(Mon)",
        "10:01\tAnn\ton no day",
        "2024/01/15(Mon)",
        "25:99\tAnn\tat no time",
        me="Bob",
    )

    assert [m.time for m in chat.messages] == [None, None, None]
    assert chat.account.num_not_understood == 1
    assert chat.account.faults == [
        "line.txt:7 names a day that no calendar has, so that what was said on it has no time",
        "3 lines have no time that can be told, the first is line.txt:6",
        "nobody here is called Bob, so nobody is marked as me",
    ]


@pytest.mark.parametrize(
    "text",
    ["2024-01-15\n10:00 breakfast\n", "see\n[LINE] Chat history with Ann\n", "10:00\tAnn\thi\n"],
)
def test_what_is_no_chat(tmp_path: Path, text: str) -> None:
    (tmp_path / "notes.txt").write_text(text, encoding="utf-8")

    with pytest.raises(DataError, match="no chat of the form line"):
        read_chat(tmp_path / "notes.txt", form="line")


PIECES = st.sampled_from(
    [
        "[LINE] Chat history with A\n", "2024/01/15(Mon)\n", "Mon, 01/15/2024\n", "10:00\tA\t", '"',
        '""', "\n", "\r\n", "\t", "午前9:05\tB\t", "[Photo]", "☎", "[", "]", "99:99\tA\tx", "\u202e",
        "9999/99/99\n", "0000/00/00\n", "09:05 Ann hi", "\0", "2024.01.15 Monday\n", "٩:٠٥\tA\tx\n",
    ]
)  # fmt: skip


def _is_read_whole(folder: Path, text: str) -> None:
    path = folder / "line.txt"
    path.write_text(text, encoding="utf-8", newline="", errors="surrogatepass")
    try:
        chat = read_chat(path, form="line")
    except FfrError:
        return
    lines = path.read_bytes().split(b"\n")
    assert chat.account.num_lines == len(lines) - (lines[-1] == b"")
    assert sum(m.kind != "system" for m in chat.messages) == chat.account.num_messages
    assert "\n" not in chat.summary


@settings(max_examples=60)
@given(st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=30).map("".join))
def test_whatever_stands_there_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    _is_read_whole(tmp_path_factory.getbasetemp(), text)


@pytest.mark.slow
@pytest.mark.exhaustive
@settings(max_examples=20_000)
@given(st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=40).map("".join))
def test_whatever_stands_there_is_accounted_for_many(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    _is_read_whole(tmp_path_factory.getbasetemp(), text)
