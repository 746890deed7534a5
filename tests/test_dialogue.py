"""The core types: numbering, fingerprints, keys, pickling."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from types import MappingProxyType

import pytest

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
