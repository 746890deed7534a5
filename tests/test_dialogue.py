"""The core types: numbering, fingerprints, keys, pickling."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from ffr.dialogue import Dialogue, Example, FilePrompt, Fragment, Image, Utterance


def _dialogue(name: str = "d", speaker: str = "User1", caption: str = "") -> Dialogue:
    return Dialogue(
        name,
        (
            Utterance(speaker, ("hi ", Image("a.png", caption), " and ", Image("b.png"))),
            Utterance("user2"),
            Utterance("user1", (Image("c.png"),)),
        ),
    )


def test_images_are_numbered_over_the_dialogue() -> None:
    chat = _dialogue()
    assert [image.source for image in chat.images] == ["a.png", "b.png", "c.png"]
    assert chat.image_utterance_ids == (0, 0, 2)
    assert chat.utterances[0].text == "hi  and "


def test_fingerprint_is_of_the_content_alone() -> None:
    base = _dialogue().fingerprint
    assert _dialogue("other", "USER1", "a cat").fingerprint == base
    changed = Dialogue("d", (*_dialogue().utterances[:2], Utterance("user1", (Image("d.png"),))))
    assert changed.fingerprint != base
    text = Dialogue("d", (Utterance("a", ("x",)),))
    picture = Dialogue("d", (Utterance("a", (Image("x"),)),))
    assert text.fingerprint != picture.fingerprint


def test_key_names_the_pair() -> None:
    one = Example(_dialogue(), "q", Fragment((0,)))
    assert one.key == Example(_dialogue("other"), "q", None, FilePrompt("x")).key
    assert one.key != Example(_dialogue(), "r").key
    assert len(one.key) == 16


def test_fragment_of_sorts_and_drops_repeats() -> None:
    assert Fragment.of([3, 1, 3], [0, 0]) == Fragment((1, 3), (0,))
    assert Fragment().is_empty
    assert not Fragment((), (0,)).is_empty


@pytest.mark.parametrize("meta", [None, {"lang": "zh", "topics": [1]}])
def test_examples_survive_pickling_and_copying(meta: dict[str, object] | None) -> None:
    example = Example(_dialogue(), "q", Fragment((0,)), FilePrompt("u", "s"), Path("root"))
    if meta is not None:
        example = Example(_dialogue(), "q", image_root=Path("root"), meta=MappingProxyType(meta))
    for other in (pickle.loads(pickle.dumps(example)), copy.deepcopy(example)):
        assert other == example
        assert other.meta == example.meta
        assert other.image_root == example.image_root
        with pytest.raises(TypeError):
            other.meta["x"] = 1


def test_image_locations() -> None:
    chat = Dialogue(
        "d", (Utterance("a", tuple(map(Image, ("x.png", "/y.png", "HTTPS://e.org/z.png")))),)
    )
    assert list(Example(chat, "q", image_root=Path("root")).image_locations()) == [
        Path("root/x.png"),
        Path("/y.png"),
        "HTTPS://e.org/z.png",
    ]


@pytest.mark.parametrize(
    "make",
    [list, tuple, set, np.array, torch.tensor, iter, lambda ids: range(ids[0], ids[-1] + 1)],
)
def test_fragments_hold_plain_numbers_whatever_they_are_made_of(make: Callable[..., Any]) -> None:
    made = Fragment(make([3, 4]), make([0, 1]))
    assert made == Fragment((3, 4), (0, 1))
    assert {type(item) for item in (*made.utterance_ids, *made.image_ids)} == {int}
    assert hash(made) == hash(Fragment((3, 4), (0, 1)))
    assert Fragment.of(make([3, 4]), ()) == Fragment((3, 4))


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        ([0.0], r"utterance ids hold 0\.0 \(float\)"),
        ([True], "as a mask does"),
        (torch.tensor([True, False]), "as a mask does"),
        ([-1], "hold -1; write whole numbers that count from 0"),
        (["0"], r"hold '0' \(str\)"),
        ("01", r"are '01' \(str\); write a list of numbers"),
        (b"01", "are b'01'"),
        ({0: 1}, r"are \{0: 1\} \(dict\)"),
        (3, r"are 3 \(int\)"),
        (None, "are None"),
        (torch.tensor(3), "are tensor"),
        ([[0, 1]], r"hold \[0, 1\] \(list\)"),
        (np.array([[0, 1]]), r"hold \[0, 1\] \(list\)"),
    ],
)
def test_what_is_no_id_makes_no_fragment(ids: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Fragment(ids)
    with pytest.raises(ValueError, match=sentence.replace("utterance", "image")):
        Fragment((), ids)
    with pytest.raises(ValueError, match=sentence):
        Fragment.of(ids, ())


def test_a_dialogue_of_pairs() -> None:
    line = Utterance("Bob", ("tea?",))
    picture = Image("b.png", "a cat")
    chat = Dialogue.of(
        [("Ann", "hi"), line, ["Ann", ["see ", Path("a.png"), picture, ""]], ("Bob", "")], "d"
    )
    assert chat.utterances == (
        Utterance("Ann", ("hi",)),
        line,
        Utterance("Ann", ("see ", Image("a.png"), picture)),
        Utterance("Bob"),
    )
    assert chat.said()[2:] == ["see [image 0: a.png] [image 1: b.png]", ""]
    assert chat == Dialogue("d", chat.utterances)
