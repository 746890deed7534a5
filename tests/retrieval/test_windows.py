"""Cut, numbered and merged by hand; through the model; and stopped and taken up."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffr.answer import format_answer, is_well_formed, parse_lenient, read_answer
from ffr.dialogue import Dialogue, Example, FilePrompt, Fragment, Image, Utterance
from ffr.errors import DataError, UsageError
from ffr.evaluation.run import evaluate
from ffr.prompt import parse_user_prompt, prompt_of, render
from ffr.retrieval.interface import Answer
from ffr.retrieval.lexical import BaselineRetriever
from ffr.retrieval.windows import WindowedRetriever, cut, likeliest, merge, window_ranges


def chat(num_utterances: int, *hosts: int, name: str = "d") -> Dialogue:
    """Line i says `line i`; image number n hangs on the utterance that is named n-th."""
    lines = []
    for index in range(num_utterances):
        pictures = [Image(f"{number}.png") for number, host in enumerate(hosts) if host == index]
        lines.append(Utterance("a", (f"line {index}", *pictures)))
    return Dialogue(name, tuple(lines))


class Scripted:
    """Gives prepared responses in the order of what is asked; keeps what it was asked."""

    def __init__(self, *responses: str, stop_after: int | None = None) -> None:
        self.responses = list(responses)
        self.asked: list[Example] = []
        self.stop_after = stop_after

    name = "scripted"
    identity: dict[str, Any] = {"kind": "scripted"}  # noqa: RUF012 - read only

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        return [[index] for index in range(len(examples))]

    def prompt(self, example: Example) -> FilePrompt:
        return prompt_of(example)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        found = []
        for example in examples:
            if self.stop_after == len(self.asked):
                raise KeyboardInterrupt
            self.asked.append(example)
            found.append(
                Answer(self.responses.pop(0) if self.responses else f"about {example.dialogue.id}")
            )
        return found


def said(utterances: tuple[int, ...] = (), images: tuple[int, ...] = ()) -> str:
    return format_answer(Fragment(utterances, images))


def asked_in_pieces(example: Example, window: int, overlap: int, *responses: str) -> Answer:
    inner = Scripted(*responses)
    [answer] = WindowedRetriever(inner, window=window, overlap=overlap).answer([example])
    assert not inner.responses
    return answer


# -- where the cuts are -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "window", "overlap", "expected"),
    [
        (7, 3, 0, [(0, 3), (3, 6), (6, 7)]),
        (6, 3, 0, [(0, 3), (3, 6)]),
        (7, 3, 1, [(0, 3), (2, 5), (4, 7)]),
        (8, 3, 1, [(0, 3), (2, 5), (4, 7), (6, 8)]),
        (5, 3, 2, [(0, 3), (1, 4), (2, 5)]),
        (3, 3, 2, [(0, 3)]),
        (1, 3, 0, [(0, 1)]),
        (0, 3, 0, [(0, 0)]),
        (500, 0, 0, [(0, 500)]),
        (4, 1, 0, [(0, 1), (1, 2), (2, 3), (3, 4)]),
    ],
)
def test_ranges(size: int, window: int, overlap: int, expected: list[tuple[int, int]]) -> None:
    assert window_ranges(size, window, overlap) == expected


@given(size=st.integers(1, 400), window=st.integers(1, 120), data=st.data())
def test_ranges_cover_everything(size: int, window: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, window - 1))
    ranges = window_ranges(size, window, overlap)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == size
    for (_, end), (start, following_end) in itertools.pairwise(ranges):
        assert start == end - overlap
        assert following_end > end  # every piece has something new
    assert all(end - start == window for start, end in ranges[:-1])
    assert 0 < ranges[-1][1] - ranges[-1][0] <= window


@pytest.mark.parametrize(("window", "overlap"), [(0, 0), (3, 3), (3, 4), (3, -1)])
def test_a_window_that_cannot_go_forward(window: int, overlap: int) -> None:
    with pytest.raises(UsageError, match="cannot go forward"):
        WindowedRetriever(Scripted(), window=window, overlap=overlap)


# -- cases by hand ------------------------------------------------------------------------------------------------------------


def test_images_on_both_sides_of_a_border() -> None:
    """Utterances 0-6, images 0-5 on 0, 2, 2, 3, 6, 6; pieces (0-2), (3-5), (6): images 0-2, 3, 4-5."""
    example = Example(chat(7, 0, 2, 2, 3, 6, 6), "q")
    pieces = cut(example, 3, 0)
    assert [piece.images for piece in pieces] == [(0, 3), (3, 4), (4, 6)]
    assert [[image.source for image in piece.example.dialogue.images] for piece in pieces] == [
        ["0.png", "1.png", "2.png"], ["3.png"], ["4.png", "5.png"],
    ]  # fmt: skip
    answer = asked_in_pieces(
        example, 3, 0, said((2,), (1, 2)), said((0, 2), (0,)), said((0,), (1,))
    )
    assert answer.response == said((2, 3, 5, 6), (1, 2, 3, 5))


def test_overlapping_pieces_name_the_same_lines_once() -> None:
    """Pieces (0-3), (2-5), (4-6) of 7 lines; images on 1, 3, 4, 6 are 0-1, 1-2, 2-3 of the whole."""
    example = Example(chat(7, 1, 3, 4, 6), "q")
    assert [(piece.utterances, piece.images) for piece in cut(example, 4, 2)] == [
        ((0, 4), (0, 2)), ((2, 6), (1, 3)), ((4, 7), (2, 4)),
    ]  # fmt: skip
    answer = asked_in_pieces(
        example, 4, 2, said((3,), (1,)), said((1, 2), (0, 1)), said((0, 2), (0, 1))
    )
    assert answer.response == said((3, 4, 6), (1, 2, 3))


def test_empty_answers_merge_to_an_empty_one() -> None:
    example = Example(chat(5, 4), "q")
    assert asked_in_pieces(example, 2, 0, said(), said(), said()).response == said()
    assert asked_in_pieces(example, 2, 0, said(), said(), said((0,), (0,))).response == said(
        (4,), (0,)
    )


def test_an_invented_id_becomes_none_that_exists() -> None:
    """Line 2 of a piece of two lines is not line 2 of the dialogue; it stays wrong, and is read as out of range."""
    example = Example(chat(5, 0, 2, 4), "q")
    response = asked_in_pieces(
        example, 2, 0, said((1, 2, 7), (1,)), said((999_999_999,)), said((0, 1), (5,))
    ).response
    assert is_well_formed(response)
    named = read_answer(response)
    assert [item for item in named.utterance_ids if item < 5] == [1, 4]
    assert [item for item in named.image_ids if item < 3] == []
    assert len(named.utterance_ids) == 6
    assert len(named.image_ids) == 2
    problems = parse_lenient(response, num_utterances=5, num_images=3).problems
    assert problems == ("utterance ids out of range", "image ids out of range")


def test_one_malformed_piece_makes_the_whole_malformed_and_is_still_read() -> None:
    example = Example(chat(4, 1, 3), "q")
    answer = asked_in_pieces(
        example,
        2,
        0,
        "Sure: <|utt_ids_start|>[1]<|utt_ids_end|>;<|img_ids_start|>[0]",
        said((0,), (0,)),
    )
    assert answer.response == said((1, 2), (0, 1)) + " (malformed: pieces 0 of 0-1)"
    assert not is_well_formed(answer.response)
    assert read_answer(answer.response) == Fragment((1, 2), (0, 1))
    repeated = asked_in_pieces(example, 2, 0, said((1, 1)), said())
    assert not is_well_formed(repeated.response)
    assert read_answer(asked_in_pieces(example, 2, 0, "no", "no").response) == Fragment()


def test_thoughts_around_the_answers() -> None:
    style = "<think>hm [0]</think><answer>{}</answer>".format
    assert asked_in_pieces(
        Example(chat(3), "q"), 2, 0, style(said((1,))), style(said((0,)))
    ).response == said((1, 2))


def test_what_the_pieces_said_is_kept() -> None:
    example = Example(chat(3, 2), "q")
    pieces = cut(example, 2, 0)
    answers = [
        Answer("one", (-0.5,), True, {"usage": {"prompt_tokens": 7, "cost": 0.5}}),
        Answer(
            said(),
            None,
            False,
            {"usage": {"prompt_tokens": 5, "cost": 0.25}, "finish_reason": "content_filter"},
        ),
    ]
    merged = merge(example, pieces, answers)
    assert merged.is_cut_off
    assert merged.extra["usage"] == {"prompt_tokens": 12, "cost": 0.75}
    first, second = merged.extra["pieces"]
    assert first == {
        "utterances": [0, 2], "images": [0, 0], "response": "one", "is_cut_off": True,
        "logprobs": {"content": [{"logprob": -0.5}]}, "usage": {"prompt_tokens": 7, "cost": 0.5},
    }  # fmt: skip
    assert (second["utterances"], second["images"], second["finish_reason"]) == (
        [2, 3],
        [0, 1],
        "content_filter",
    )
    json.dumps(merged.extra)


def test_a_short_dialogue_is_as_without_windows() -> None:
    example = Example(chat(3), "q", Fragment((0,)))
    answer = Answer("whatever", (-1.0,), True, {"x": 1})
    [piece] = cut(example, 3, 1)
    assert piece.example is example
    assert merge(example, [piece], [answer]) is answer


# -- only the likeliest pieces ------------------------------------------------------------------------------------------------


def worded(*texts: str) -> Example:
    return Example(Dialogue.of([("a", text) for text in texts]), "a red boat", Fragment())


def test_only_the_pieces_of_most_words_in_common_are_asked() -> None:
    example = worded("ship", "tea", "soup", "bread", "red boat", "hm", "red", "hm")
    inner = Scripted(said((0,)), said((1,)))
    retriever = WindowedRetriever(inner, window=2, num_best=2)
    [answer] = retriever.answer([example])
    assert [one.dialogue.utterances[0].text for one in inner.asked] == ["red boat", "red"]
    assert read_answer(answer.response) == Fragment((4, 7))
    assert [piece["utterances"] for piece in answer.extra["pieces"]] == [[4, 6], [6, 8]]
    assert retriever.identity["best_windows"] == 2
    assert "best_windows" not in WindowedRetriever(inner, window=2).identity


def test_one_piece_of_several_is_answered_in_the_numbering_of_the_whole() -> None:
    example = worded("tea", "tea", "tea", "the red boat")
    inner = Scripted(said((1, 5)))
    [answer] = WindowedRetriever(inner, window=2, num_best=1).answer([example])
    assert read_answer(answer.response).utterance_ids == (
        3,
        9,
    )  # 5 is none of the piece, and 9 none of the whole
    assert [piece["utterances"] for piece in answer.extra["pieces"]] == [[2, 4]]


def test_of_pieces_without_a_word_in_common_the_first_are_asked() -> None:
    example = worded("x", "y", "z")
    assert [one.utterances for one in likeliest(cut(example, 1, 0), 2)] == [(0, 1), (1, 2)]
    assert likeliest(cut(example, 1, 0), 9) == cut(example, 1, 0)


# -- prompts ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", ["first", "last"])
def test_a_files_own_words_stay(position: Any) -> None:
    whole = chat(7, 0, 2, 2, 3, 6)
    own = render(whole, "q", template="en", query_position=position)
    own = FilePrompt(own.user.replace("From the long", "Dear model, from the long"), "be brief")
    for piece in cut(Example(whole, "q", Fragment((3,)), own), 3, 1):
        start, end = piece.utterances
        prompt = piece.example.prompt
        assert prompt is not None
        assert prompt.user.startswith("Dear model, from the long")
        assert prompt.system == "be brief"
        query, lines = parse_user_prompt(prompt.user, piece.example.dialogue.images)
        assert (query, lines) == ("q", whole.utterances[start:end])
        assert piece.example.fragment is None
        expected = render(piece.example.dialogue, "q", template="en", query_position=position).user
        assert prompt.user.replace("Dear model, from", "From") == expected


def test_a_prompt_that_does_not_show_the_dialogue() -> None:
    example = Example(chat(4), "q", prompt=FilePrompt("q?"))
    with pytest.raises(DataError, match="dialogue 'd': its prompt shows 0 of 4 utterances"):
        cut(example, 2, 0)


# -- as a retriever -----------------------------------------------------------------------------------------------------------


def test_baselines_that_know_no_borders_are_the_same_in_pieces() -> None:
    examples = [
        Example(chat(23, 0, 5, 6, 22, name="long"), "LINE 7"),
        Example(chat(4, 1, name="short"), "line"),
    ]
    for name in ("everything", "nothing", "overlap"):
        inner = BaselineRetriever(name)
        expected = [read_answer(answer.response) for answer in inner.answer(examples)]
        for window, overlap in ((5, 0), (6, 3), (22, 1)):
            answers = WindowedRetriever(inner, window=window, overlap=overlap).answer(examples)
            assert [read_answer(answer.response) for answer in answers] == expected
            assert "pieces" in answers[0].extra
            assert "pieces" not in answers[1].extra


def test_plan_puts_cut_dialogues_first_with_all_their_queries() -> None:
    examples = [
        Example(chat(2, name="s"), "a"), Example(chat(9, name="l"), "a"), Example(chat(2, name="s"), "b"),
        Example(chat(9, name="l"), "b"), Example(chat(8, name="m"), "a"),
    ]  # fmt: skip
    retriever = WindowedRetriever(Scripted(), window=4)
    assert retriever.plan(examples) == [[1, 3], [4], [0], [2]]
    assert retriever.identity == {"kind": "scripted", "window": 4, "overlap": 0}
    assert retriever.name == "scripted"


class TooLong(Scripted):
    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        for example in examples:
            if len(example.dialogue.utterances) > 3:
                raise DataError("is too long", where=f"dialogue {example.dialogue.id!r}")
        return super().plan(examples)


def test_pieces_that_are_still_too_long_show_before_the_work() -> None:
    example = Example(chat(9, name="big"), "q")
    with pytest.raises(DataError, match="dialogue 'big, utterances 0-3': is too long"):
        WindowedRetriever(TooLong(), window=4).plan([example])
    assert WindowedRetriever(TooLong(), window=3).plan([example]) == [[0]]


class Parallel(Scripted):
    """Works on all pieces at a time and hands them out backwards; can fail at one of them."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.fails_at = fails_at

    def answer_as_they_come(self, batches: Any) -> Iterator[tuple[int, list[Answer]]]:
        taken = list(enumerate(batches))
        for number, [example] in reversed(taken):
            if number != self.fails_at:
                self.asked.append(example)
                yield number, [Answer(said((0,)))]
        if self.fails_at is not None:
            raise DataError("fell over")


def test_pieces_of_several_dialogues_at_a_time() -> None:
    examples = [
        Example(chat(5, name="a"), "q"),
        Example(chat(2, name="b"), "q"),
        Example(chat(4, name="c"), "q"),
    ]
    retriever = WindowedRetriever(Parallel(), window=2)
    assert retriever.plan(examples) == [[0], [2], [1]]
    found = list(retriever.answer_as_they_come([[example] for example in examples]))
    assert [(number, answers[0].response) for number, answers in found] == [
        (2, said((0, 2))), (1, said((0,))), (0, said((0, 2, 4))),
    ]  # fmt: skip
    # pieces are 0-2 of a, 3 of b, 4-5 of c
    stream = WindowedRetriever(Parallel(fails_at=4), window=2).answer_as_they_come(
        [[example] for example in examples]
    )
    assert [next(stream)[0], next(stream)[0]] == [1, 0]
    with pytest.raises(DataError, match="fell over"):
        next(stream)


def test_a_piece_that_cannot_be_answered_takes_its_dialogue_along_and_no_other() -> None:
    class Refuses(Scripted):
        def answer(self, examples: Sequence[Example]) -> list[Answer]:
            if any("a, utterances 2-3" in example.dialogue.id for example in examples):
                raise DataError("is refused", where="dialogue 'a, utterances 2-3'")
            return super().answer(examples)

    examples = [Example(chat(5, name="a"), "q"), Example(chat(4, name="c"), "q")]
    found = WindowedRetriever(Refuses(), window=2).answer(examples)
    assert [answer.failure for answer in found] == [
        "dialogue 'a, utterances 2-3': is refused",
        None,
    ]
    assert found[0].response == ""


def evaluated(examples: list[Example], inner: Any, out: Path) -> tuple[bytes, dict[str, Any]]:
    results = evaluate(
        examples, WindowedRetriever(inner, window=10, overlap=2), out, dataset="made"
    )
    return (out / "predictions.jsonl").read_bytes(), results.summary


def test_stopped_and_taken_up(examples: list[Example], tmp_path: Path) -> None:
    """Dialogues of 4 to 40 lines; stopped after any number of pieces, the files are those of a run in one go."""
    whole, inner = tmp_path / "whole", Scripted()
    expected = evaluated(examples, inner, whole)
    num_pieces = len(inner.asked)
    assert num_pieces == 2 * (1 + 2 + 3 + 4 + 5)
    for number in range(0, num_pieces, 7):
        out = tmp_path / str(number)
        with pytest.raises(KeyboardInterrupt):
            evaluated(examples, Scripted(stop_after=number), out)
        assert evaluated(examples, Scripted(), out) == expected
    with pytest.raises(UsageError, match="differs in model overlap, model window"):
        evaluate(examples, Scripted(), whole, dataset="made")


def test_predictions_hold_the_pieces(examples: list[Example], tmp_path: Path) -> None:
    evaluated(examples, BaselineRetriever("overlap"), tmp_path / "out")
    lines = [
        json.loads(line)
        for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    ]
    assert [len(line.get("pieces", [])) for line in lines] == [0, 0, 2, 2, 3, 3, 4, 4, 5, 5]
    last = lines[-1]["pieces"]
    assert [piece["utterances"] for piece in last] == [
        [0, 10],
        [8, 18],
        [16, 26],
        [24, 34],
        [32, 40],
    ]
    assert all(is_well_formed(piece["response"]) for piece in last)
    # the messages show the whole dialogue, in whose numbering the answer is
    assert "<|utt_id_start|>39<|utt_id_end|>" in lines[-1]["messages"][1]["content"]
