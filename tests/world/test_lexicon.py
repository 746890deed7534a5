"""No words stand for two uses, or for two topics."""

from __future__ import annotations

from ffr.world.lexicon import LANGUAGES, TOPICS, WORDINGS


def test_wordings_of_different_uses_differ() -> None:
    for language in LANGUAGES:
        uses = [WORDINGS[use, language] for use in ("base", "sample", "wechat")]
        for kind in ("lines", "queries"):
            texts = [text for wording in uses for text in getattr(wording, kind)]
            assert len(texts) == len(set(texts))
        names = [name for wording in uses for name in wording.names]
        assert len(names) == len(set(names))


def test_no_word_belongs_to_two_topics() -> None:
    for words in (
        [w for t in TOPICS for w in (*t.zh_names, *t.zh_words)],
        [w for t in TOPICS for w in (*t.en_names, *t.en_words)],
    ):
        assert len(words) == len(set(words))
