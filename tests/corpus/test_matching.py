"""The same messages out of two exports of one chat, one with its files and one without, are there once."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from chat_samples import CHATLAB, DISCORD, MEMOTRACE, MESSENGER, TELEGRAM, WEFLOW

from ffr.chats.cutting import Cutting
from ffr.corpus.indexing import index_store
from ffr.corpus.opening import ReadExport, read_export
from ffr.corpus.store import Store

from chat_builds import no_bar  # isort: skip

ANDROID = """\
12/05/2023, 18:05 - Ann: hello
12/05/2023, 18:06 - Bob: {}
the flat
12/05/2023, 18:06 - Bob: {}
12/05/2023, 18:06 - Bob: {}
12/05/2023, 18:07 - Ann: good
"""
IPHONE = """\
[12/05/2023, 18:05:00] Ann: hello
[12/05/2023, 18:06:00] Bob: \u200e{}
[12/05/2023, 18:06:00] Bob: \u200e{}
"""


def _picture(path: Path, colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (8, 6), colour).save(path)


def _json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def _android(folder: Path, is_with: bool) -> Path:
    names = [f"IMG-20230512-WA000{number}.jpg" for number in range(3)]
    said = [f"{name} (file attached)" if is_with else "<Media omitted>" for name in names]
    for name, colour in zip(names, ["red", "green", "blue"], strict=True):
        if is_with:
            _picture(folder / name, colour)
    path = folder / "WhatsApp Chat with Bob.txt"
    path.write_text(ANDROID.format(*said), encoding="utf-8")
    return folder


def _iphone(folder: Path, is_with: bool) -> Path:
    folder = folder / "WhatsApp Chat - Bob"
    folder.mkdir()
    names = [f"0000000{number}-PHOTO-2023-05-12-18-06-00.jpg" for number in (2, 3)]
    for name in names if is_with else ():
        _picture(folder / name)
    said = [f"<attached: {name}>" if is_with else "image omitted" for name in names]
    (folder / "_chat.txt").write_text(IPHONE.format(*said), encoding="utf-8")
    return folder


def _telegram(folder: Path, is_with: bool) -> Path:
    value = deepcopy(TELEGRAM)
    photo = value["messages"][2]
    if is_with:
        _picture(folder / photo["photo"])
    else:
        photo["photo"] = "(File not included. Change data exporting settings to download.)"
    return _json(folder / "result.json", value).parent


def _discord(folder: Path, is_with: bool) -> Path:
    value = deepcopy(DISCORD)
    attached = value["messages"][1]["attachments"][0]
    if is_with:
        _picture(folder / attached["url"])
    else:
        attached["url"] = "https://cdn.example/loaf.jpg?ex=1"
    return _json(folder / "bread.json", value)


def _messenger(folder: Path, is_with: bool) -> Path:
    thread = folder / "messages" / "inbox" / "zoe_1"
    thread.mkdir(parents=True)
    if is_with:
        _picture(folder / "messages/inbox/zoe_1/photos/7.jpg")
    _json(thread / "message_1.json", MESSENGER)
    return folder


def _weflow(folder: Path, is_with: bool) -> Path:
    value = deepcopy(WEFLOW)
    if is_with:
        _picture(folder / "media/images/a.jpg")
    else:
        value["messages"][1]["content"] = "[图片]"
    return _json(folder / "chat.json", value).parent


def _chatlab(folder: Path, is_with: bool) -> Path:
    value = deepcopy(CHATLAB)
    if is_with:
        _picture(folder / "pics/a.jpg")
        value["messages"][2]["content"] = "pics/a.jpg"
    return _json(folder / "choir.json", value).parent


def _memotrace(folder: Path, is_with: bool) -> Path:
    (folder / "image").mkdir()
    if is_with:
        _picture(folder / "image/0123456789abcdef0123456789abcdef.jpg")
    (folder / "波.csv").write_text(MEMOTRACE, encoding="utf-8")
    return folder


APPS = [_android, _iphone, _telegram, _discord, _messenger, _weflow, _chatlab, _memotrace]


def _read(store: Store, path: Path) -> ReadExport:
    found = read_export(store, path, Cutting(), say=lambda _: None, bar=no_bar)
    index_store(store, found.chats, None, None, say=lambda _: None, bar=no_bar)
    return found


def _shown(store: Store) -> list[tuple[str, int]]:
    """Words of each message, and how many pictures of it can be looked at."""
    (chat,) = store.chats()
    assert chat.num_missing == 0
    return [
        (line.message.text, sum(path is not None and Path(path).exists() for path in line.pictures))
        for line in store.lines(chat.id, 0, 99)
    ]


@pytest.mark.parametrize("order", ["with, without", "without, with", "with, without, with"])
@pytest.mark.parametrize("app", APPS)
def test_a_picture_stays_whatever_comes_later(
    app: Callable[[Path, bool], Path], order: str, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    with Store(tmp_path / "s1", is_new_allowed=True) as store:
        _read(store, app(alone, True))
        expected = _shown(store)
    assert sum(number for _, number in expected) > 0
    with Store(tmp_path / "s2", is_new_allowed=True) as store:
        for number, which in enumerate(order.split(", ")):
            folder = tmp_path / f"export {number}"
            folder.mkdir()
            (done,) = _read(store, app(folder, which == "with")).added
            assert not (number and done.num_new)
        assert _shown(store) == expected


def test_a_message_that_is_new_in_a_known_minute_is_new(tmp_path: Path) -> None:
    one, more = tmp_path / "one", tmp_path / "more"
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        for folder in (one, more):
            folder.mkdir()
        _read(store, _android(one, False))
        path = _android(more, True) / "WhatsApp Chat with Bob.txt"
        said = path.read_text().splitlines(keepends=True)
        said.insert(5, "12/05/2023, 18:06 - Bob: <Media omitted>\n")
        path.write_text("".join(said))
        for _ in range(2):
            _read(store, more)
            assert store.chats()[0].num_messages == 6
        # and the first export says nothing new
        (one / "WhatsApp Chat with Bob.txt").touch()
        (done,) = _read(store, one).added
        assert (done.num_new, done.num_changed, done.num_known) == (0, 0, 5)
        assert sum(number for _, number in _pictures_of(store)) == 3


def _pictures_of(store: Store) -> list[tuple[str, int]]:
    return [
        (line.message.text, sum(path is not None for path in line.pictures))
        for line in store.lines(1, 0, 99)
    ]


def test_what_an_export_itself_lost_is_missing(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        folder = tmp_path / "export"
        folder.mkdir()
        _read(store, _telegram(folder, True))
        assert store.chats()[0].num_missing == 0
        _read(store, _telegram(folder, False))
        assert store.chats()[0].num_missing == 1


def test_pictures_of_a_folder_that_is_away_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        _read(store, _android(folder, True))
        assert store.chats()[0].summary.startswith("5 messages, 3 pictures, 2 people")
        folder.rename(tmp_path / "elsewhere")
        assert store.chats()[0].summary.startswith(
            "5 messages, 3 pictures (3 in an export that is away), 2 people"
        )
        _read(store, tmp_path / "elsewhere")
        assert store.chats()[0].summary.startswith("5 messages, 3 pictures, 2 people")
