"""Lines and queries of one's own data as the background: by language, as many of each, of a seed."""

from __future__ import annotations

import pytest
import torch
from reader_builds import LetterEncoder

from ffr.dialogue import Dialogue, Example
from ffr.embedding.prefixes import Prefixes
from ffr.errors import DataError
from ffr.training.common.background import background_of, chosen_texts


def talks(num: int, word: str) -> list[Example]:
    return [
        Example(Dialogue.of([("a", f"{word} {n} a"), ("b", f"{word} {n} b")]), f"{word} {n}?")
        for n in range(num)
    ]


def test_two_languages_have_a_group_each_of_one_size() -> None:
    groups = chosen_texts([*talks(250, "bus"), *talks(210, "公交车")], seed=0)
    assert [len(part) for group in groups for part in group] == [420, 210, 420, 210]
    assert all("bus" in text for part in groups[0] for text in part)
    assert all("公交车" in text for part in groups[1] for text in part)


def test_a_language_of_few_queries_has_no_group_of_its_own() -> None:
    groups = chosen_texts([*talks(250, "bus"), *talks(150, "公交车")], seed=0)
    assert [len(part) for group in groups for part in group] == [800, 400]


def test_what_is_drawn_is_of_the_seed_and_bounded() -> None:
    examples = talks(2_000, "bus")
    one, again, other = (chosen_texts(examples, seed) for seed in (0, 0, 1))
    assert one == again != other
    assert [len(part) for part in one[0]] == [3_000, 500]
    assert len(set(one[0][0])) == 3_000


def test_vectors_have_the_prefixes_of_their_encoder() -> None:
    encoder = LetterEncoder()
    found = background_of([(["x", "y"], ["q", "r"])], encoder, Prefixes("p ", "? "))
    assert encoder.seen == ["p x", "p y", "? q", "? r"]
    assert found.lines.shape == found.queries.shape == (1, 2, 32)
    assert torch.allclose(found.lines.norm(dim=-1), torch.ones(1, 2))


def test_one_line_is_no_background() -> None:
    with pytest.raises(DataError, match="fewer than two different lines or queries"):
        chosen_texts(talks(1, "bus"), seed=0)
