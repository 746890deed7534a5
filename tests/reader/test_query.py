"""Queries less what only asks: rules on words, and the map on vectors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from reader_builds import WIDTH, LetterEncoder
from safetensors.torch import load_file, save_file
from torch.nn import functional

from ffr.errors import ModelError
from ffr.files import CHECKSUMS_FILE
from ffr.reader.likeness import Background
from ffr.reader.model import Reader
from ffr.reader.query import QueryMap, fit_query_map, plain_words


@pytest.mark.parametrize(
    ("query", "plain"),
    [
        ("Can you find all the messages about swimming lessons?", "swimming lessons"),
        ("where did they talk about the rent", "rent"),
        ("show me pictures of a red bicycle", "red bicycle"),
        ("who mentioned the vet?", "vet"),
        ("dogs were discussed here", "dogs"),
        ("关于租房的聊天记录", "租房"),
        ("帮我找一下聊到滑雪的那一段", "滑雪"),
        ("哪里提到了牙疼？", "牙疼"),
        ("和蛋糕有关的图片和消息", "蛋糕"),
        ("They plan a surprise for Lena.", "plan a surprise for Lena"),
        ('where somebody says "the oven is still on"', "the oven is still on"),
        ("“烤箱是不是还开着”这句话在哪", "烤箱是不是还开着"),
        ("火车", "火车"),
        ("关于看病的对话和图片", "看病"),  # 看 also asks
        ("聊到电话的地方", "电话"),
        ("泳池里的男人。", "泳池里的男人"),
        ("聊到药的那一段对话", "药"),
        ("找一下我们聊到地图的消息", "地图"),
        ("find messages about TV", "TV"),
        ("聊天", "聊天"),  # nothing would be left
        ("what is this about?", "what is this about?"),
        ("Où est-ce qu'on parle du chien ?", "Où est-ce qu'on parle du chien"),
        ("", ""),
        ("  two   blanks ", "two blanks"),
    ],
)
def test_words_that_only_ask_are_left_out(query: str, plain: str) -> None:
    assert plain_words(query) == plain


def test_a_long_query_stays() -> None:
    long = "find the part in which " + "one neighbour apologises to the other " * 3
    assert plain_words(long) == long.strip()


def test_words_are_left_out_whole() -> None:
    assert plain_words("theatre tickets") == "theatre tickets"
    assert plain_words("inside the photographic studio") == "inside the photographic studio"


def test_a_plain_query_stays_as_it_is() -> None:
    for query in ("swimming lessons", "滑雪", "租房的押金", "a red bicycle", "牙疼"):
        assert plain_words(plain_words(query)) == plain_words(query)


def test_hostile_queries_take_no_time() -> None:
    for query in (
        "the " * 15,
        "的" * 60,
        '"' * 60,
        "?!" * 30,
        "find a " * 8 + "x",
        "一起" * 29 + "滑",
    ):
        assert len(plain_words(query)) <= len(query)


def test_the_map_takes_out_what_all_wordings_share() -> None:
    made = torch.Generator().manual_seed(0)
    names = functional.normalize(torch.randn(60, 24, generator=made), dim=-1)
    askings = functional.normalize(torch.randn(5, 24, generator=made), dim=-1)
    asked = functional.normalize(
        names[:, None] + 0.8 * askings + 0.05 * torch.randn(60, 5, 24, generator=made), dim=-1
    )
    fitted = fit_query_map(asked[:40].flatten(0, 1), names[:40].repeat_interleave(5, 0), ridge=0.1)
    before = (asked[40:] * names[40:, None]).sum(-1).mean()
    after = (fitted(asked[40:].flatten(0, 1)) * names[40:].repeat_interleave(5, 0)).sum(-1).mean()
    assert float(before) < 0.85
    assert float(after) > float(before) + 0.04
    assert torch.allclose(fitted(names).norm(dim=-1), torch.ones(60))


def test_a_strong_penalty_changes_nothing() -> None:
    rows = functional.normalize(
        torch.randn(9, 4, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    fitted = fit_query_map(rows, rows.flip(0), ridge=1e9)
    assert torch.allclose(fitted(rows), rows, atol=1e-4)


@pytest.mark.parametrize(
    ("asked", "bare", "ridge"), [((3, 4), (2, 4), 1.0), ((3,), (3,), 1.0), ((3, 4), (3, 4), 0.0)]
)
def test_what_does_not_fit_is_refused(
    asked: tuple[int, ...], bare: tuple[int, ...], ridge: float
) -> None:
    with pytest.raises(ValueError, match="give one name each"):
        fit_query_map(torch.ones(asked), torch.ones(bare), ridge=ridge)


def test_a_map_of_other_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit together"):
        QueryMap(torch.ones(3, 4), torch.ones(3))
    with pytest.raises(ValueError, match="NaN"):
        QueryMap(torch.full((3, 3), torch.nan), torch.ones(3))


def _with_map(reader: Reader) -> Reader:
    rows = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(2)) / 8
    halves = QueryMap(rows.half().float(), torch.full((WIDTH,), 0.125))
    background = Background(
        reader.background.lines.half().float(), reader.background.queries.half().float()
    )
    return Reader(reader.networks, background, reader.settings, halves)


def test_a_reader_asks_in_plain_words_and_maps_the_vector(
    reader: Reader, encoder: LetterEncoder
) -> None:
    reader = _with_map(reader)
    found = reader.query_vectors(["find the messages about soup"], encoder)
    assert encoder.seen == ["? soup"]
    assert reader.query_map is not None
    assert torch.equal(found, reader.query_map(LetterEncoder().embed_texts(["? soup"])))
    reader.settings = dataclasses.replace(reader.settings, has_plain_queries=False)
    reader.query_vectors(["the soup"], encoder)
    assert encoder.seen[-1] == "? the soup"


def test_the_map_is_kept_on_disk(reader: Reader, tmp_path: Path) -> None:
    reader = _with_map(reader)
    reader.save(tmp_path / "r")
    again = Reader.load(tmp_path / "r")
    assert again.query_map is not None
    assert reader.query_map is not None
    assert torch.equal(again.query_map.matrix, reader.query_map.matrix)
    assert again.fingerprint == reader.fingerprint
    without = Reader(reader.networks, reader.background, reader.settings)
    assert without.fingerprint != reader.fingerprint


def test_a_map_on_disk_that_does_not_fit_is_refused(reader: Reader, tmp_path: Path) -> None:
    _with_map(reader).save(tmp_path / "r")
    (tmp_path / "r" / CHECKSUMS_FILE).unlink()
    path = tmp_path / "r" / "reader.safetensors"
    whole = load_file(path)
    for changes, said in (
        ({"query_map.matrix": torch.ones(3, 3), "query_map.mean": torch.ones(3)}, "another width"),
        ({"query_map.matrix": torch.ones(3, 3)}, "does not fit together"),
        ({"query_map.mean": torch.full((WIDTH,), torch.inf)}, "NaN or infinite"),
    ):
        save_file(whole | changes, path)
        with pytest.raises(ModelError, match=said):
            Reader.load(tmp_path / "r")
    del whole["query_map.mean"]
    save_file(whole, path)
    with pytest.raises(ModelError, match=r"query_map\.mean"):
        Reader.load(tmp_path / "r")
