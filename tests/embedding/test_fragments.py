"""Vectors of whole fragments: the mean of their parts, and the cache of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from encoder_builds import CONTEXT

from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.embedding import CachedEncoder, load_encoder, mean_of_parts
from ffr.errors import UsageError


class Plane:
    """Texts and pictures as points on the unit circle, by hand."""

    def embed_texts(self, texts):
        points = {"east": (1.0, 0.0), "north": (0.0, 1.0), "west": (-1.0, 0.0)}
        return torch.tensor([points[text] for text in texts]).reshape(-1, 2)

    def embed_images(self, images):
        return torch.tensor([[0.6, 0.8]] * len(images))


def test_the_mean_by_hand() -> None:
    north_east, with_picture, repeated, cancelled = mean_of_parts(
        Plane(),
        [["east", "north"], ["east", Path("p.png")], ["east", "east", "north"], ["east", "west"]],
    )
    torch.testing.assert_close(north_east, torch.tensor([0.5, 0.5]) * math.sqrt(2))
    torch.testing.assert_close(with_picture, torch.tensor([1.6, 0.8]) / math.sqrt(1.6**2 + 0.8**2))
    torch.testing.assert_close(repeated, torch.tensor([2.0, 1.0]) / math.sqrt(5))
    assert cancelled.tolist() == [0.0, 0.0]
    assert mean_of_parts(Plane(), []).shape == (0, 2)


def test_a_fragment_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="fragment 1 has neither text nor picture"):
        mean_of_parts(Plane(), [["east"], []])


@pytest.mark.parametrize("kind", CONTEXT)
def test_dual_encoders_take_the_mean(
    kind: str, encoder_folder: Callable[[str], Path], pictures: list[Path]
) -> None:
    encoder = load_encoder(encoder_folder(kind))
    fragments = [
        ["a cat", pictures[0]],
        [pictures[1]],
        ["a cat", "一只猫", pictures[0], pictures[2]],
    ]
    found = encoder.embed_fragments(fragments)
    texts, images = encoder.embed_texts(["a cat", "一只猫"]), encoder.embed_images(pictures)
    for row, parts in zip(
        found, [(texts[0], images[0]), (images[1],), (*texts, images[0], images[2])], strict=True
    ):
        total = sum(parts)
        torch.testing.assert_close(row, total / total.norm(), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        found,
        torch.cat([encoder.embed_fragments([parts]) for parts in fragments]),
        atol=1e-6,
        rtol=0,
    )
    assert encoder.embed_fragments([]).shape == (0, found.shape[1])


def test_the_cache_keeps_fragments_and_sentences(
    encoder_folder: Callable[[str], Path], pictures: list[Path], tmp_path: Path
) -> None:
    for kind, fragments in {
        "clip": [["a", pictures[0]], [pictures[0], "a"], ["a", "b"], ["ab"]],
        "bert": [["a", "b"], ["ab"], ["b", "a"]],
    }.items():
        encoder = load_encoder(encoder_folder(kind))
        asked: list[int] = []

        def count(given, asked=asked, embed=encoder.embed_fragments):
            asked.append(len(given))
            return embed(given)

        encoder.embed_fragments = count  # type: ignore[method-assign]
        cached = CachedEncoder(encoder, tmp_path / "cache", max_bytes=2**20)
        assert cached.takes_images == (kind == "clip")
        first = cached.embed_fragments(fragments)
        torch.testing.assert_close(
            first, load_encoder(encoder_folder(kind)).embed_fragments(fragments), atol=1e-6, rtol=0
        )
        again = CachedEncoder(encoder, tmp_path / "cache", max_bytes=2**20)
        assert torch.equal(again.embed_fragments(list(reversed(fragments))), first.flip(0))
        assert asked == [len(fragments)]
        assert cached.embed_fragments([]).shape == (0, first.shape[1])
    texts = again.embed_texts(["x", "y"])
    assert torch.equal(
        CachedEncoder(encoder, tmp_path / "cache", max_bytes=2**20).embed_texts(["y", "x"]),
        texts.flip(0),
    )


def test_fragments_keep_the_folder_within_its_bound(
    encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    file_bytes = 32 + 4 * 24
    cached = CachedEncoder(
        load_encoder(encoder_folder("bert")), tmp_path, max_bytes=20 * file_bytes
    )
    for number in range(60):
        cached.embed_fragments([[f"{number}", "x"]])
        assert sum(path.stat().st_size for path in tmp_path.glob("??/*")) <= 20 * file_bytes
    assert len(list(tmp_path.glob("??/*"))) >= 10


def test_no_two_lists_of_parts_share_an_entry(pictures: list[Path], tmp_path: Path) -> None:
    cached = CachedEncoder(Plane(), tmp_path, max_bytes=2**20)  # type: ignore[arg-type]
    lists = [
        ["a", "b"],
        ["ab"],
        ["b", "a"],
        ["a"],
        [pictures[0]],
        ["a", pictures[0]],
        [pictures[0], "a"],
        ["a", "b", ""],
    ]
    assert len({cached._content(parts) for parts in lists}) == len(lists)


def test_parts_of_an_example_stand_in_the_order_of_the_dialogue() -> None:
    chat = Dialogue(
        "d",
        (
            Utterance("a", ("first", Image("0.png"), Image("1.png"))),
            Utterance("b", (Image("2.png"),)),
            Utterance("a", (" ",)),
            Utterance("b", ("last",)),
        ),
    )
    example = Example(chat, "q", image_root=Path("root"))
    assert example.parts(Fragment((3, 2, 0, 99), (2, 0, 7))) == [
        "first",
        Path("root/0.png"),
        Path("root/2.png"),
        "last",
    ]
    assert example.parts(Fragment((), (1,))) == [Path("root/1.png")]
    assert example.parts(Fragment()) == []
