"""From a name to what answers: each kind found, opened and fitted as the settings say, or refused in a sentence."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ffr.data.judgement import ModelRules
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.embedding import CachedEncoder
from ffr.errors import UsageError
from ffr.progress import Progress
from ffr.retrieval import fitting, opening
from ffr.retrieval.api import ApiRetriever
from ffr.retrieval.embedding import EmbeddingRetriever, FragmentScorer, Selection
from ffr.retrieval.fitting import AskedData
from ffr.retrieval.lexical import BaselineRetriever
from ffr.retrieval.opening import (
    ModelChoice,
    OpenEmbedding,
    OpenRetriever,
    choose_model,
    open_encoder_of,
    open_model,
    rules_of,
    usable_device,
    vlm_retriever,
)
from ffr.retrieval.rules import EncoderRules, ServerRules
from ffr.retrieval.windows import WindowedRetriever
from ffr.runs import ModelSource, RunRecord
from ffr.settings import AnswerConfig

API = "api:http://localhost:8000/v1#org/m"


class Angles:
    """A text is the direction of the angle that it holds."""

    name, fingerprint = "angles", "a" * 64

    def __init__(self, takes_images: bool) -> None:
        self.takes_images = takes_images

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        rows = [[math.cos(math.radians(float(t))), math.sin(math.radians(float(t)))] for t in texts]
        return torch.tensor(rows).reshape(-1, 2)

    def embed_images(self, images: Sequence[Any]) -> torch.Tensor:
        return torch.zeros(len(images), 2)


def embedding(takes_images: bool = False) -> OpenEmbedding:
    encoder: Any = Angles(takes_images)
    return OpenEmbedding(FragmentScorer(encoder, 0), name="mine")


def queries(*angles: str) -> list[Example]:
    """A query on three lines for each angle; the first line is what is meant."""
    return [
        Example(
            Dialogue(f"d{angle}", tuple(Utterance("a", (text,)) for text in (angle, "60", "90"))),
            "0",
            Fragment((0,)),
        )
        for angle in angles
    ]


@contextlib.contextmanager
def no_bar(_: int) -> Iterator[Progress | None]:
    yield None


# -- what is meant ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "kind", "name", "takes_images"),
    [
        (API, "api", "api:org/m", True),
        ("embedding:tiny-clip", "embedding", "embedding:tiny-clip", None),
        ("baseline:overlap", "baseline", "baseline:overlap", False),
        ("baseline:bm25+e5", "fusion", "baseline:bm25+e5", False),
        ("lines@3", "lines", "lines@3", False),
        ("lines+e5@3", "encoded-lines", "lines+e5@3", False),
        ("tiny", "vlm", "tiny", True),
    ],
)
def test_names_of_each_kind(spec: str, kind: str, name: str, takes_images: bool | None) -> None:
    choice = choose_model(spec)
    assert (choice.kind, choice.spec, choice.name) == (kind, spec, name)
    assert choice.takes_images is takes_images
    assert (choice.source is not None) == (kind == "vlm")


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("embedding:", "names no encoder; write embedding:ENCODER"),
        ("baseline:bm25+", "names no encoder; write baseline:bm25\\+ENCODER, as for --encoder"),
        ("lines+", "names no encoder; write lines\\+ENCODER, as for --encoder"),
        ("baseline:all", "no baseline 'all'; there are everything, nothing, random-third, overlap"),
        ("api:localhost", "an endpoint is written api:URL#MODEL"),
        ("./nowhere", "no such model folder or run"),
    ],
)
def test_names_of_nothing(spec: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        choose_model(spec)


def test_no_name_is_the_newest_finished_run_else_tiny(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    choice = choose_model(None)
    assert (choice.spec, choice.name) == ("tiny", "tiny")
    assert choice.label == "tiny (no finished run under ./runs)"
    run = tmp_path / "runs" / "sft-tiny-001"
    (run / "merged").mkdir(parents=True)
    (run / "merged" / "config.json").write_text("{}", encoding="utf-8")
    record = RunRecord("sft", "finished", "2026-01-01", 0, "tiny", "sample", finished_at="2026")
    record.save(run)
    choice = choose_model(None)
    assert choice.label == f"the newest finished run {Path('runs', 'sft-tiny-001')}"
    assert choice.source is not None
    assert Path(choice.source.location).resolve() == run / "merged"


# -- what is opened -----------------------------------------------------------------------------------------------------------


def test_a_baseline_answers_by_itself_whole_or_in_windows() -> None:
    opened = open_model(
        choose_model("baseline:random-third"), AnswerConfig(), name="ignored", seed=7
    )
    assert not opened.takes_images
    assert opened.encoder is None
    asked = AskedData(queries("0"), "d", None)
    plain = opened.retriever(asked, AnswerConfig(), say=print, progress=no_bar)
    assert isinstance(plain, BaselineRetriever)
    assert plain.identity == {"kind": "baseline", "name": "random-third", "seed": 7}
    cut = opened.retriever(asked, AnswerConfig(window=5, overlap=2), say=print, progress=no_bar)
    assert isinstance(cut, WindowedRetriever)
    assert cut.identity == {**plain.identity, "window": 5, "overlap": 2}


def test_a_server_is_asked_as_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AnswerConfig(
        api_key_env="MY_KEY", concurrency=3, requests_per_minute=30, timeout=9, max_retries=2,
        price_in=1.5, price_out=2.5, max_new_tokens=77, logprobs=True, template="en",
        query_position="last",
    )  # fmt: skip
    given: dict[str, Any] = {}

    def made(spec: str, **options: Any) -> object:
        given.update(options, spec=spec)
        return object()

    monkeypatch.setattr(opening, "ApiRetriever", made)
    for value in (None, "", "  "):
        monkeypatch.delenv("MY_KEY", raising=False)
        if value is not None:
            monkeypatch.setenv("MY_KEY", value)
        with pytest.raises(UsageError, match="--api-key-env MY_KEY: no such variable is set"):
            open_model(choose_model(API), settings, name="m")
    monkeypatch.setenv("MY_KEY", "secret")
    assert open_model(choose_model(API), settings, name="shown").takes_images
    limits, prices = given.pop("limits"), given.pop("prices")
    assert (limits.concurrency, limits.requests_per_minute) == (3, 30)
    assert (limits.timeout_s, limits.max_retries) == (9, 2)
    assert (prices.per_million_in, prices.per_million_out) == (1.5, 2.5)
    assert given == {
        "spec": API, "key_variable": "MY_KEY", "template": "en", "query_position": "last",
        "max_new_tokens": 77, "with_logprobs": True, "label": "shown",
    }  # fmt: skip


def test_a_server_has_no_encoder_of_its_own() -> None:
    opened = open_model(choose_model(API), AnswerConfig(), name="m")
    assert opened.encoder is None
    retriever = opened.retriever(
        AskedData(queries("0"), "d", None), AnswerConfig(), say=print, progress=no_bar
    )
    assert isinstance(retriever, ApiRetriever)


@pytest.mark.parametrize(
    ("dtype", "device", "expected"),
    [("auto", "cpu", "float32"), ("auto", "auto", None), ("bfloat16", "cpu", "bfloat16")],
)
def test_weights_on_a_cpu_are_float32_unless_it_is_asked(
    monkeypatch: pytest.MonkeyPatch, dtype: str, device: str, expected: str | None
) -> None:
    from types import SimpleNamespace

    from ffr.models import loading

    loaded: dict[str, Any] = {}

    def load(location: str, **options: Any) -> Any:
        loaded.update(options, location=location)
        return SimpleNamespace(
            tower=SimpleNamespace(cache=None), prompt_settings={}, max_context=None
        )

    monkeypatch.setattr(loading, "load_vlm", load)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    retriever = vlm_retriever(
        ModelSource("/where", "label"), device=device, dtype=dtype, trust_remote_code=True, name="n"
    )
    assert loaded == {
        "location": "/where", "dtype": expected or "float32", "device": "cpu", "trust_remote_code": True,
    }  # fmt: skip
    assert retriever.vlm.name == "label"
    assert retriever.vlm.tower.cache is not None
    assert retriever.name == "n"


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_device("cpu") == "cpu"
    for is_there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=is_there: found)
        assert usable_device("auto") == device
    with pytest.raises(UsageError, match=r"^--device nonsense cannot be used here \("):
        usable_device("nonsense")


def test_an_encoder_has_a_cache_where_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, object]] = []

    def found(name: str, *, device: str, policy: object) -> object:
        asked.append((name, device, policy))
        return Angles(takes_images=False)

    monkeypatch.setattr(opening, "open_encoder", found)
    assert isinstance(open_encoder_of("e", AnswerConfig()), Angles)
    policy: Any = object()
    settings = AnswerConfig(encoder_cache=str(tmp_path / "cache"), device="cpu")
    assert isinstance(open_encoder_of("e", settings, policy), CachedEncoder)
    assert asked == [("e", "auto", None), ("e", "cpu", policy)]


# -- what is similar enough ---------------------------------------------------------------------------------------------------


def selected(
    opened: OpenEmbedding, settings: AnswerConfig, **asked: Any
) -> tuple[Selection, list[str]]:
    said: list[str] = []
    data = AskedData(**{"examples": queries("5"), "dataset": "d.jsonl", "split": None, **asked})
    retriever = opened.retriever(data, settings, say=said.append, progress=no_bar)
    assert isinstance(retriever, EmbeddingRetriever)
    assert retriever.name == "mine"
    return retriever._selection, said


def test_a_threshold_that_is_given_is_taken() -> None:
    given = AnswerConfig(threshold=0.25)
    assert selected(embedding(False), given) == (Selection("threshold", 0.25, None), [])
    # pictures have scores of their own where the encoder takes them
    assert selected(embedding(True), given)[0] == Selection("threshold", 0.25, 0.25)
    both = AnswerConfig(threshold=0.25, image_threshold=0.5)
    assert selected(embedding(True), both)[0] == Selection("threshold", 0.25, 0.5)
    with pytest.raises(UsageError, match="--image-threshold has no meaning beside an encoder of"):
        selected(embedding(False), both)
    assert selected(embedding(True), AnswerConfig(threshold=0))[0].utterance == 0


def test_nothing_to_fit_on_is_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"and d\.jsonl is all there is; name some with --fit-d"):
        selected(embedding(), AnswerConfig())
    with pytest.raises(UsageError, match="the set sample has no part nope; name data with"):
        selected(embedding(), AnswerConfig(fit_split="nope"), dataset="sample", split="val")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the loader of data was asked; it gives four queries."""
    given: dict[str, Any] = {}

    def load(dataset: str, **options: Any) -> list[Example]:
        given.update(options, dataset=dataset)
        return queries("1", "2", "3", "4")

    monkeypatch.setattr(fitting, "load_dataset", load)
    return given


def test_it_is_fitted_on_the_data_that_is_named(
    loaded: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path))
    settings = AnswerConfig(fit_dataset="other", fit_split="train", fit_limit=2)
    found, said = selected(embedding(), settings, image_root="/pictures", skip_bad=True)
    assert said == ["Fitting threshold on other (train), 2 queries"]
    assert found.fit is not None
    assert (found.fit.dataset, found.fit.split, found.fit.num_queries) == ("other", "train", 2)
    assert math.cos(math.radians(60)) < found.utterance < math.cos(math.radians(2))
    assert loaded.pop("echo") is not None
    # the data that is asked has a folder of pictures of its own
    assert loaded == {
        "dataset": "other", "split": "train", "image_root": None, "skip_bad": True,
        "require_images": False, "rules": None,
    }  # fmt: skip


def test_it_is_fitted_on_another_part_of_the_same_set(
    loaded: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path))
    # an encoder of pictures, and no picture to fit on
    lines = (Utterance("a", ("5",)), Utterance("a", (Image("a.png"),)))
    asked = {
        "dataset": "sample", "split": "val", "image_root": "/pictures",
        "examples": [Example(Dialogue("d", lines), "0", Fragment((0,)))],
    }  # fmt: skip
    with pytest.raises(UsageError, match="what is evaluated has pictures"):
        selected(embedding(True), AnswerConfig(), **asked)
    assert (loaded["dataset"], loaded["image_root"]) == ("sample", "/pictures")
    assert loaded["require_images"] is True
    assert isinstance(loaded["rules"], EncoderRules)


def test_what_is_asked_is_not_fitted_on(loaded: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="1 of the 4 queries to fit on are evaluated too"):
        selected(embedding(), AnswerConfig(fit_dataset="other"), examples=queries("3"))


# -- what the data must not hold ----------------------------------------------------------------------------------------------


def test_rules_follow_the_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []
    of_a_vlm: Any = object()

    def rules(location: str, *, trust_remote_code: bool) -> ModelRules:
        asked.append((location, trust_remote_code))
        return of_a_vlm  # type: ignore[no-any-return]

    monkeypatch.setattr(opening, "vlm_rules", rules)
    choice = ModelChoice("vlm", "m", "m", ModelSource("/m", "m"))
    assert rules_of(choice, None, trust_remote_code=True) is of_a_vlm
    assert asked == [("/m", True)]
    of_texts = ModelChoice("embedding", "embedding:e", "e")
    assert isinstance(rules_of(of_texts, embedding(True)), EncoderRules)
    assert rules_of(of_texts, embedding(False)) is None
    assert rules_of(of_texts, None) is None
    server = choose_model(API)
    assert isinstance(rules_of(server, None), ServerRules)
    assert rules_of(server, None, sends_outside_pictures=True) is None
    baseline: Any = BaselineRetriever("nothing")
    assert (
        rules_of(choose_model("baseline:nothing"), OpenRetriever(baseline, takes_images=False))
        is None
    )
