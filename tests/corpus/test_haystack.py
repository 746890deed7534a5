"""An archive made of data, and what is found in it for queries on its own dialogues."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import PIL.Image
import pytest
from chat_builds import TRIP, add, no_bar

from ffr.answer import format_answer, parse
from ffr.corpus.haystack import (
    Haystack,
    HaystackData,
    HaystackRetriever,
    load_haystack_data,
    open_haystack,
)
from ffr.corpus.store import Store
from ffr.corpus.ways import WAYS
from ffr.data.catalog import load_dataset
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.errors import DataError, UsageError
from ffr.settings import AnswerConfig

CHATS = (
    Dialogue(
        "bus",
        (
            Utterance("a", ("the bus was late again",)),
            Utterance("b", (Image("bus.png"),)),
            Utterance("a", ("which bus do you take",)),
        ),
    ),
    Dialogue.of([("a", "the cat sleeps"), ("b", "a cat always sleeps"), ("a", "good")]),
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    PIL.Image.new("RGB", (8, 6), "red").save(tmp_path / "bus.png")
    write_examples(
        path,
        [
            Example(CHATS[0], "late bus", Fragment((0, 2))),
            Example(CHATS[1], "the cat", Fragment((0, 1))),
            Example(CHATS[0], "cat", Fragment()),
            Example(CHATS[0], "zebra", Fragment()),
        ],
    )
    return path


def opened(
    store: Store,
    path: Path,
    *more: Path,
    model: str = "baseline:overlap",
    ways: Sequence[str] = WAYS,
) -> tuple[Haystack, list[Example]]:
    sets = [load_dataset(name, require_images=False) for name in (path, *more)]
    data = HaystackData(sets[0], tuple(sets))
    haystack = open_haystack(store, data, model, AnswerConfig(), ways=ways, say=print, bar=no_bar)
    return haystack, data.known


def said(examples: Sequence[Example], haystack: Haystack) -> list[dict]:  # type: ignore[type-arg]
    retriever = HaystackRetriever(haystack, name="overlap")
    return [
        {"response": answer.response, **answer.extra["archive"]}
        for answer in retriever.answer(examples)
    ]


def test_a_search_of_all_beside_an_answer_on_one(tmp_path: Path, data: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        haystack, examples = opened(store, data)
        bus, cat = (examples[number].dialogue.fingerprint for number in (0, 1))
        assert sorted(haystack.chats) == sorted([bus, cat])
        late, of_cat, elsewhere, nothing = said(examples, haystack)
        assert late["recalled"][0] == bus
        assert late["best"]["dialogue"] == bus
        # the picture follows its line
        assert late["best"]["utterance_ids"] == late["known"]["utterance_ids"] == [0, 1, 2]
        assert late["best"]["image_ids"] == [0]
        assert parse(late["response"]) == Fragment((0, 1, 2), (0,))
        assert of_cat["best"]["utterance_ids"] == [0, 1]
        # what is found in another dialogue is behind the end of the own one
        assert elsewhere["best"]["dialogue"] == cat
        assert elsewhere["best"]["utterance_ids"] == [0, 1]
        assert parse(elsewhere["response"]) == Fragment((3, 4))
        assert elsewhere["known"]["utterance_ids"] == []
        assert nothing["best"] is None
        assert nothing["response"] == format_answer(Fragment())


def test_what_decides_the_answers_is_said(tmp_path: Path, data: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        haystack, _ = opened(store, data)
        retriever = HaystackRetriever(haystack, name="overlap", ways=["words"], num_dialogues=7)
        identity = retriever.identity
        assert (identity["kind"], identity["num_dialogues"]) == ("archive", 2)
        assert (identity["ways"], identity["num_recalled"]) == (["words"], 7)
        assert identity["fingerprint"] == haystack.fingerprint
        assert identity["inside"]["name"] == "overlap"
        stranger = Example(Dialogue.of([("a", "elsewhere")]), "bus")
        with pytest.raises(DataError, match="is not in the archive"):
            retriever.answer([stranger])
    more = tmp_path / "more.jsonl"
    write_examples(more, [Example(Dialogue.of([("a", "a third")]), "third", Fragment((0,)))])
    with Store(tmp_path / "t", is_new_allowed=True) as store:
        assert opened(store, data, more)[0].fingerprint != haystack.fingerprint


def test_a_store_with_something_else_is_refused(tmp_path: Path, data: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        (tmp_path / "export.txt").write_text("as an app wrote it")
        add(store, TRIP, source=tmp_path / "export.txt")
        with pytest.raises(UsageError, match="holds 1 chat that is not of the data"):
            opened(store, data)


def test_what_both_name_is_read_once(tmp_path: Path, data: Path) -> None:
    more = tmp_path / "more.jsonl"
    write_examples(more, [Example(Dialogue.of([("a", "a third")]), "third", Fragment((0,)))])
    alone = load_haystack_data(str(data), str(data), "val", say=print)
    assert (len(alone.archive), len(alone.known), alone.asked) == (1, 4, alone.archive[0])
    both = load_haystack_data(str(data), str(more), "val", say=print)
    assert [item.query for item in both.known] == ["third", "late bus", "the cat", "cat", "zebra"]
    assert len(both.asked) == 4


def test_without_a_model_a_hit_is_the_passage_of_the_best_line(tmp_path: Path, data: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        # what an archive of words alone gives; its vectors are tested where they are made
        haystack, examples = opened(store, data, model="none", ways=["words"])
        assert store.rows("SELECT * FROM matrices") == []
        retriever = HaystackRetriever(haystack, name="none", ways=["words"])
        assert retriever.name == "recall of an archive"
        assert (retriever.identity["inside"], retriever.identity["vectors"]) == (None, None)
        late, of_cat, elsewhere, nothing = (
            answer.extra["archive"] for answer in retriever.answer(examples)
        )
        bus, cat = (examples[number].dialogue.fingerprint for number in (0, 1))
        assert (late["recalled"], late["hits"]) == ([bus], [bus])
        # the lines around the one that has both words
        assert late["best"]["utterance_ids"] == late["known"]["utterance_ids"] == [0, 1, 2]
        assert of_cat["best"]["dialogue"] == cat
        # knowing the dialogue, the words are looked for in it alone
        assert elsewhere["best"]["dialogue"] == cat
        assert elsewhere["known"] == {"utterance_ids": [], "image_ids": []}
        assert (nothing["best"], nothing["recalled"]) == (None, [])
