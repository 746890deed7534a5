"""The reader that comes with ffr: its folder, and what it finds in a chat that it never saw."""

from __future__ import annotations

import pytest
import torch

from ffr.dialogue import Dialogue
from ffr.embedding import SentenceEncoder, load_encoder
from ffr.errors import ModelError
from ffr.reader.model import Reader
from ffr.shipped.reader import READER_FOLDER

ENGLISH = [
    ("Ann", "Did the plumber come about the dripping tap?"),
    ("Bob", "He was here at nine, it needed a new washer."),
    ("Ann", "And what does he charge?"),
    ("Bob", "Forty five, with the travel."),
    ("Ann", "By the way, the school called, Max has a temperature."),
    ("Bob", "Again? I will pick him up and take him to the doctor."),
    ("Ann", "He coughed all night, ask her about antibiotics."),
    ("Bob", "Have you booked the ferry to Corsica?"),
    ("Ann", "Not yet, the cabin for four was sold out."),
    ("Bob", "Then take the night boat from Nice, with two cabins."),
]
CHINESE = [
    ("小安", "修水管的师傅来看过水龙头了吗？"),
    ("小博", "九点来的，换了个垫圈。"),
    ("小安", "收了多少钱？"),
    ("小博", "四十五，含上门费。"),
    ("小安", "对了，学校来电话，小满发烧了。"),
    ("小博", "又发烧？我去接他，带他看医生。"),
    ("小安", "他咳了一夜，问问要不要吃消炎药。"),
    ("小博", "去科西嘉的船票订了吗？"),
    ("小安", "还没有，四人舱卖完了。"),
    ("小博", "那坐尼斯的夜船，订两个舱。"),
]
REPAIR, CHILD, FERRY = {0, 1, 2, 3}, {4, 5, 6}, {7, 8, 9}
ASKED = {
    "en": [
        ("the leaking tap", REPAIR),
        ("find the messages about the plumber", REPAIR),
        ("a sick child", CHILD),
        ("booking a ship", FERRY),
    ],
    "zh": [
        ("修水龙头", REPAIR),
        ("孩子生病", CHILD),
        ("聊到孩子看病的那一段", CHILD),
        ("帮我找一下关于订船票的聊天", FERRY),
    ],
}


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.load(READER_FOLDER)


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    torch.set_num_threads(1)
    try:
        found = load_encoder("e5")
    except ModelError as error:
        pytest.skip(str(error))
    assert isinstance(found, SentenceEncoder)
    return found


def test_it_is_small_and_says_what_it_was_made_of(reader: Reader) -> None:
    assert sum(path.stat().st_size for path in READER_FOLDER.iterdir()) < 15e6
    assert reader.settings.notes["seeds"] == [0, 1]
    assert len(reader.settings.notes["data"]) == 16
    assert reader.settings.encoder_name == "e5"


@pytest.mark.parametrize(("language", "lines"), [("en", ENGLISH), ("zh", CHINESE)])
def test_it_finds_each_part_asked_for(
    reader: Reader, encoder: SentenceEncoder, language: str, lines: list[tuple[str, str]]
) -> None:
    units = reader.units(Dialogue.of(lines), encoder)
    queries = [query for query, _ in ASKED[language]]
    found = reader.predict(units, reader.query_vectors(queries, encoder))
    for (query, true), answer in zip(ASKED[language], found, strict=True):
        chosen = set(answer.utterance_ids)
        f1 = 2 * len(chosen & true) / (len(chosen) + len(true))
        assert f1 >= 0.6, (query, answer.utterance_ids)
        assert answer.score > 0.5, (query, answer.score)
