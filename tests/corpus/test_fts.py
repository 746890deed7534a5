"""Full text of SQLite as it is read: what its tokenizer makes of terms."""

from __future__ import annotations

from ffr.corpus import fts
from ffr.corpus.terms import query_terms


def test_each_term_is_one_word_of_full_text_or_none() -> None:
    tokens = fts._Tokens()
    # of each kind of character; few of the thousands of Chinese and Korean ones, which are alike
    alike = {*range(0x3500, 0x9F00), *range(0xAD00, 0xD700), *range(0xD800, 0xF900)}
    chars = [chr(code) for code in range(0, 0x20000, 3) if code not in alike]
    for kind in ("{}", "公{}"):
        terms = query_terms(" ".join(kind.format(char) for char in chars))
        found = tokens.of(terms)
        assert len(found) == len(terms)
        assert not [token for token in found if " " in token]
        assert sum(token == "" for token in found) < len(terms) / 100
    assert tokens.of(["café", "♯", "公交", "two words"]) == ["cafe", "", "公交", "two words"]
