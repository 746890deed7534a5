"""What queries mean in an archive, and the figures of what was found there, worked by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from ffr.dialogue import Dialogue, Example, Fragment, Utterance
from ffr.errors import DataError
from ffr.evaluation.bootstrap import clustered_means
from ffr.evaluation.corpus import (
    ABSENT,
    ARCHIVE_FIGURES,
    ONE,
    SEVERAL,
    archive_summary,
    meant_by,
)

CHATS = {
    name: Dialogue(name, tuple(Utterance("a", (f"{name} {line}",)) for line in range(4)))
    for name in ("bus", "train", "cat")
}
NAMES = {name: chat.fingerprint for name, chat in CHATS.items()}


def asked(chat: str, kind: str, concept: str | None, *lines: int, truth: bool = True) -> Example:
    meta = {"query_kind": kind, **({} if concept is None else {"concept": concept})}
    return Example(CHATS[chat], f"{kind} of {chat}", Fragment(lines) if truth else None, meta=meta)


def found(
    recalled: list[str], best: tuple[str, list[int]] | None, known: list[int], hits: list[str]
) -> dict[str, Any]:
    return {
        "recalled": [NAMES[name] for name in recalled],
        "hits": [NAMES[name] for name in hits],
        "best": None
        if best is None
        else {"dialogue": NAMES[best[0]], "utterance_ids": best[1], "image_ids": []},
        "known": {"utterance_ids": known, "image_ids": []},
    }


QUERIES = [
    asked("bus", "human_topic", "travel", 0, 1),
    asked("bus", "concept_en", "travel", 1),
    asked("train", "concept_en", "travel", 2, 3),
    asked("cat", "concept_en", "travel"),
]


def test_what_a_query_means() -> None:
    meant = meant_by(QUERIES, QUERIES, ["human_*"])
    assert [item.group for item in meant] == [ONE, SEVERAL, SEVERAL, ABSENT]
    bus, train = NAMES["bus"], NAMES["train"]
    assert dict(meant[0].truths) == {bus: Fragment((0, 1))}
    # in its own dialogue a query means what its record says; elsewhere all of the concept
    assert dict(meant[1].truths) == {bus: Fragment((1,)), train: Fragment((2, 3))}
    assert dict(meant[2].truths) == {bus: Fragment((0, 1)), train: Fragment((2, 3))}
    assert dict(meant[3].truths) == {bus: Fragment((0, 1)), train: Fragment((2, 3))}
    # where every kind is specific, a query means its own dialogue or nothing
    assert [len(item.truths) for item in meant_by(QUERIES, QUERIES)] == [1, 1, 1, 0]


def test_a_query_without_a_true_answer_cannot_be_measured() -> None:
    unknown = asked("bus", "human_topic", None, truth=False)
    with pytest.raises(DataError, match="no true answer, by which a search is measured"):
        meant_by([unknown], [unknown])


def test_figures_by_hand() -> None:
    meant = meant_by(QUERIES, QUERIES, ["human_*"])
    answers = [
        # right, second; one line of two and one too many
        found(["cat", "bus"], ("bus", [1, 2]), [0, 1], ["bus", "cat"]),
        # another dialogue of the concept, half of its lines
        found(["train"], ("train", [2]), [1], ["train"]),
        # a wrong dialogue
        found(["cat", "train"], ("cat", [2, 3]), [2], ["cat"]),
        # nothing, rightly
        found(["cat"], None, [], []),
    ]
    own = [query.dialogue.fingerprint for query in QUERIES]
    summary = archive_summary(answers, meant, own, num_resamples=100)
    one = summary["groups"][ONE]
    assert (one["num_queries"], one["num_dialogues"]) == (1, 1)
    figures = one["figures"]
    assert tuple(figures) == ARCHIVE_FIGURES
    assert (figures["recall_at_1"], figures["recall_at_5"]) == (0, 1)
    assert (figures["reciprocal_rank"], figures["hits_reciprocal_rank"]) == (0.5, 1)
    assert figures["ndcg_at_10"] == pytest.approx(1 / math.log2(3))
    assert (figures["utterance_f1"], figures["known_utterance_f1"]) == (0.5, 1)
    # neither has pictures
    assert figures["image_f1"] == 1
    assert one["intervals"]["utterance_f1"] is None
    several = summary["groups"][SEVERAL]["figures"]
    # 2/3 of the other dialogue's lines, and none of the wrong one's
    assert several["utterance_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert several["known_utterance_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert (several["wrong"], several["empty"]) == (0.5, 0)
    assert (several["recall_at_1"], several["recall_at_5"]) == (0.5, 1)
    low, high = summary["groups"][SEVERAL]["intervals"]["wrong"]
    assert (low, high) == (0, 1)
    absent = summary["groups"][ABSENT]["figures"]
    assert (absent["wrong"], absent["empty"], absent["utterance_f1"]) == (0, 1, 1)
    assert summary["kinds"]["concept_en"]["num_queries"] == 3
    json.dumps(summary, allow_nan=False)


def test_what_is_not_measured_is_none() -> None:
    nothing = asked("cat", "absent", None)
    (meant,) = meant_by([nothing], [nothing])
    (summary,) = archive_summary(
        [found(["bus"], ("bus", [1]), [], ["bus"])], [meant], ["d"], num_resamples=10
    )["groups"].values()
    assert summary["figures"]["recall_at_20"] is None
    assert summary["figures"]["wrong"] == 1
    assert summary["figures"]["utterance_f1"] == 0


def test_lines_of_a_wrong_dialogue_are_wrong_though_their_numbers_are_right() -> None:
    query = asked("bus", "human_topic", None, 2)
    answer = found(["cat"], ("cat", [2]), [2], ["cat"])
    summary = archive_summary([answer], meant_by([query], [query]), ["d"], num_resamples=10)
    assert summary["groups"][ONE]["figures"]["utterance_f1"] == 0


def test_clustered_means() -> None:
    values = np.array([[1.0, np.nan], [0.0, 1.0], [0.0, np.nan]])
    (mean, interval), (rare, none) = clustered_means(values, ["d", "d", "e"], num_resamples=500)
    assert mean == pytest.approx(1 / 3)
    # every draw holds d (1/2), e (0) or both (1/3)
    assert interval == [0, 0.5]
    assert (rare, none) == (1.0, None)
    with pytest.raises(ValueError, match="of 2 clusters"):
        clustered_means(values, ["d", "e"])
