"""The trivial baselines: what each takes of a dialogue, and its figures on real dialogues."""

from __future__ import annotations

import pytest

from ffr.answer import parse_strict
from ffr.data.dataset import open_dataset
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.errors import UsageError
from ffr.retrieval.lexical import BASELINES, BM25_LINES, BaselineRetriever, overlap_terms

CHAT = Dialogue(
    "d",
    (
        Utterance("a", ("The bus is late again",)),
        Utterance("a", (Image("bus.png"),)),
        Utterance("b", ("公交车又晚点了", Image("stop.png"))),
        Utterance("b", ("let us eat",)),
        Utterance("b", (Image("soup.png"),)),
    ),
)


def chosen(name, query, seed=0):
    return parse_strict(
        BaselineRetriever(name, seed=seed).answer([Example(CHAT, query)])[0].response
    )


def test_everything_and_nothing():
    assert chosen("everything", "x") == Fragment((0, 1, 2, 3, 4), (0, 1, 2))
    assert chosen("nothing", "x") == Fragment()


def test_overlap_takes_wordless_lines_with_the_line_before():
    assert chosen("overlap", "where is the BUS?") == Fragment((0, 1), (0,))
    assert chosen("overlap", "关于公交车的聊天") == Fragment((2,), (1,))
    assert chosen("overlap", "zebra") == Fragment()


def test_overlap_terms_of_single_characters():
    assert overlap_terms("吃 a-b2 a") == ["a", "b2", "a", "吃"]


def test_bm25_takes_the_best_texts_alone() -> None:
    lines = [f"bus number {number}" for number in range(12)] + ["the bus bus", "tea", "bus"]
    chat = Dialogue("d", tuple(Utterance("a", (line,)) for line in lines))
    fragment = BaselineRetriever("bm25").fragment(Example(chat, "the bus, please"))
    # ten texts: the one with a rare word first, then short before long; none without a term
    assert len(fragment.utterance_ids) == BM25_LINES
    assert {12, 14} < set(fragment.utterance_ids)
    assert 13 not in fragment.utterance_ids
    assert BaselineRetriever("bm25").fragment(Example(chat, "zebra")) == Fragment()


def test_random_third_is_a_third_and_repeats():
    first = chosen("random-third", "x")
    assert (len(first.utterance_ids), len(first.image_ids)) == (2, 1)
    assert chosen("random-third", "x") == first
    assert len({chosen("random-third", "x", seed=seed) for seed in range(20)}) > 1


def test_unknown_baseline():
    with pytest.raises(
        UsageError, match="no baseline 'all'; there are everything, nothing, random-third, overlap"
    ):
        BaselineRetriever("all")


def test_plan_names_every_example_once(examples):
    retriever = BaselineRetriever("nothing")
    assert sorted(index for batch in retriever.plan(examples) for index in batch) == list(
        range(len(examples))
    )


def test_figures_on_real_dialogues(real_dialogues):
    from ffr.evaluation.scoring import ScoreTable

    data = list(open_dataset(real_dialogues / "dev.json", require_images=False))
    means = {}
    for name in BASELINES:
        retriever, table = BaselineRetriever(name), ScoreTable()
        for example in data:
            dialogue = example.dialogue
            size = {"num_utterances": len(dialogue.utterances), "num_images": len(dialogue.images)}
            table.add(
                retriever.answer([example])[0].response,
                example.fragment,
                dialogue=dialogue.id,
                **size,
            )
        means[name] = table.summary()["scores"]
    # the figures that stand in the data's own description
    assert means["everything"]["sample_utterance_f1"] == pytest.approx(0.401, abs=5e-4)
    assert means["everything"]["sample_image_f1"] == pytest.approx(0.408, abs=5e-4)
    # 0.285 there for lines with a shared term alone; ours takes pictures' lines along
    assert means["overlap"]["sample_utterance_f1"] == pytest.approx(0.324, abs=5e-4)
    assert means["bm25"]["sample_utterance_f1"] == pytest.approx(0.334, abs=5e-4)


def test_bm25_takes_as_many_texts_as_its_name_says() -> None:
    chat = Dialogue.of([("a", "bus"), ("b", "the bus"), ("a", "the late bus"), ("b", "tea")])
    found = BaselineRetriever("bm25@2").fragment(Example(chat, "bus"))
    assert found == Fragment((0, 1))
    assert BaselineRetriever("bm25@2").name == "baseline:bm25@2"
    for name in ("overlap@2", "bm25@0", "bm25@", "bm25@x", "bm25@999999999999"):
        with pytest.raises(UsageError, match="no baseline"):
            BaselineRetriever(name)
