"""Segments held against true ones: what the truth is, figures with intervals, and the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ffr.data.catalog import load_dataset
from ffr.dialogue import Dialogue, Example, Fragment, Utterance
from ffr.errors import DataError
from ffr.evaluation.segmentation import evaluate_segmentation, true_segments
from ffr.retrieval.segmentation import EverySegmenter


def _chat(name: str, num_lines: int = 6) -> Dialogue:
    return Dialogue(name, tuple(Utterance("a", (f"{name} {n}",)) for n in range(num_lines)))


def test_lines_of_the_same_queries_are_a_segment() -> None:
    chat = _chat("d", 8)
    truth = true_segments(
        [
            Example(chat, "one", Fragment((1, 2, 5))),
            Example(_chat("no truth"), "x"),
            Example(chat, "two", Fragment((2, 6))),
            Example(chat, "absent", Fragment()),
        ]
    )
    # line 2 is of both; 0, 3 and 4, and 7 are of none, and each run is by itself
    assert truth.labels == ((0, 1, 2, 3, 3, 1, 4, 5),)
    assert truth.num_left_out == 1
    assert truth.words == (
        "True segments: fragments of queries (1 dialogue); 1 dialogue without any left out"
    )


def test_topics_of_lines_go_before_fragments(tmp_path: Path) -> None:
    topics = [0, 0, 1, None, None, 0]
    record = {
        "dialogue_id": "d",
        "dialogue": [
            {"speaker": "a", "utterance_idx": n, "utterance": f"line {n}", "topic_index": topic}
            for n, topic in enumerate(topics)
        ],
        "query_text": "x",
        "gt_turns": [4, 5],
    }
    path = tmp_path / "raw.json"
    path.write_text(json.dumps([record]))
    truth = true_segments(load_dataset(path, require_images=False))
    assert truth.labels == ((0, 0, 1, 2, 2, 0),)
    assert truth.words == "True segments: topics of lines (1 dialogue)"


def test_without_any_truth_there_is_nothing_to_measure() -> None:
    with pytest.raises(DataError, match="no dialogue tells its segments"):
        true_segments([Example(_chat("d"), "x"), Example(_chat("e"), "absent", Fragment())])


def test_figures_intervals_and_the_file(tmp_path: Path) -> None:
    examples = [
        Example(_chat("right"), "x", Fragment((0, 1, 2))),
        Example(_chat("wrong"), "x", Fragment((0, 1, 2, 3, 4))),
    ]
    truth = true_segments(examples)
    assert truth.labels == ((0, 0, 0, 1, 1, 1), (0, 0, 0, 0, 0, 1))
    results = evaluate_segmentation(truth, EverySegmenter(3), data={"dataset": "d"}, seed=1)
    # of the second, k = 2: windows (0,2) … (3,5); by truth one boundary in the last, by the
    # prediction in the middle two
    assert results.figures["pk"] == pytest.approx((0 + 3 / 4) / 2)
    assert results.figures["boundary_f1"] == pytest.approx(1 / 2)
    assert results.intervals["pk"] == pytest.approx([0, 3 / 4])
    assert results.intervals["boundary_f1"] == [0, 1]
    assert results.counts["num_segments"] == results.counts["num_true_segments"] == 4
    assert results.counts["num_lines"] == 12
    written = json.loads(results.save(tmp_path).read_text())
    assert written["figures"] == results.figures
    assert written["method"] == {"label": "every-3", "kind": "every", "num_lines": 3}
    assert written["data"]["num_dialogues"] == 2
    again = evaluate_segmentation(truth, EverySegmenter(3), data={"dataset": "d"}, seed=1)
    assert again == results


def test_of_one_dialogue_there_is_no_interval() -> None:
    truth = true_segments([Example(_chat("d"), "x", Fragment((0, 1)))])
    results = evaluate_segmentation(truth, EverySegmenter(None), data={})
    assert set(results.intervals.values()) == {None}
