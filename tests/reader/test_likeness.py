"""The numbers that the network sees, against plain loops."""

from __future__ import annotations

import dataclasses
import math
import statistics

import pytest
import torch
from reader_builds import WIDTH, LetterEncoder
from torch.nn import functional

from ffr.dialogue import Dialogue
from ffr.reader.likeness import NUM_FEATURES, NUM_SUMMARIES, Background, likenesses
from ffr.reader.units import Units, units_of


@pytest.fixture
def units(chat: Dialogue, encoder: LetterEncoder) -> Units:
    return units_of(chat, encoder, picture_words=["a photo of soup", "", "salt"])


@pytest.fixture
def queries(encoder: LetterEncoder) -> torch.Tensor:
    return encoder.embed_texts(["soup", "the train", "zzz"])


def test_standing_beside_strangers_by_hand(
    units: Units, queries: torch.Tensor, background: Background
) -> None:
    seen = likenesses(units, queries, background)
    group = background.group_of(units.vectors)
    for q, unit in ((0, 0), (1, 6), (2, 4)):
        raw = float(queries[q] @ units.vectors[unit])
        of_dialogue = [float(queries[q] @ units.vectors[n]) for n in (0, 1, 2, 4, 6)]
        of_lines = [float(queries[q] @ line) for line in background.lines[group]]
        of_queries = [float(units.vectors[unit] @ other) for other in background.queries[group]]
        z = (raw - statistics.mean(of_dialogue)) / (statistics.pstdev(of_dialogue) + 1e-4)
        beside_lines = (raw - statistics.mean(of_lines)) / (statistics.stdev(of_lines) + 1e-4) / 2
        beside_queries = (
            (raw - statistics.mean(of_queries)) / (statistics.stdev(of_queries) + 1e-4) / 2
        )
        row = seen.features[q, unit]
        assert row[0].item() == pytest.approx(z, abs=1e-3)
        assert row[13].item() == pytest.approx(beside_lines, abs=1e-3)
        assert row[14].item() == pytest.approx(beside_queries, abs=1e-3)
        assert row[8].item() == pytest.approx((raw - max(of_dialogue)) * 10, abs=1e-3)


def test_ranks_go_from_lowest_to_highest_among_units_with_words(
    units: Units, queries: torch.Tensor, background: Background
) -> None:
    ranks = likenesses(units, queries, background).features[:, :, 12]
    with_words = ranks[:, units.has_words].sort(1).values
    assert torch.allclose(with_words, torch.tensor([-0.5, -0.25, 0.0, 0.25, 0.5]).expand(3, 5))
    assert not ranks[:, ~units.has_words].any()


def test_units_without_words_change_nothing_but_places(
    units: Units, queries: torch.Tensor, background: Background
) -> None:
    whole = likenesses(units, queries, background)
    kept = {
        field.name: getattr(units, field.name)[units.has_words]
        for field in dataclasses.fields(units)[:-1]
    }
    alone = likenesses(Units(**kept, encoder=units.encoder), queries, background)
    own = [0, 1, 2, 8, 9, 10, 11, 12, 13, 14, 15]
    assert torch.allclose(
        whole.features[:, units.has_words][..., own], alone.features[..., own], atol=1e-4
    )
    words = units.has_words
    assert torch.allclose(whole.between[words][:, words], alone.between, atol=1e-5)


def test_a_query_is_seen_the_same_beside_others(
    units: Units, queries: torch.Tensor, background: Background
) -> None:
    # of many queries at once strangers are sorted, of few they are counted
    together = likenesses(units, queries.repeat(5, 1), background)
    assert torch.equal(together.features[:3], together.features[3:6])
    alone = likenesses(units, queries[1:2], background)
    assert torch.allclose(together.features[1:2], alone.features, atol=1e-5)
    assert torch.allclose(together.summaries[1:2], alone.summaries, atol=1e-4)


def test_a_dialogue_without_any_words_gives_finite_numbers(
    encoder: LetterEncoder, queries: torch.Tensor, background: Background
) -> None:
    seen = likenesses(units_of(Dialogue.of([("a", "")]), encoder), queries, background)
    assert seen.features.shape == (3, 1, NUM_FEATURES)
    assert seen.summaries.shape == (3, NUM_SUMMARIES)
    assert bool(seen.features.isfinite().all() and seen.summaries.isfinite().all())


def test_the_group_is_that_of_the_dialogues_language(background: Background) -> None:
    for group in (0, 1):
        assert background.group_of(background.lines[group]) == group


@pytest.mark.parametrize(
    ("lines", "queries"),
    [((2, 40, 8), (3, 40, 8)), ((2, 40, 8), (2, 40, 9)), ((2, 1, 8), (2, 4, 8)), ((4, 8), (4, 8))],
)
def test_a_background_that_does_not_fit_is_refused(
    lines: tuple[int, ...], queries: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="does not fit together"):
        Background(torch.ones(lines), torch.ones(queries))


def test_other_widths_are_refused(units: Units, background: Background) -> None:
    with pytest.raises(ValueError, match=rf"give \(queries, {WIDTH}\)"):
        likenesses(units, torch.ones(2, WIDTH + 1), background)
    with pytest.raises(ValueError, match="NaN"):
        likenesses(units, torch.full((2, WIDTH), torch.nan), background)
    narrow = functional.normalize(torch.ones(1, 4, 8), dim=-1)
    with pytest.raises(ValueError, match="background is 8 wide"):
        likenesses(units, torch.ones(1, WIDTH), Background(narrow, narrow))


def test_a_query_stands_out_beside_strangers(encoder: LetterEncoder) -> None:
    """The 12th and 13th summary: how far the best unit leads, beside how far it does for strangers."""
    vectors = torch.nn.functional.normalize(
        torch.randn(30, WIDTH, generator=torch.manual_seed(4)), dim=-1
    )
    chat = Dialogue.of([("a", text) for text in ("one", "two", "three", "four")])
    units = dataclasses.replace(units_of(chat, encoder), vectors=vectors[:4])
    strangers = vectors[4:]
    queries = torch.stack([vectors[1], strangers[3]])
    found = likenesses(units, queries, Background(vectors[None], strangers[None])).summaries

    def lead(query: torch.Tensor) -> float:
        cosines = vectors[:4] @ query
        return float(cosines.max() - cosines.mean())

    usual = torch.tensor([lead(stranger) for stranger in strangers])
    for place, query in enumerate(queries):
        expected = (lead(query) - usual.mean()) / (usual.std() + 1e-4) / 3
        assert float(found[place, 11]) == pytest.approx(float(expected), abs=1e-4)
    assert found[0, 11] > 1 > found[1, 11]
    assert found[:, 13].tolist() == pytest.approx([math.log(5) / 4] * 2)


def test_a_query_across_dialogues_prefers_no_language() -> None:
    generator = torch.manual_seed(3)
    own = torch.eye(16)[:2]
    topics = functional.normalize(torch.randn(40, 16, generator=generator), dim=-1)
    # each topic said in either language, and asked for in either
    lines = functional.normalize(topics + 2 * own[:, None], dim=-1)
    queries = functional.normalize(topics.flip(0) + own[:, None], dim=-1)
    background = Background(lines, queries)
    for language in (0, 1):
        asked = background.across_dialogues(queries[language])
        assert torch.allclose(asked.norm(dim=-1), torch.ones(40), atol=1e-5)
        # on the whole lines of neither language lie closer; as the queries stood, their own did
        means = (asked @ lines.mean(1).T).mean(0)
        before = (queries[language] @ lines.mean(1).T).mean(0)
        assert abs(float(means[0] - means[1])) < 1e-5
        assert float(before[language] - before[1 - language]) > 0.2


def test_usual_queries_are_those_of_strangers_as_they_are_held_against_dialogues() -> None:
    generator = torch.manual_seed(5)
    lines = functional.normalize(torch.randn(2, 3, 8, generator=generator), dim=-1)
    queries = functional.normalize(torch.randn(2, 300, 8, generator=generator), dim=-1)
    background = Background(lines, queries)
    usual = background.usual_queries
    assert usual.shape == (500, 8)
    assert torch.equal(usual, background.across_dialogues(queries[:, :250].flatten(0, 1)))
    few = Background(lines, queries[:, :2])
    assert few.usual_queries.shape == (4, 8)


def test_one_language_has_no_other_to_be_told_from() -> None:
    vectors = functional.normalize(torch.randn(6, 4, generator=torch.manual_seed(0)), dim=-1)
    background = Background(vectors[None], vectors[None])
    asked = background.across_dialogues(vectors)
    assert torch.allclose(asked, functional.normalize(vectors - vectors.mean(0) / 2, dim=-1))
    assert background.across_dialogues(vectors[:0]).shape == (0, 4)


@pytest.mark.parametrize("rows", [torch.ones(2, 3), torch.full((1, 4), torch.nan)])
def test_what_is_no_query_is_refused_across_dialogues(rows: torch.Tensor) -> None:
    vectors = torch.eye(4)[None]
    with pytest.raises(ValueError, match="query vectors"):
        Background(vectors, vectors).across_dialogues(rows)
