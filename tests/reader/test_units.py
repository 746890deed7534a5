"""What a dialogue becomes for the reader."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from reader_builds import WIDTH, LetterEncoder

from ffr.dialogue import Dialogue
from ffr.reader.units import units_of


def test_pictures_stand_beside_their_words_and_alone_as_one_unit(
    chat: Dialogue, encoder: LetterEncoder
) -> None:
    units = units_of(chat, encoder, picture_words=["a photo of soup", "", "salt"], prefix="p: ")
    assert units.utterance_ids.tolist() == [0, 1, -1, 2, -1, 3, 4]
    assert units.image_ids.tolist() == [-1, -1, 0, 1, 2, -1, -1]
    assert units.is_picture.tolist() == [False, False, True, True, True, False, False]
    assert units.speakers.tolist() == [0, 1, 1, 0, 0, 2, 1]  # ann is Ann
    assert units.has_words.tolist() == [True, True, True, False, True, False, True]
    assert units.num_chars.tolist() == [21, 8, 15, 0, 4, 0, 24]
    assert sorted(encoder.seen) == [
        "p: a photo of soup",
        "p: salt",
        "p: shall we cook tonight",
        "p: the train leaves at nine",
        "p: yes look",
    ]
    assert torch.equal(units.vectors[4], LetterEncoder().embed_texts(["p: salt"])[0])
    assert not units.vectors[3].any()


def test_labels_name_units_by_utterance_or_image(chat: Dialogue, encoder: LetterEncoder) -> None:
    units = units_of(chat, encoder)
    assert units.labels((1, 2), ()).nonzero()[:, 0].tolist() == [1, 3]
    assert units.labels((), (0, 1)).nonzero()[:, 0].tolist() == [2, 3]
    assert not units.labels((), ()).any()


def test_the_same_text_is_embedded_once(encoder: LetterEncoder) -> None:
    units = units_of(Dialogue.of([("a", "so"), ("b", "so"), ("a", "no")]), encoder)
    assert encoder.seen == ["so", "no"]
    assert torch.equal(units.vectors[0], units.vectors[1])


def test_a_dialogue_without_words_has_rows_of_the_encoders_width(encoder: LetterEncoder) -> None:
    assert units_of(Dialogue("d", ()), encoder).vectors.shape == (0, WIDTH)
    assert units_of(Dialogue.of([("a", " ")]), encoder).vectors.tolist() == [[0.0] * WIDTH]


def test_a_part_keeps_ids(chat: Dialogue, encoder: LetterEncoder) -> None:
    part = units_of(chat, encoder).part(2, 5)
    assert (part.utterance_ids.tolist(), part.image_ids.tolist()) == ([-1, 2, -1], [0, 1, 2])
    assert part.encoder == "letters-1"


def test_words_for_other_pictures_are_refused(chat: Dialogue, encoder: LetterEncoder) -> None:
    with pytest.raises(ValueError, match="words for 2 pictures and the dialogue has 3"):
        units_of(chat, encoder, picture_words=["a", "b"])


def test_what_is_no_row_of_numbers_is_refused(chat: Dialogue, encoder: LetterEncoder) -> None:
    units = units_of(chat, encoder)
    broken = units.vectors.clone()
    broken[0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        dataclasses.replace(units, vectors=broken)
    with pytest.raises(ValueError, match=r"speakers has shape \(2,\) beside 7"):
        dataclasses.replace(units, speakers=units.speakers[:2])
    with pytest.raises(ValueError, match="no rows"):
        dataclasses.replace(units, vectors=units.vectors[0])
