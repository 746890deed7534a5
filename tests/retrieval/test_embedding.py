"""The embedding retriever: scores and choices by hand, fitting against trying everything, what is kept and what is refused."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import PIL.Image
import pytest
import torch

from ffr.answer import read_answer
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.errors import UsageError
from ffr.evaluation.results import Results
from ffr.evaluation.run import evaluate
from ffr.metrics.functional import fragment_counts, sample_figures_from_counts
from ffr.report.tables import report_lines, selection_line
from ffr.retrieval.embedding import (
    EmbeddingRetriever,
    FragmentScorer,
    _Table,
    check_fit_part,
    fit_selection,
    fitted_selection,
)
from ffr.retrieval.lexical import BaselineRetriever
from ffr.retrieval.selection import Scores, Selection, chosen


class Compass:
    """A text is the mean direction of the angles (degrees) that it holds, a picture the angle in its file's name."""

    name = "compass"
    fingerprint = "c" * 64

    def __init__(self, takes_images: bool = True) -> None:
        self.takes_images = takes_images
        self.asked: list[str] = []

    def _of(self, words: list[list[float]]) -> torch.Tensor:
        rows = [
            torch.tensor(
                [[math.cos(math.radians(angle)), math.sin(math.radians(angle))] for angle in angles]
            ).mean(0)
            for angles in words
        ]
        return (
            torch.nn.functional.normalize(torch.stack(rows), dim=-1) if rows else torch.zeros(0, 2)
        )

    def embed_texts(self, texts):
        self.asked += texts
        return self._of([[float(word) for word in text.split()] for text in texts])

    def embed_images(self, images):
        assert self.takes_images
        return self._of([[float(Path(image).stem)] for image in images])

    def embed_fragments(self, fragments):
        raise AssertionError("not used")


def cosine(degrees: float) -> float:
    return math.cos(math.radians(degrees))


@pytest.fixture
def chat(tmp_path: Path) -> Example:
    for angle in (10, 80):
        PIL.Image.new("RGB", (4, 4)).save(tmp_path / f"{angle}.png")
    lines = (
        Utterance("a", (Image("80.png"),)),
        Utterance("a", ("0",)),
        Utterance("b", ("60", Image("10.png"))),
        Utterance("a", (" ",)),
        Utterance("b", ("90",)),
    )
    return Example(Dialogue("d", lines), "0", Fragment((1,), (1,)), image_root=tmp_path)


# -- scores -------------------------------------------------------------------------------------------------------------------


def test_scores_by_hand(chat: Example) -> None:
    (scores,) = FragmentScorer(Compass()).scores([chat])
    # the first line has no words, so it has the score of the next; the fourth that of the third
    expected = [1, 1, cosine(60), cosine(60), 0]
    torch.testing.assert_close(
        scores.utterances, torch.tensor(expected).double(), atol=1e-6, rtol=0
    )
    assert scores.images is not None
    torch.testing.assert_close(
        scores.images, torch.tensor([cosine(80), cosine(10)]).double(), atol=1e-6, rtol=0
    )
    assert scores.hosts.tolist() == [0, 2]


def test_neighbours_are_joined(chat: Example) -> None:
    encoder = Compass(takes_images=False)
    scorer = FragmentScorer(encoder, num_neighbours=1)
    (scores,) = scorer.scores([chat])
    assert encoder.asked == ["0", "0", "0 60", "0 60", "60 90", "90"]  # the query first
    expected = [1, cosine(30), cosine(30), cosine(75), 0]
    torch.testing.assert_close(
        scores.utterances, torch.tensor(expected).double(), atol=1e-6, rtol=0
    )
    assert scores.images is None


def test_neighbours_by_default() -> None:
    assert FragmentScorer(Compass(takes_images=False)).num_neighbours == 2
    assert FragmentScorer(Compass()).num_neighbours == 0
    assert FragmentScorer(Compass(takes_images=False), 0).num_neighbours == 0


def test_a_dialogue_without_words_and_one_without_lines(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "30.png")
    mute = Example(
        Dialogue("m", (Utterance("a", (Image("30.png"),)), Utterance("b", ()))),
        "0",
        image_root=tmp_path,
    )
    empty = Example(Dialogue("e", ()), "0")
    first, second = FragmentScorer(Compass()).scores([mute, empty])
    assert first.utterances.tolist() == [-1, -1]
    assert first.images is not None
    assert first.images.tolist() == [pytest.approx(cosine(30))]
    assert second.utterances.shape == (0,)
    assert Selection("threshold", -1.01, -1.01).choose(second) == Fragment()


def test_queries_on_one_dialogue_embed_it_once(chat: Example) -> None:
    encoder = Compass()
    scorer = FragmentScorer(encoder)
    scorer.scores([chat, Example(chat.dialogue, "45", image_root=chat.image_root)])
    scorer.scores([chat])
    assert encoder.asked == ["0", "45", "0", "60", "90", "0"]


# -- choice -------------------------------------------------------------------------------------------------------------------


def test_choices_by_hand(chat: Example) -> None:
    (scores,) = FragmentScorer(Compass()).scores([chat])
    assert Selection("threshold", 0.4, 0.9).choose(scores) == Fragment((0, 1, 2, 3), (1,))
    assert Selection("threshold", 1.01, 0.1).choose(scores) == Fragment((), (0, 1))
    # half of five lines is 2.5, which is three; half of two pictures is one
    assert Selection("top-share", 0.5, 0.5).choose(scores) == Fragment((0, 1, 2), (1,))
    assert Selection("top-share", 0, 1).choose(scores) == Fragment((), (0, 1))
    followers = Scores(scores.utterances, None, scores.hosts)
    assert Selection("threshold", 0.9, None).choose(followers) == Fragment((0, 1), (0,))


def test_padding_is_never_chosen() -> None:
    table = torch.tensor([[0.5, -math.inf], [-0.9, 0.1]]).double()
    assert chosen("threshold", -1.01, table).tolist() == [[True, False], [True, True]]
    assert chosen("top-share", 1.0, table).tolist() == [[True, False], [True, True]]


# -- fitting ------------------------------------------------------------------------------------------------------------------


def many(tmp_path: Path, num: int = 12) -> list[Example]:
    """Dialogues of other lengths whose lines lie at angles that go with the truth in part."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for number in range(num):
        size = 3 + number % 5
        angles = (torch.rand(size, generator=draw) * 180).round(decimals=3).tolist()
        pictures = sorted(
            {round(float(angle)) for angle in torch.rand(number % 3, generator=draw) * 180}
        )
        for picture in pictures:
            PIL.Image.new("RGB", (4, 4)).save(tmp_path / f"{picture}.png")
        lines = [Utterance("a", (f"{angle:.3f}",)) for angle in angles]
        lines += [
            Utterance("b", (f"{angles[0]:.3f}", Image(f"{picture}.png"))) for picture in pictures
        ]
        near = [index for index, angle in enumerate(angles) if angle < 70 + 20 * (number % 3)]
        truth = Fragment(
            tuple(near) if number != 4 else (), tuple(i for i, p in enumerate(pictures) if p < 100)
        )
        found.append(Example(Dialogue(f"d{number}", tuple(lines)), "0", truth, image_root=tmp_path))
    return found


def mean_f1(examples: list[Example], fragments: list[Fragment]) -> torch.Tensor:
    """Mean F1 of utterances and of images, by the metrics."""
    sizes = [
        (len(example.dialogue.utterances), len(example.dialogue.images)) for example in examples
    ]
    counts = fragment_counts(
        fragments, [example.fragment for example in examples], *zip(*sizes, strict=True)
    )
    return sample_figures_from_counts(counts)[..., 2].mean(0)


@pytest.mark.parametrize("takes_images", [True, False])
@pytest.mark.parametrize("rule", ["threshold", "top-share"])
def test_no_number_does_better_than_the_fitted_one(
    rule: str, takes_images: bool, tmp_path: Path
) -> None:
    examples = many(tmp_path)
    scorer = FragmentScorer(Compass(takes_images), 0)
    found = fit_selection(scorer, examples, rule, dataset="d")
    scores = scorer.scores(examples)
    assert found.fit is not None
    assert (found.image is None) == (not takes_images)
    reached = mean_f1(examples, [found.choose(row) for row in scores])
    assert reached.tolist() == [
        pytest.approx(found.fit.utterance_f1),
        pytest.approx(found.fit.image_f1),
    ]
    assert 0.3 < reached.mean() < 1
    grid = (
        [step / 100 for step in range(101)]
        if rule == "top-share"
        else [step / 500 - 1 for step in range(1001)]
    )
    tried = [mean_f1(examples, [Selection(rule, number, number if takes_images else None).choose(row) for row in scores]) for number in grid[:: 1 if rule == "top-share" else 5]]  # fmt: skip
    best = (
        torch.stack(tried).amax(0)
        if takes_images
        else max(tried, key=lambda row: float(row.mean()))
    )
    assert reached.mean() >= best.mean() - 1e-9
    if rule == "top-share":
        assert reached.mean() == pytest.approx(float(best.mean()))


def test_a_threshold_lies_midway_between_two_scores() -> None:
    """Lines at 0, 60 and 90 degrees score 1, 0.5 and 0: the best thresholds of these truths."""
    lines = tuple(Utterance("a", (angle,)) for angle in ("0", "60", "90"))
    for truth, number in (((0,), 0.75), ((0, 1), 0.25), ((0, 1, 2), -1.01), ((), 1.01)):
        example = Example(Dialogue("d", lines), "0", Fragment(truth))
        found = fit_selection(FragmentScorer(Compass(), 0), [example], dataset="d")
        assert found.utterance == pytest.approx(number, abs=1e-6)
        assert found.fit is not None
        assert found.fit.utterance_f1 == pytest.approx(1)


def test_a_true_line_that_has_no_score_is_missed() -> None:
    """Of lines 0 and 7 the first is found: precision 1, recall 1/2, F1 2/3; the second query is right."""
    rows = [torch.tensor([0.9, 0.1]).double(), torch.tensor([0.9]).double()]
    table = _Table(rows, [(0, 7, 7), (0,)])
    assert table.mean_f1(table.scores > 0.5) == pytest.approx((2 / 3 + 1) / 2)


def test_many_scores_are_thinned_and_still_cover_the_range(tmp_path: Path) -> None:
    examples = many(tmp_path, 200)
    found = fit_selection(FragmentScorer(Compass(), 0), examples, dataset="d")
    scores = FragmentScorer(Compass(), 0).scores(examples)
    near = [mean_f1(examples, [Selection("threshold", found.utterance + step / 200, 0).choose(row) for row in scores])[0] for step in (-40, -5, 0, 5, 40)]  # fmt: skip
    assert near[2] == max(near)


def test_unknown_truths_are_passed_over(tmp_path: Path) -> None:
    examples = many(tmp_path)
    unknown = Example(Dialogue("u", (Utterance("a", ("3",)),)), "0")
    found = fit_selection(FragmentScorer(Compass(), 0), [*examples, unknown], dataset="d")
    assert found.fit is not None
    assert found.fit.num_queries == len(examples)
    with pytest.raises(UsageError, match="d: no query has a true answer to fit on"):
        fit_selection(FragmentScorer(Compass(), 0), [unknown], dataset="d")


def test_a_fit_is_made_once_and_a_damaged_one_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    examples, folder = many(tmp_path), tmp_path / "fits"
    first = fitted_selection(
        FragmentScorer(Compass(), 0), examples, dataset="d", split="train", folder=folder
    )
    encoder = Compass()
    again = fitted_selection(
        FragmentScorer(encoder, 0), examples, dataset="other name", folder=folder
    )
    assert encoder.asked == []
    assert (again.utterance, again.image) == (first.utterance, first.image)
    assert again.fit is not None
    assert (again.fit.dataset, again.fit.split) == ("other name", None)
    # another rule, other neighbours, other data
    for scorer, rule, given in (
        (FragmentScorer(Compass(), 0), "top-share", examples),
        (FragmentScorer(Compass(), 1), "threshold", examples),
        (FragmentScorer(Compass(), 0), "threshold", examples[:5]),
    ):
        fitted_selection(scorer, given, rule, dataset="d", folder=folder)
        assert scorer.encoder.asked
    assert len(list(folder.iterdir())) == 4
    for content in ("{", "[]", '{"identity": 3}', None, "NaN"):
        for path in folder.iterdir():
            whole = json.loads(path.read_text()) if content is None else None
            if whole is not None:
                whole["selection"]["utterance"] = float("nan")
            path.write_text(content if whole is None else json.dumps(whole))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            healed = fitted_selection(
                FragmentScorer(Compass(), 0), examples, dataset="d", split="train", folder=folder
            )
        assert healed == first
        assert "it is fitted again" in caplog.text
        for rule, span, given in (
            ("top-share", 0, examples),
            ("threshold", 1, examples),
            ("threshold", 0, examples[:5]),
        ):
            fitted_selection(
                FragmentScorer(Compass(), span), given, rule, dataset="d", folder=folder
            )


def test_parts_that_are_not_to_be_fitted_on(tmp_path: Path) -> None:
    examples = many(tmp_path)
    check_fit_part(examples[:6], examples[6:], takes_images=True)
    with pytest.raises(
        UsageError, match="2 of the 8 queries to fit on are evaluated too; name another part"
    ):
        check_fit_part(examples[:6], examples[4:], takes_images=True)
    silent = [example for example in examples[6:] if not example.dialogue.images]
    assert silent
    check_fit_part(examples[:6], silent, takes_images=False)
    check_fit_part(silent[:1], silent[1:], takes_images=True)
    with pytest.raises(
        UsageError, match="what is evaluated has pictures and what is fitted on has none"
    ):
        check_fit_part(examples[:6], silent, takes_images=True)
    for rule in ("threshold", "top-share"):
        # nothing to go by: no picture is chosen
        found = fit_selection(FragmentScorer(Compass(), 0), silent, rule, dataset="d")
        (scores,) = FragmentScorer(Compass(), 0).scores([examples[2]])
        assert scores.images is not None
        assert len(scores.images)
        assert found.choose(scores).image_ids == ()


# -- evaluation ---------------------------------------------------------------------------------------------------------------


def test_an_evaluation_says_what_was_chosen_and_goes_on(tmp_path: Path) -> None:
    examples = many(tmp_path, 80)
    scorer = FragmentScorer(Compass(), 0)
    selection = fit_selection(scorer, examples[:40], dataset="d", split="train")
    retriever = EmbeddingRetriever(scorer, selection, name="embedding:compass")
    results = evaluate(examples[40:], retriever, tmp_path / "one", dataset="d", split="val")
    model = Results.load(tmp_path / "one").model
    assert model["selection"]["utterance"] == selection.utterance
    assert model["selection"]["fit"]["fingerprint"] != results.data["fingerprint"]
    assert (model["fingerprint"], model["kind"]) == (Compass.fingerprint, "embedding")
    line = selection_line(model)
    assert line is not None
    assert (
        f"lines of cosine ≥ {selection.utterance:.4f}, pictures of cosine ≥ {selection.image:.4f}"
        in line
    )
    assert "fitted on d (train), 40 queries" in line
    assert line in report_lines(results)
    # stopped after the first batch and taken up: the same bytes
    batches = retriever.plan(examples[40:])
    assert [len(batch) for batch in batches] == [32, 8]

    class Stopping(EmbeddingRetriever):
        def answer(self, given):
            if len(given) == 8:
                raise KeyboardInterrupt
            return super().answer(given)

    with pytest.raises(KeyboardInterrupt):
        evaluate(
            examples[40:],
            Stopping(scorer, selection, name="embedding:compass"),
            tmp_path / "two",
            dataset="d",
        )
    evaluate(examples[40:], EmbeddingRetriever(FragmentScorer(Compass(), 0), selection, name="embedding:compass"), tmp_path / "two", dataset="d")  # fmt: skip
    one, two = (tmp_path / name / "predictions.jsonl" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    expected = [selection.choose(row) for row in scorer.scores(examples[40:])]
    assert [
        read_answer(json.loads(line)["response"]) for line in one.read_text().splitlines()
    ] == expected
    other = EmbeddingRetriever(scorer, Selection("threshold", 0.5, 0.5), name="embedding:compass")
    with pytest.raises(UsageError, match="differs in model selection"):
        evaluate(examples[40:], other, tmp_path / "one", dataset="d")


def test_what_was_given_is_said() -> None:
    model = {"kind": "embedding", "num_neighbours": 2, "selection": {"rule": "top-share", "utterance": 0.3, "image": None, "fit": None}}  # fmt: skip
    assert selection_line(model) == (
        "Chosen: lines (each with 2 neighbours on either side) in the first 30 %, pictures as their lines; as given"
    )
    assert selection_line(BaselineRetriever("nothing").identity) is None


def test_what_follows_the_truth_is_found_in_other_data(tmp_path: Path) -> None:
    """Angles that follow the truth are found again: F1 well above taking everything."""
    examples = many(tmp_path, 60)
    scorer = FragmentScorer(Compass(), 0)
    selection = fit_selection(scorer, examples[:30], dataset="d")
    answers = [selection.choose(row) for row in scorer.scores(examples[30:])]
    everything = [BaselineRetriever("everything").fragment(example) for example in examples[30:]]
    assert mean_f1(examples[30:], answers)[0] > mean_f1(examples[30:], everything)[0] + 0.1
