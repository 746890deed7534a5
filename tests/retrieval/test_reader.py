"""A reader that is asked: its answers in the task's format, their entropy, and which encoder it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from reader_builds import WIDTH, LetterEncoder

from ffr.answer import parse_strict
from ffr.dialogue import Dialogue, Example, Fragment, Image
from ffr.errors import ModelError
from ffr.reader.likeness import Background
from ffr.reader.model import Reader
from ffr.reader.network import NetworkShape
from ffr.retrieval.reader import ENTROPY, ReaderRetriever, decision_entropy


class Letters(LetterEncoder):
    fingerprint, takes_images = "f" * 64, False


def a_reader(**settings: Any) -> Reader:
    rows = torch.randn(2, 1, 40, WIDTH, generator=torch.manual_seed(3))
    rows = torch.nn.functional.normalize(rows, dim=-1)
    shape = NetworkShape(width=16, num_heads=2, num_layers=1)
    return Reader.untrained(Letters(), Background(rows[0], rows[1]), shape=shape, **settings)


CHAT = Dialogue.of([("a", "the bus"), ("b", ["look", Image("bus.png")]), ("a", "tea"), ("b", "")])
OTHER = Dialogue.of([("a", "a cat"), ("b", "a dog")])


def asked(reader: Reader, examples: Sequence[Example]) -> list[Any]:
    encoder: Any = Letters()
    return ReaderRetriever(reader, encoder, name="mine").answer(examples)


def test_answers_are_the_readers_in_the_order_they_are_asked() -> None:
    reader, encoder = a_reader(nothing_from=1.0), Letters()
    pairs = [(CHAT, "bus"), (OTHER, "cat"), (CHAT, "tea"), (OTHER, "zebra")]
    answers = asked(reader, [Example(*pair) for pair in pairs])
    for (dialogue, query), answer in zip(pairs, answers, strict=True):
        units = reader.units(dialogue, encoder)
        (found,) = reader.predict(units, reader.query_vectors([query], encoder))
        assert parse_strict(answer.response) == Fragment(found.utterance_ids, found.image_ids)
        assert answer.score == pytest.approx(found.score, abs=1e-5)
        rows = [1 - found.nothing, *found.probabilities.tolist()]
        by_hand = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in rows]
        assert answer.extra[ENTROPY] == pytest.approx(sum(by_hand) / len(rows), abs=1e-5)


def test_nothing_here_is_an_empty_answer_that_is_as_sure_as_that() -> None:
    (answer,) = asked(a_reader(nothing_from=0.0), [Example(CHAT, "bus")])
    assert parse_strict(answer.response) == Fragment()
    assert 0 < answer.score < 1


def test_a_dialogue_is_embedded_once_and_queries_on_it_are_answered_together() -> None:
    encoder: Any = Letters()
    retriever = ReaderRetriever(a_reader(), encoder, name="mine")
    examples = [Example(chat, f"q{n}") for n, chat in enumerate([CHAT, OTHER, CHAT, CHAT])]
    assert retriever.plan(examples) == [[0, 2, 3], [1]]
    assert retriever.plan([Example(CHAT, f"q{n}") for n in range(130)])[2] == [128, 129]
    retriever.answer(examples)
    retriever.answer(examples)
    assert encoder.seen.count("the bus") == 1


class Tags:
    """Words of a picture are its file's name."""

    tagger, digest = object(), "t" * 64

    def words(self, pictures: Sequence[Any]) -> list[str]:
        return [f"a photo of {Path(picture).stem}" for picture in pictures]


def test_a_picture_is_read_by_its_words(tmp_path: Path) -> None:
    """The words of the picture that is shown, which in the control is another one's."""
    encoder, tags = Letters(), Tags()
    chosen: Any = encoder
    retriever = ReaderRetriever(a_reader(), chosen, name="mine", tagger=cast(Any, tags))
    assert retriever.takes_images
    assert retriever.identity["tagger"] == "t" * 64
    right = Example(CHAT, "bus", image_root=tmp_path)
    lines = [("a", "the bus"), ("b", ["look", Image("cat.png")]), ("a", "tea"), ("b", "")]
    wrong = Example(Dialogue.of(lines), "bus", image_root=tmp_path)
    assert retriever.plan([right, wrong, right]) == [[0, 2], [1]]
    first, second, third = retriever.answer([right, wrong, right])
    assert {"a photo of bus", "a photo of cat"} <= set(encoder.seen)
    assert encoder.seen.count("a photo of bus") == 1
    # the rows of one product may differ in their last bits, as the processor has it
    entropies = [answer.extra["decision_entropy"] for answer in (first, second, third)]
    assert entropies[0] == pytest.approx(entropies[2], abs=1e-6)
    assert abs(entropies[0] - entropies[1]) > 1e-4


def test_a_reader_that_learned_without_words_is_asked_without(tmp_path: Path) -> None:
    encoder, tags = Letters(), Tags()
    chosen: Any = encoder
    reader = a_reader(has_picture_words=False)
    retriever = ReaderRetriever(reader, chosen, name="mine", tagger=cast(Any, tags))
    assert not retriever.takes_images
    assert retriever.identity["tagger"] is None
    retriever.answer([Example(CHAT, "bus", image_root=tmp_path)])
    assert "a photo of bus" not in encoder.seen


def test_the_identity_names_reader_and_encoder() -> None:
    reader = a_reader()
    encoder: Any = Letters()
    identity = ReaderRetriever(reader, encoder, name="mine").identity
    assert identity == {
        "kind": "reader", "name": "mine", "fingerprint": reader.fingerprint, "encoder": "letters",
        "encoder_weights": "letters-1", "encoder_fingerprint": "f" * 64, "takes_images": False, "tagger": None,
    }  # fmt: skip
    other = a_reader(seed=1)
    assert len({reader.fingerprint, other.fingerprint, a_reader(scale=2.0).fingerprint}) == 3
    assert a_reader(notes={"seed": 4}).fingerprint == reader.fingerprint


def test_another_encoder_is_refused_at_once() -> None:
    encoder: Any = Letters()
    encoder.weights_digest = "letters-2"
    with pytest.raises(ModelError, match="is another encoder than letters"):
        ReaderRetriever(a_reader(), encoder, name="mine")

    class Nameless:
        name = fingerprint = "plain"

    plain: Any = Nameless()
    with pytest.raises(ModelError, match="has no weights that a reader could know it by"):
        ReaderRetriever(a_reader(), plain, name="mine")


def test_entropy_by_hand_and_what_has_none() -> None:
    assert decision_entropy(torch.tensor([0.5, 0.5])) == pytest.approx(math.log(2))
    assert decision_entropy(torch.tensor([0.0, 1.0])) == 0
    assert decision_entropy(torch.zeros(0)) == 0
    for wrong in (torch.tensor([1.5]), torch.tensor([math.nan]), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="lie outside 0 to 1"):
            decision_entropy(wrong)
