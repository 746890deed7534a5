"""WhatsApp exports of many phones, written by the tests."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffr.chats.chat import Chat, Message
from ffr.chats.reading import read_chat, read_chats
from ffr.chats.stream import ReadChoices
from ffr.errors import DataError, FfrError, UsageError

NEW_YEARS_EVE = datetime(2023, 12, 31, 21, 15)

HEADERS = [
    "31/12/2023, 21:15 - Ann: hi",
    "31/12/2023 21:15 - Ann: hi",
    "31.12.2023, 21:15 - Ann: hi",
    "31.12.2023 klo 21.15 - Ann: hi",
    "[31.12.2023 klo 21.15.00] Ann: hi",
    "31/12/2023 21.15 - Ann: hi",
    "31.12.2023 kl. 21.15 - Ann: hi",
    "2023-12-31 21:15 - Ann: hi",
    "2023. 12. 31. 21:15 - Ann: hi",
    "[2023. 12. 31. 21:15:00] Ann: hi",
    "31/12/2023 à 21:15 - Ann : hi",
    "31/12/2023 às 21:15 - Ann: hi",
    "31.12.23 г., 21:15 ч. - Ann: hi",
    "31. 12. 2023. 21:15 - Ann: hi",
    "2023/12/31 下午9:15 - Ann: hi",
    "2023/12/31 晚上9:15 - Ann: hi",
    "[2023/12/31 下午9:15:00] Ann: hi",
    "2023年12月31日 21:15 - Ann: hi",
    "2023年12月31日下午9:15 - Ann: hi",
    "2023년 12월 31일 오후 9:15 - Ann: hi",
    "[2023. 12. 31. 오후 9:15:00] Ann: hi",
    "2023/12/31 午後9:15 - Ann: hi",
    "21:15, 31/12/2023 - Ann: hi",
    "[21:15, 31/12/2023] Ann: hi",
    "[9:15 PM, 12/31/2023] Ann: hi",
    "31/12/23 21:15:00: Ann: hi",
    "12/31/23, 9:15:00 PM: Ann: hi",
    "12/31/23, 9:15\u202fPM - Ann: hi",
    "31/12/2023, 9:15 pm - Ann: hi",
    "31/12/23, 9:15 p. m. - Ann: hi",
    "31/12/23 9:15\u00a0p.\u00a0m. - Ann: hi",
    "31/12/2023, 9:15 μ.μ. - Ann: hi",
    "2023. 12. 31. du. 9:15 - Ann: hi",
    "31/12/2023, 9:15 CH - Ann: hi",
    "31/12/2566 21:15 - Ann: hi",
    "31/12/2023 9:15 หลังเที่ยง - Ann: hi",
    "\u200f[٣١\u200f/١٢\u200f/٢٠٢٣، ٩:١٥:٠٠ م] Ann: hi",
    "۱۴۰۲/۱۰/۱۰،\u200f ۲۱:۱۵ - Ann: hi",
    "३१/१२/२०२३, ९:१५ अपराह्न - Ann: hi",
    "31/12/2023 9:15 ب.ظ. - Ann: hi",
    "[令和5/12/31 21:15:00] Ann: hi",
    "112/12/31 下午9:15 - Ann: hi",
    "[2023-12-31 21 h 15 min 00 s] Ann: hi",
    "2023-12-31, 9:15 p.m. - Ann: hi",
    "31-12-23 21:15 - Ann: hi",
    "31 12 2023, 21:15 - Ann: hi",
    "Dec 31, 2023, 9:15 PM - Ann: hi",
    "31 de dez. de 2023 21:15 - Ann: hi",
    "31 дек. 2023 г., 21:15 - Ann: hi",
    "31.12.2023, 9:15 ÖS - Ann: hi",
    "2023-12-31 9:15 em - Ann: hi",
    "31.12.2023, 9:15 odp. - Ann: hi",
    "[31/12/2023, 9:15:00\u202fPM] ~\u202fAnn: hi",
    "[١٨\u200f/٦\u200f/١٤٤٥ هـ، ٩:١٥:٠٠ م] Ann: hi",
    "[21:15:00, 31/12/2023] Ann: hi",
    "2023年12月31日 星期日 21:15 - Ann: hi",
    "\u200e[31/12/2023, 21:15:00] \u202aAnn\u202c: hi",
    "\ufeff[31/12/2023, 21:15:00] \u2068Ann\u2069: hi",
]


def read(folder: Path, *lines: str, name: str = "chat.txt", **choices: str) -> Chat:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_chat(folder / name, choices=ReadChoices(**choices))


def android(folder: Path, *texts: str) -> tuple[Message, ...]:
    return read(folder, *(f"31/12/2023, 21:15 - Ann: {text}" for text in texts)).messages


def iphone(folder: Path, *texts: str) -> tuple[Message, ...]:
    lines = (f"\u200e[31/12/2023, 21:15:00] Ann: \u200e{text}" for text in texts)
    return read(folder, *lines).messages


@pytest.mark.parametrize("line", HEADERS)
def test_every_style_of_header_is_read(tmp_path: Path, line: str) -> None:
    chat = read(tmp_path, line, "and more")

    assert [(m.sender, m.text, m.time) for m in chat.messages] == [
        ("Ann", "hi\nand more", NEW_YEARS_EVE)
    ]


@pytest.mark.parametrize(
    ("line", "hour"),
    [
        ("1/13/24, 12:05 AM - A: x", 0),
        ("1/13/24, 12:05 PM - A: x", 12),
        ("[2024/1/13 凌晨1:05:00] A: x", 1),
        ("[2024/1/13 中午12:05:00] A: x", 12),
        ("[2024/1/13 中午1:05:00] A: x", 13),
        ("[2024. 1. 13. 오전 12:05:00] A: x", 0),
        ("[13/1/2024, 12:05:00 ص] A: x", 0),
    ],
)
def test_clocks_of_twelve_hours(tmp_path: Path, line: str, hour: int) -> None:
    assert read(tmp_path, line).messages[0].time == datetime(2024, 1, 13, hour, 5)


@pytest.mark.parametrize(
    ("lines", "time", "decision"),
    [
        (["3/3/23, 10:00 - A: x", "27/3/23, 10:00 - A: x"], datetime(2023, 3, 3, 10), "seen 27/3"),
        (
            ["2/1/24, 10:00 - A: x", "2/2/24, 10:00 - A: x", "3/1/24, 10:00 - A: x"],
            datetime(2024, 2, 1, 10),
            "under d/m times run backwards at 3/1",
        ),
        (["1/2/24, 3:04 PM - A: x"], datetime(2024, 1, 2, 15, 4), "clock of AM and PM"),
        (
            ["01/02/2024, 15:04 - A: <Medien ausgeschlossen>"],
            datetime(2024, 2, 1, 15, 4),
            "language of the app's lines, de",
        ),
        (["01/02/2024, 15:04 - A: x"], datetime(2024, 2, 1, 15, 4), "a guess"),
        (["23-12-31 15:04 - A: x", "24-01-02 15:04 - A: x"], datetime(2023, 12, 31, 15, 4), "seen"),
        (["2023.31.12, 15:04 - A: x"], datetime(2023, 12, 31, 15, 4), "y/d/m"),
    ],
)
def test_order_of_day_and_month(
    tmp_path: Path, lines: list[str], time: datetime, decision: str
) -> None:
    chat = read(tmp_path, *lines)

    assert chat.messages[0].time == time
    assert decision in chat.account.decisions[0]


def test_a_told_order_is_kept_and_a_wrong_one_refused(tmp_path: Path) -> None:
    told = read(tmp_path, "1/2/24, 15:04 - A: x", date_order="mdy")

    assert told.messages[0].time == datetime(2024, 1, 2, 15, 4)
    assert told.account.decisions == ["day/month order m/d (as told)"]
    with pytest.raises(UsageError, match="no order of dates is called md"):
        read(tmp_path, "1/2/24, 15:04 - A: x", date_order="md")


def test_a_told_order_that_cannot_be_is_named(tmp_path: Path) -> None:
    chat = read(tmp_path, "14/2/2024, 15:04 - A: x", date_order="ymd")

    assert chat.account.decisions == [
        "day/month order d/m (seen 14/2); y/m/d was told, and the years stand elsewhere"
    ]


def test_old_phones_leave_out_the_year_they_are_in(tmp_path: Path) -> None:
    chat = read(
        tmp_path,
        "Dec 31, 2013, 9:15 PM - Ann: one",
        "Jan 2, 9:15 PM - Ann: two",
        "Jan 3, 9:15 PM - Bob: three",
    )

    assert [m.text for m in chat.messages] == ["one", "two", "three"]
    assert [m.time for m in chat.messages] == [datetime(2013, 12, 31, 21, 15), None, None]
    assert chat.account.faults == [
        "2 lines have a date without a year (Jan 2, 9:15 PM - Ann: two); no time is kept"
    ]


def test_a_quoted_chat_belongs_to_the_message_that_quotes_it(tmp_path: Path) -> None:
    chat = read(
        tmp_path,
        "31/12/2023, 21:15 - Ann: look:",
        "[21:15, 30/12/2023] Bob: one",
        "12/31/23, 9:15 PM - Bob: two",
        "31/12/2023, 21:16 - Bob: me?",
    )

    assert [(m.sender, m.text.count("\n")) for m in chat.messages] == [("Ann", 2), ("Bob", 0)]
    assert chat.account.num_continuations == 2
    assert chat.account.lines() == [
        "2 lines begin like a header of another style and are kept with the message before, the "
        "first is chat.txt:2"
    ]


def test_a_file_that_begins_within_a_quote(tmp_path: Path) -> None:
    chat = read(
        tmp_path,
        "[21:15, 30/12/2023] Bob: the end of a quote",
        *(f"31/12/2023, 21:{minute:02} - Ann: hi" for minute in range(12)),
    )

    assert len(chat) == 12
    assert chat.account.examples == ["chat.txt:1: [21:15, 30/12/2023] Bob: the end of a quote"]


def test_a_half_of_the_day_that_is_not_known_hides_no_message(tmp_path: Path) -> None:
    chat = read(
        tmp_path,
        "2023/12/31 下午9:15 - Ann: one",
        "2024/1/1 子时1:15 - Ann: two",
        "2024/1/1 上午9:15 - Ann: three",
    )

    assert [m.text for m in chat.messages] == ["one", "two", "three"]
    assert chat.account.faults == [
        "1 line has a word beside the time that is not known (2024/1/1 子时1:15 - Ann: two); the "
        "hour is taken as it stands"
    ]


def test_names_of_files_are_compared_as_people_see_them(tmp_path: Path) -> None:
    (tmp_path / "U\u0308bung.pdf").write_bytes(b"pdf")
    text = "31/12/2023, 21:15 - Ann: \u00dcbung.pdf (Datei angehängt)\n"
    (tmp_path / "_chat.txt").write_text(text, encoding="utf-8")

    assert read_chat(tmp_path).messages[0].media[0].file == "U\u0308bung.pdf"


def test_a_folder_of_archives_says_what_to_do(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        (tmp_path / name).write_bytes(b"")

    with pytest.raises(DataError, match="it holds 2 zip archives: name each by itself"):
        read_chat(tmp_path)


def test_two_exports_in_one_file_are_both_read(tmp_path: Path) -> None:
    notice = "Messages and calls are end-to-end encrypted. No one outside can read them."
    chat = read(
        tmp_path,
        f"12/30/23, 9:15 PM - {notice}",
        "12/30/23, 9:15 PM - Ann: one",
        f"\u200e[31/12/2023, 21:15:00] Ann: \u200e{notice}",
        "[31/12/2023, 21:16:00] Bob: two",
    )

    assert [m.text for m in chat.messages if m.kind == "text"] == ["one", "two"]
    assert chat.account.decisions == [
        "2 styles of headers in one file",
        "day/month order m/d (seen 12/30) in 12/30/23, 9:15 PM - Mes…",
        "day/month order d/m (seen 31/12) in [31/12/2023, 21:15:00] …",
    ]


def test_every_line_is_accounted_for(tmp_path: Path) -> None:
    chat = read(
        tmp_path,
        "from an older page",
        "",
        "31/12/2023, 21:15 - Ann created group “Trip: Rome”",
        "31/12/2023, 21:15 - Ann: a",
        "",
        "b",
        "99/99/2023, 21:15 - Ann: when?",
        "31/12/2023, 25:15 - Ann: when then?",
        "[31/12/20",
    )
    account = chat.account

    assert (account.num_not_understood, account.num_blank, account.num_system) == (1, 1, 1)
    assert (account.num_messages, account.num_continuations) == (3, 3)
    assert account.examples == ["chat.txt:1: from an older page"]
    assert [m.text for m in chat.messages[1:]] == ["a\n\nb", "when?", "when then?\n[31/12/20"]
    assert [m.time for m in chat.messages[2:]] == [None, None]
    assert account.faults == [
        "2 lines have dates that no calendar has, and no time is kept for them; the first is "
        "chat.txt:7",
        "1 line begins like a broken header and is kept with the message before: chat.txt:9",
    ]


def test_names(tmp_path: Path) -> None:
    chat = read(
        tmp_path,
        "31/12/2023, 21:15 - Dr: Bob: hi",
        "31/12/2023, 21:15 - Dr: Bob: there",
        "31/12/2023, 21:15 - Dr: Bob: <Media omitted>",
        "31/12/2023, 21:15 - \u202a+49\u00a0170\u00a01234567\u202c: x",
        "31/12/2023, 21:15 - Zoë 🎉: note: y",
        "31/12/2023, 21:15 - ~\u202fZoë 🎉: a stranger of the same name",
        "31/12/2023, 21:15 - אבי: z",
        me="Dr: Bob",
    )

    assert list(chat.people) == ["Dr: Bob", "+49 170 1234567", "Zoë 🎉", "~ Zoë 🎉", "אבי"]
    assert [person.is_me for person in chat.people.values()] == [True, False, False, False, False]
    assert chat.messages[4].text == "note: y"


def test_nobody_is_me_where_the_name_is_not_there(tmp_path: Path) -> None:
    chat = read(tmp_path, "31/12/2023, 21:15 - Ann: hi", me="Bob")

    assert chat.account.faults == ["nobody here is called Bob, so nobody is marked as me"]


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("<Media omitted>", "file", ""),
        ("<Medien ausgeschlossen>", "file", ""),
        ("<Nieznane słowa aplikacji>", "file", ""),
        ("IMG-20231231-WA0001.jpg (dosya ekli)", "picture", "IMG-20231231-WA0001.jpg"),
        ("\u200eIMG-20231231-WA0001.jpg (어떤 말)", "picture", "IMG-20231231-WA0001.jpg"),
        ("VID-20231231-WA0001.mp4（文件附件）", "video", "VID-20231231-WA0001.mp4"),
        ("PTT-20231231-WA0001.opus (Datei angehängt)", "voice", "PTT-20231231-WA0001.opus"),
        ("STK-20231231-WA0001.webp (file attached)", "sticker", "STK-20231231-WA0001.webp"),
        ("plan v2 (1).pdf (file attached)", "file", "plan v2 (1).pdf"),
        ("Ann Smith.vcf (file attached)", "contact", "Ann Smith.vcf"),
    ],
)
def test_media_of_android(tmp_path: Path, text: str, kind: str, name: str) -> None:
    (message,) = android(tmp_path, f"{text}\nlook!")

    assert (message.kind, message.text) == (kind, "look!")
    assert [(item.name, item.file) for item in message.media] == [(name, None)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<attached: 00000012-PHOTO-2023-12-31-21-15-00.jpg>", "picture"),
        ("<eklendi: 00000012-VIDEO-2023-12-31-21-15-00.mp4>", "video"),
        ("<附件：00000012-AUDIO-2023-12-31-21-15-00.opus>", "voice"),
        ("<unknown: 00000012-STICKER-2023-12-31-21-15-00.webp>", "sticker"),
        ("image omitted", "picture"),
        ("immagine omessa", "picture"),
        ("이미지 생략됨", "picture"),
        ("gambar zzz", "picture"),
        ("audio omitted", "voice"),
        ("GIF omitted", "video"),
        (
            "You received a view once photo. For added privacy, you can open it on your phone",
            "picture",
        ),
        ("Contact card omitted", "contact"),
        ("plan.pdf • \u200e2 pages \u200edocument omitted", "file"),
    ],
)
def test_media_of_iphones(tmp_path: Path, text: str, kind: str) -> None:
    (message,) = iphone(tmp_path, text)

    assert (message.sender, message.kind, len(message.media), message.text) == ("Ann", kind, 1, "")


@pytest.mark.parametrize(
    "text", ["<3 you all", "<br>", "x.pdf (see page 3)", "image omitted by me", "POLL:", "null"]
)
def test_words_of_people_stay_words(tmp_path: Path, text: str) -> None:
    (message,) = android(tmp_path, text)

    assert (message.kind, message.text, message.media) == ("text", text, ())


def test_what_is_no_plain_message(tmp_path: Path) -> None:
    poll = "POLL:\nLunch?\n\u200eOPTION: Pizza (\u200e2 votes)\n\u200eOPTION: Soup (\u200e0 votes)"
    messages = iphone(
        tmp_path,
        "Voice call. \u200e5 min",
        poll,
        "Location: https://maps.google.com/?q=1.5,2.5",
        "This message was deleted.",
        "Ann changed the group name to “Trip”",
    )

    assert [m.kind for m in messages] == ["call", "poll", "place", "text", "system"]
    assert messages[1].text.split("\n")[2] == "OPTION: Pizza (2 votes)"
    assert [m.is_deleted for m in messages] == [False, False, False, True, False]
    assert messages[4].sender is None


@pytest.mark.parametrize(
    "notice",
    [
        "Nachrichten und Anrufe sind Ende-zu-Ende-verschlüsselt. Niemand außerhalb dieses Chats "
        "kann sie lesen oder anhören, nicht einmal WhatsApp.",
        "Messages and calls are end-to-end encrypted. View once photos too.",
        "Los mensajes y las llamadas están cifrados, una sola vez.",
        "メッセージと通話はエンドツーエンドで暗号化されます。1回のみ",
    ],
)
def test_a_notice_is_no_picture_that_could_be_seen_once(tmp_path: Path, notice: str) -> None:
    (on_iphone,) = iphone(tmp_path, notice)
    (on_android,) = read(tmp_path, f"31/12/2023, 21:15 - {notice}").messages

    for found in (on_iphone, on_android):
        assert (found.sender, found.kind, found.text) == (None, "system", notice)


def test_nothing_is_lost_behind_words_that_the_app_says_too(tmp_path: Path) -> None:
    messages = android(
        tmp_path,
        "This message was deleted\nso it says",
        "Missed voice call\nfrom you?",
        "  indented\n\tcode",
    )

    assert [(m.kind, m.text, m.is_deleted) for m in messages] == [
        ("text", "This message was deleted\nso it says", False),
        ("text", "Missed voice call\nfrom you?", False),
        ("text", "  indented\n\tcode", False),
    ]


def test_edited_and_deleted(tmp_path: Path) -> None:
    messages = android(
        tmp_path,
        "on my way <This message was edited>",
        "komme \u200e<Diese Nachricht wurde bearbeitet.>",
        "soon \u200e<Words of an unknown tongue>",
        "Se eliminó este mensaje.",
        "https://example.org/a",
    )

    assert [m.text for m in messages] == ["on my way", "komme", "soon", "", "https://example.org/a"]
    assert [m.is_edited for m in messages] == [True, True, True, False, False]
    assert [m.is_deleted for m in messages] == [False, False, False, True, False]
    assert messages[4].kind == "link"


def test_media_are_found_in_archive_and_folder(tmp_path: Path) -> None:
    photo = "00000002-PHOTO-2023-12-31-21-15-00.jpg"
    text = (
        "[31/12/2023, 21:15:00] Ann: hi\r\n"
        f"\u200e[31/12/2023, 21:15:00] Ann: at last \u200e<attached: {photo}>\r\n"
        "\u200e[31/12/2023, 21:16:00] Ann: \u200e<attached: notes of mine.txt>\r\n"
    )
    path = tmp_path / "WhatsApp Chat - Trip to Rome.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_chat.txt", "\ufeff" + text)
        archive.writestr(photo, b"jpeg")
        archive.writestr("notes of mine.txt", "31/12/2023, 21:15 - Bob: a chat sent as a file")
        archive.writestr("../outside.jpg", b"no")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "Trip", members=["_chat.txt", photo])
    packed, unpacked = read_chat(path), read_chat(tmp_path / "Trip")

    assert (packed.title, unpacked.title) == ("Trip to Rome", "Trip")
    assert packed.messages[1].media[0].file == unpacked.messages[1].media[0].file == photo
    assert packed.messages[1].text == "at last"
    assert packed.messages[2].media[0].file == "notes of mine.txt"
    assert "out of the export" in packed.account.faults[0]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("WhatsApp Chat with Ann & Bob.txt", "Ann & Bob"),
        ("WhatsApp Chat with Ann (2).txt", "Ann"),
        ("WhatsApp-Chat mit Oma Helga.txt", "Oma Helga"),
        ("Chat de WhatsApp con Abuela.txt", "Abuela"),
        ("Conversa do WhatsApp com Zé.txt", "Zé"),
        ("Discussion WhatsApp avec Jean.txt", "Jean"),
        ("Чат WhatsApp с Иван.txt", "Иван"),
        ("与王明的WhatsApp聊天.txt", "王明"),
        ("my notes.txt", "my notes"),
        ("_chat.txt", ""),
    ],
)
def test_titles(tmp_path: Path, name: str, title: str) -> None:
    assert read(tmp_path, "31/12/2023, 21:15 - Ann: hi", name=name).title == title


@pytest.mark.parametrize(
    "text",
    [
        "2023-12-31 21:15:03 - INFO - root: started\n2023-12-31 21:15:04 - INFO - root: done\n",
        "[2024-01-15 10:00:00] ERROR: disk full\n",
        'EXPORT = """\n31/12/2023, 21:15 - Ann: hi\n"""\n' + "assert read(EXPORT)\n" * 9,
        "date,time,text\n2024-01-15,10:00,hi: you\n",
    ],
)
def test_what_is_no_chat(tmp_path: Path, text: str) -> None:
    (tmp_path / "notes.txt").write_text(text, encoding="utf-8")

    with pytest.raises(DataError, match="no chat of the form whatsapp"):
        read_chat(tmp_path / "notes.txt", form="whatsapp")


def test_several_chats_of_a_folder(tmp_path: Path) -> None:
    for name in ("Ann", "Bob"):
        text = f"31/12/2023, 21:15 - {name}: hi\n"
        (tmp_path / f"WhatsApp Chat with {name}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "readme.txt").write_text("two chats of mine", encoding="utf-8")

    assert [chat.title for chat in read_chats(tmp_path)] == ["Ann", "Bob"]


def test_hostile_texts_do_no_harm(tmp_path: Path) -> None:
    header = b"31/12/2023, 21:15 - "
    lines = [
        header + b"Ann: \xff\xfe latin \xe9",
        header + b"Ann: " + b"<" * 100_000,
        header + b"Ann: " + b"<a: b.jpg>" * 20_000,
        header + b"A" * 1_000_000 + b": x",
        header + b"\x1b[31mBob\xe2\x80\xae: <b>hi</b>",
        b"[" * 100_000,
        b"1/" * 100_000,
        "\u200e".encode() * 1_000_000,
        b"[" + "\u200f".encode() * 1_000_000,
        header + b"Ann: " + "\u200e".encode() * 1_000_000 + b"<a: b",
        b"31/12/2023, " + b" " * 100_000 + b"21:15 - Ann: x",
    ]
    (tmp_path / "chat.txt").write_bytes(b"\n".join(lines))
    chat = read_chat(tmp_path / "chat.txt")

    assert chat.account.num_undecodable == 1
    assert (chat.account.num_messages, chat.account.num_system) == (5, 1)
    assert chat.account.num_continuations == 5


PIECES = st.sampled_from(
    [
        "31/12/2023, 21:15 - ", "[31/12/2023, 21:15:00] ", "12/31/23, 9:15\u202fPM - ", "99/99/99 ",
        "Ann: ", "~ Bob: ", "\u200e", "\u200f", "\u202e", "<", ">", "<attached: a.jpg>", "\n", "\r\n",
        "IMG-20231231-WA0001.jpg (file attached)", "<Media omitted>", ": ", "\0", "٣١/١٢/٢٠٢٣", "0",
        "https://maps.google.com/?q=", "POLL:", "OPTION: a (1 vote)", "•", "\x1b[31m", "年", "令和",
        "Dec 31, 2023, 9:15 PM - ", "9999/12/31 23:59 - ", "0000/00/00 00:00 - ", "²³/1/1, 1:11 - ",
    ]
)  # fmt: skip


def _is_read_whole(folder: Path, text: str) -> None:
    """Nothing but what says so is lost, and nothing but an error of ours is raised."""
    path = folder / "chat.txt"
    path.write_text(text, encoding="utf-8", newline="", errors="surrogatepass")
    try:
        chat = read_chat(path, form="whatsapp")
    except FfrError:
        return
    lines = path.read_bytes().split(b"\n")
    assert chat.account.num_lines == len(lines) - (lines[-1] == b"")
    assert sum(m.kind == "system" for m in chat.messages) == chat.account.num_system
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


LOCALES = [
    "ar-sa-ios",
    "de-de-android",
    "en-gb-ios",
    "en-us-android",
    "es-mx-android",
    "ja-jp-ios",
    "ko-kr-ios",
]
EVENTS_OF_CALLS = {"missed_voice_call", "missed_video_call"}


@pytest.mark.parametrize("locale", LOCALES)
def test_exports_of_seven_phones(shared_dir: Path, locale: str) -> None:
    folder = shared_dir / "chat-exports" / "whatsapp-chatcarve"
    said = (folder / "expected" / f"{locale}.jsonl").read_text(encoding="utf-8").splitlines()
    expected = [json.loads(line) for line in said]
    chat = read_chat(folder / f"{locale}.txt")

    assert len(chat) == len(expected)
    for message, wanted in zip(chat.messages, expected, strict=True):
        assert message.time is not None
        assert (message.line, message.time.isoformat()) == (wanted["line"], wanted["timestamp"])
        is_call = (wanted["system"] or {}).get("event") in EVENTS_OF_CALLS
        # on an iPhone a call has its caller's name, which is kept
        assert message.kind == "call" if is_call else (message.sender == wanted["author"])
        assert message.is_deleted == (wanted["kind"] == "deleted")
        assert bool(message.media) == (wanted["kind"] == "media")
        if message.kind in ("text", "system") and not message.is_deleted:
            assert message.text == wanted["text"]
    assert not chat.account.lines()


def test_exports_of_another_collection(shared_dir: Path) -> None:
    folder = shared_dir / "chat-exports" / "langchain-community"
    plain, mixed = (
        read_chat(folder / name) for name in ("whatsapp_chat.txt", "whatsapp_mixed_headers.txt")
    )

    assert plain.summary == (
        "11 messages, 3 pictures (3 missing), 2 people, 15 Aug 2023, "
        "day/month order m/d (seen 8/15)"
    )
    assert len(mixed) == 10
    assert mixed.messages[-1].is_deleted


@pytest.mark.slow
def test_as_many_messages_as_another_parser_finds(shared_dir: Path, tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not here")
    package = "whatsapp-chat-parser@4.0.2"
    got = subprocess.run(
        [npm, "install", "--silent", "--prefix", str(tmp_path), package],
        capture_output=True,
        timeout=120,
        check=False,
    )
    if got.returncode:
        pytest.skip(f"npm could not fetch {package}")
    script = tmp_path / "count.mjs"
    script.write_text(
        "import * as parser from 'whatsapp-chat-parser';\n"
        "import { readFileSync } from 'node:fs';\n"
        "for (const path of process.argv.slice(2))\n"
        "  console.log(parser.parseString(readFileSync(path, 'utf8')).length);\n",
        encoding="utf-8",
    )
    folder = shared_dir / "chat-exports" / "whatsapp-chatcarve"
    paths = [folder / f"{locale}.txt" for locale in LOCALES]
    paths.append(shared_dir / "chat-exports" / "langchain-community" / "whatsapp_chat.txt")
    said = subprocess.run(
        [node, str(script), *map(str, paths)], capture_output=True, text=True, check=True
    )

    assert [len(read_chat(path)) for path in paths] == [int(line) for line in said.stdout.split()]
