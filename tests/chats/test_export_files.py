"""Files of an export: the same out of a folder and an archive, and nothing outside it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from ffr.chats.account import Account
from ffr.chats.export_files import MAX_LINE_BYTES, ExportFiles
from ffr.errors import DataError


def _folder(root: Path) -> Path:
    folder = root / "export"
    (folder / "media").mkdir(parents=True)
    (folder / "chat.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\xff\n\nfour")
    (folder / "media" / "A.JPG").write_bytes(b"picture")
    return folder


def _zip(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize("is_archive", [False, True])
def test_lines_and_media(tmp_path: Path, is_archive: bool) -> None:
    folder = _folder(tmp_path)
    export = ExportFiles(_zip(folder) if is_archive else folder)
    assert export.names == ("chat.txt", "media/A.JPG")
    assert export.text_names == ("chat.txt",)
    account = Account()
    lines = list(export.lines("chat.txt", account))
    assert lines == [(1, "one"), (2, "two\ufffd"), (3, ""), (4, "four")]
    assert account.num_undecodable == 1
    assert export.find("a.jpg", "chat.txt") == "media/A.JPG"
    assert export.find("media/A.JPG") == "media/A.JPG"
    assert export.find("../export/chat.txt") is None
    assert export.find("b.jpg") is None
    assert export.media("media/A.JPG") == b"picture"


def test_a_file_alone_finds_what_lies_beside_it(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    export = ExportFiles(folder / "chat.txt")
    assert export.find("media/A.JPG", "chat.txt") == "media/A.JPG"
    assert export.media_path("media/A.JPG") == folder / "media" / "A.JPG"
    assert export.media("media/A.JPG") == b"picture"
    (tmp_path / "out.jpg").write_bytes(b"x")
    assert export.find("../out.jpg", "chat.txt") is None


def test_names_that_lead_out_are_refused_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "e.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "C:evil.txt", "ok.txt"):
            archive.writestr(name, "hi")
    export = ExportFiles(path)
    assert export.names == ("ok.txt",)
    assert export.faults == [
        "left out 4 files whose name leads out of the export or is another's: ../evil.txt"
    ]


def test_a_link_that_leads_out_of_a_folder_is_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    export = ExportFiles(folder)
    assert "link.txt" not in export.names
    assert export.refused == ["link.txt"]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "e.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("chat.txt", b"a" * (70 << 20))
    export = ExportFiles(path)
    with pytest.raises(DataError, match="as no chat does"):
        export.head("chat.txt")


def test_a_member_that_is_torn_is_named(tmp_path: Path) -> None:
    path = _zip(_folder(tmp_path))
    data = bytearray(path.read_bytes())
    place = data.find(b"chat.txt") + len("chat.txt") + 2
    data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"e.*zip!chat\.txt: cannot be read"):
        list(ExportFiles(path).lines("chat.txt", Account()))


def test_a_line_without_an_end_is_cut_off_and_said(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_bytes(b"x" * (MAX_LINE_BYTES + 10) + b"\nnext\n")
    account = Account()
    lines = list(ExportFiles(path).lines("long.txt", account))
    assert [(number, len(text)) for number, text in lines] == [(1, MAX_LINE_BYTES), (2, 4)]
    assert account.faults == ["long.txt:1 is longer than 16 MB and is cut off there"]


def test_wide_text_is_read(tmp_path: Path) -> None:
    path = tmp_path / "wide.txt"
    path.write_bytes("eins\r\n二\n".encode("utf-16"))
    assert list(ExportFiles(path).lines("wide.txt", Account())) == [(1, "eins"), (2, "二"), (3, "")]


def test_what_is_no_export_is_an_error_in_words(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(b"")
    assert ExportFiles(path).names == ("x.zip",)
    with pytest.raises(DataError, match="no-such-file: cannot be read"):
        ExportFiles(tmp_path / "no-such-file")


def test_an_archive_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = _zip(_folder(tmp_path))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"zip: is no zip archive .*it ends in the middle.*again"):
        ExportFiles(path)


def test_a_path_fits_where_the_folders_that_both_name_are_the_same(tmp_path: Path) -> None:
    for name in ("inbox/ann/photos/1.jpg", "inbox/bo/photos/1.jpg", "inbox/bo/photos/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    export = ExportFiles(tmp_path)
    found = {
        named: export.find(named, "inbox/ann/message_1.json")
        for named in (
            "messages/inbox/bo/photos/1.jpg",
            "photos/1.jpg",
            "bo/photos/2.jpg",
            "messages/inbox/ann/photos/2.jpg",
            "files/1.jpg",
        )
    }
    assert list(found.values()) == [
        "inbox/bo/photos/1.jpg",
        "inbox/ann/photos/1.jpg",
        "inbox/bo/photos/2.jpg",
        None,  # of another folder than is named
        None,
    ]
    (tmp_path / "inbox" / "ann" / "message_1.json").write_text("{}")
    alone = ExportFiles(tmp_path / "inbox" / "ann" / "message_1.json")
    assert alone.find("messages/inbox/ann/photos/1.jpg") == "photos/1.jpg"
    assert alone.find("messages/inbox/ann/photos/9.jpg") is None
    assert alone.find("a" * 5000 + ".jpg") is None


def test_names_in_an_archive_that_are_utf_8_and_do_not_say_so(tmp_path: Path) -> None:
    path = tmp_path / "e.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Zoë 你.txt", "hi")
        archive.writestr("plain.txt", "hi")
    data = path.read_bytes()
    # bit 11 of the flags says UTF-8, once in front of the member and once in the directory
    assert data.count(b"\x00\x08\x00\x00") >= 2
    path.write_bytes(data.replace(b"\x14\x00\x00\x08\x00\x00", b"\x14\x00\x00\x00\x00\x00"))
    export = ExportFiles(path)
    assert export.names == ("Zoë 你.txt", "plain.txt")
    assert list(export.lines("Zoë 你.txt", Account())) == [(1, "hi")]
