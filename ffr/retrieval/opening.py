"""From what `--model` names to the retriever that answers.

A name is a folder, a run, a hub id, `reader`, api:URL#MODEL, embedding:ENCODER, lines,
lines+ENCODER, baseline:NAME or baseline:bm25+ENCODER.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from ffr.data.judgement import ModelRules
from ffr.embedding import CachedEncoder, Encoder
from ffr.embedding.tagger import TaggerIfInstalled
from ffr.encoders import open_encoder
from ffr.errors import UsageError
from ffr.progress import Say
from ffr.reader.model import Reader
from ffr.retrieval.api import API_PREFIX, DEFAULT_KEY_VARIABLE, ApiRetriever, split_name
from ffr.retrieval.api_client import Limits
from ffr.retrieval.chat_protocol import Prices
from ffr.retrieval.embedding import (
    EMBEDDING_PREFIX,
    EmbeddingRetriever,
    FragmentScorer,
    fitted_selection,
)
from ffr.retrieval.fitting import AskedData, Bar, data_fitted_on
from ffr.retrieval.fusion import FUSION_PREFIX, FusionRetriever
from ffr.retrieval.interface import Retriever
from ffr.retrieval.lexical import (
    BASELINE_PREFIX,
    BM25_LINES,
    BaselineRetriever,
    baseline_of,
    split_lines,
)
from ffr.retrieval.lines import ENCODED_LINES_PREFIX, LINES, LinesRetriever, fit_lines
from ffr.retrieval.reader import ReaderRetriever
from ffr.retrieval.rules import EncoderRules, ServerRules, vlm_rules
from ffr.retrieval.selection import Selection
from ffr.retrieval.vlm import VlmRetriever
from ffr.retrieval.windows import WindowedRetriever
from ffr.runs import RUNS_FOLDER, ModelSource, newest_finished_run, resolve_model
from ffr.settings import AnswerConfig, ModelKind, kind_of, nearest
from ffr.text import one_line

_CACHE_BYTES = 2**30
_DEVICES = ("auto", "cpu", "cuda", "mps")
"""The devices that most mean."""


@dataclass(frozen=True)
class ModelChoice:
    """What a person named as the model, found but not loaded.

    Args:
        kind: What answers.
        spec: What they wrote.
        label: What the first line of an evaluation calls it.
        source: Where the model is; None for what is no vision-language model here.
    """

    kind: ModelKind
    spec: str
    label: str
    source: ModelSource | None = None

    @property
    def takes_images(self) -> bool | None:
        """Whether it looks at pictures; None where that is known once it is loaded."""
        if self.kind in ("embedding", "reader"):
            return None
        return self.kind not in ("baseline", "fusion", "lines", "encoded-lines")

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.label if self.source is None else self.source.label


class OpenModel(Protocol):
    """A model that is loaded, or what else answers, before it is known what it is asked."""

    @property
    def takes_images(self) -> bool:
        """Whether it looks at pictures."""
        ...

    @property
    def encoder(self) -> Encoder | None:
        """What makes vectors of its own; None where it has none."""
        ...

    def retriever(
        self, asked: AskedData, settings: AnswerConfig, *, say: Say, progress: Bar
    ) -> Retriever:
        """What answers on this data.

        Args:
            asked: The data.
            settings: How it is asked there; only what is declared `of_data` may differ from what it
                was opened with.
            say: Gets a line about what is fitted.
            progress: Makes the bar of a fit from its number of queries.
        """
        ...


def rules_of(
    choice: ModelChoice,
    model: OpenModel | None,
    *,
    trust_remote_code: bool = False,
    sends_outside_pictures: bool = False,
) -> ModelRules | None:
    """What the data must not hold for this model; None where nothing is known.

    Args:
        choice: The model.
        model: The same, where it is open already.
        trust_remote_code: Run code that comes with it.
        sends_outside_pictures: Whether a server gets pictures from outside the data's folder too.

    Raises:
        ModelError: where its files cannot be used.
    """
    if choice.kind == "vlm" and choice.source is not None:
        return vlm_rules(choice.source.location, trust_remote_code=trust_remote_code)
    is_encoder = choice.kind == "embedding"
    if is_encoder and model is not None and model.encoder is not None and model.takes_images:
        return EncoderRules(model.encoder)
    return ServerRules() if choice.kind == "api" and not sends_outside_pictures else None


def choose_model(model: str | None) -> ModelChoice:
    """Finds what is meant.

    Args:
        model: What `--model` was given; None = the newest finished run under ./runs, else `tiny`.

    Raises:
        UsageError: where there is no such model.
    """
    if model is None:
        run = newest_finished_run(Path(RUNS_FOLDER))
        if run is None:
            return ModelChoice(
                "vlm", "tiny", "tiny (no finished run under ./runs)", resolve_model("tiny")
            )
        label = f"the newest finished run {run}"
        return ModelChoice(kind_of(str(run)), str(run), label, resolve_model(str(run)))
    kind = kind_of(model)
    if kind == "api":
        return ModelChoice(kind, model, API_PREFIX + split_name(model)[1])
    if kind == "embedding":
        if model == EMBEDDING_PREFIX:
            raise UsageError(
                "--model embedding: names no encoder; write embedding:ENCODER, as for --encoder"
            )
        return ModelChoice(kind, model, model)
    if kind == "fusion":
        if model == FUSION_PREFIX:
            raise UsageError(
                f"--model {model} names no encoder; write {FUSION_PREFIX}ENCODER, as for --encoder"
            )
        return ModelChoice(kind, model, model)
    if kind == "lines":
        if split_lines(model)[0] != LINES:
            raise UsageError(f"no model {one_line(model)!r}; there are {LINES} and {LINES}@N")
        return ModelChoice(kind, model, model)
    if kind == "encoded-lines":
        if not split_lines(model.removeprefix(ENCODED_LINES_PREFIX))[0]:
            raise UsageError(
                f"--model {model} names no encoder; write {ENCODED_LINES_PREFIX}ENCODER, as for --encoder"
            )
        return ModelChoice(kind, model, model)
    if kind == "baseline":
        baseline_of(model.removeprefix(BASELINE_PREFIX))  # refuses a name that is none
        return ModelChoice(kind, model, model)
    return ModelChoice(kind, model, model, resolve_model(model))


def open_model(
    choice: ModelChoice,
    settings: AnswerConfig,
    *,
    name: str,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> OpenModel:
    """Loads the model, or makes ready what else answers.

    Args:
        choice: What `choose_model` found.
        settings: How it is asked; those of other kinds of models change nothing.
        name: What tables call it; a baseline keeps its own name.
        seed: Seed of the random baseline, and of what is drawn in fitting.
        trust_remote_code: Run code that comes with the model.

    Raises:
        UsageError: where the device is not here, or the variable of the key is not set.
        ModelError: where the model cannot be loaded.
    """
    if settings.api_key_env is not None and not os.environ.get(settings.api_key_env, "").strip():
        raise UsageError(f"--api-key-env {settings.api_key_env}: no such variable is set")
    if choice.kind == "embedding":
        encoder = open_encoder_of(choice.spec.removeprefix(EMBEDDING_PREFIX), settings)
        return OpenEmbedding(FragmentScorer(encoder, settings.neighbours), name=name)
    if choice.kind == "lines":
        return OpenLines(name=name, num_lines=split_lines(choice.spec)[1], seed=seed)
    if choice.kind == "encoded-lines":
        encoder_name, num_lines = split_lines(choice.spec.removeprefix(ENCODED_LINES_PREFIX))
        encoder = open_encoder_of(encoder_name, settings)
        return OpenLines(name=name, num_lines=num_lines, seed=seed, encoder=encoder)
    if choice.kind == "reader":
        assert choice.source is not None
        asked = reader_retriever(choice.source, settings, name)
        return OpenRetriever(asked, takes_images=asked.takes_images)
    if choice.kind == "api":
        retriever: Retriever = ApiRetriever(
            choice.spec,
            key_variable=settings.api_key_env or DEFAULT_KEY_VARIABLE,
            template=settings.template,
            query_position=settings.query_position,
            max_new_tokens=settings.max_new_tokens,
            with_logprobs=settings.logprobs,
            limits=Limits(
                settings.concurrency,
                settings.requests_per_minute,
                settings.timeout,
                settings.max_retries,
            ),
            prices=Prices(settings.price_in, settings.price_out),
            label=name,
        )
    elif choice.kind == "fusion":
        encoder_name, num_lines = split_lines(choice.spec.removeprefix(FUSION_PREFIX))
        encoder = open_encoder_of(encoder_name, settings)
        retriever = FusionRetriever(encoder, name=name, num_lines=num_lines or BM25_LINES)
    elif choice.source is None:
        retriever = BaselineRetriever(choice.spec.removeprefix(BASELINE_PREFIX), seed=seed)
    else:
        retriever = vlm_retriever(
            choice.source,
            name=name,
            device=settings.device,
            dtype=settings.dtype,
            trust_remote_code=trust_remote_code,
            template=settings.template,
            query_position=settings.query_position,
            is_constrained=settings.constrained,
            max_new_tokens=settings.max_new_tokens,
            batch_tokens=settings.batch_tokens,
            with_logprobs=settings.logprobs,
        )
    return OpenRetriever(retriever, takes_images=choice.takes_images is True)


class OpenRetriever:
    """What answers by itself, whatever the data: an `OpenModel`.

    Args:
        reader: What answers.
        takes_images: Whether it looks at pictures.
    """

    def __init__(self, reader: Retriever, *, takes_images: bool) -> None:
        self._reader = reader
        self.takes_images = takes_images

    @property
    def encoder(self) -> Encoder | None:
        if isinstance(self._reader, ReaderRetriever):
            return self._reader.encoder
        if not isinstance(self._reader, VlmRetriever):
            return None
        from ffr.embedding.policy import PolicyEncoder

        return PolicyEncoder(self._reader.vlm)

    def retriever(
        self, asked: AskedData, settings: AnswerConfig, *, say: Say, progress: Bar
    ) -> Retriever:
        if not settings.window:
            return self._reader
        return WindowedRetriever(
            self._reader,
            window=settings.window,
            overlap=settings.overlap,
            num_best=settings.best_windows,
        )


class OpenEmbedding:
    """An encoder that retrieves what is similar enough, fitted on other data: an `OpenModel`.

    Args:
        scorer: The encoder with its way of scoring.
        name: What tables call it.
    """

    def __init__(self, scorer: FragmentScorer, *, name: str) -> None:
        self._scorer = scorer
        self._name = name

    @property
    def takes_images(self) -> bool:
        return self._scorer.encoder.takes_images

    @property
    def encoder(self) -> Encoder:
        return self._scorer.encoder

    def retriever(
        self, asked: AskedData, settings: AnswerConfig, *, say: Say, progress: Bar
    ) -> Retriever:
        return EmbeddingRetriever(
            self._scorer, self._selection(asked, settings, say, progress), name=self._name
        )

    def _selection(
        self, asked: AskedData, settings: AnswerConfig, say: Say, progress: Bar
    ) -> Selection:
        """The rule: as given, or fitted on data that is not asked."""
        if settings.threshold is not None:
            if settings.image_threshold is not None and not self.takes_images:
                beside = "an encoder of texts, with which pictures follow their lines"
                raise UsageError(f"--image-threshold has no meaning beside {beside}")
            image = (
                settings.threshold if settings.image_threshold is None else settings.image_threshold
            )
            return Selection("threshold", settings.threshold, image if self.takes_images else None)
        rules = EncoderRules(self.encoder) if self.takes_images else None
        fit, dataset, split = data_fitted_on(
            asked, settings, settings.select, takes_images=self.takes_images, rules=rules, say=say
        )
        with progress(len(fit)) as advance:
            return fitted_selection(
                self._scorer, fit, settings.select, dataset=dataset, split=split, progress=advance
            )


class OpenLines:
    """A network for single lines, fitted on other data: an `OpenModel`.

    Args:
        name: What tables call it.
        num_lines: Names so many lines; None for those of the highest expected F1.
        seed: Of what is drawn in fitting.
        encoder: Tells the network how alike question and lines are; None for words alone.
    """

    takes_images = False

    def __init__(
        self, *, name: str, num_lines: int | None, seed: int, encoder: Encoder | None = None
    ) -> None:
        self.encoder = encoder
        self._name = name
        self._num_lines = num_lines
        self._seed = seed

    def retriever(
        self, asked: AskedData, settings: AnswerConfig, *, say: Say, progress: Bar
    ) -> Retriever:
        fit, dataset, split = data_fitted_on(
            asked, settings, LINES, takes_images=False, rules=None, say=say, or_else=""
        )
        with progress(len(fit)) as advance:
            networks, record = fit_lines(
                fit,
                dataset=dataset,
                split=split,
                seed=self._seed,
                encoder=self.encoder,
                progress=advance,
            )
        return LinesRetriever(
            networks, record, name=self._name, num_lines=self._num_lines, encoder=self.encoder
        )


def open_encoder_of(name: str, settings: AnswerConfig, policy: Encoder | None = None) -> Encoder:
    """The encoder of a name, with its cache where the settings have one.

    Args:
        name: As `ffr.encoders.open_encoder` takes it.
        settings: Device and cache.
        policy: What `policy` means.

    Raises:
        UsageError: where the device is not here, or the name means nothing.
        ModelError: where it cannot be loaded.
    """
    device = settings.device if settings.device == "auto" else usable_device(settings.device)
    encoder = open_encoder(name, device=device, policy=policy)
    if settings.encoder_cache is None:
        return encoder
    return CachedEncoder(encoder, Path(settings.encoder_cache), max_bytes=_CACHE_BYTES)


def reader_retriever(source: ModelSource, settings: AnswerConfig, name: str) -> ReaderRetriever:
    """Loads a reader and its encoder, and puts a retriever around them.

    Args:
        source: Where the reader is.
        settings: Device and cache of its encoder, and from where on nothing is answered.
        name: What tables call it.

    Raises:
        UsageError: where the device is not here.
        ModelError: where the reader or its encoder cannot be loaded.
    """
    reader = Reader.load(source.location)
    if settings.nothing_from is not None:
        reader.settings = replace(reader.settings, nothing_from=settings.nothing_from)
    reader.freeze()
    encoder = open_encoder_of(reader.settings.encoder_name, settings)
    return ReaderRetriever(reader, encoder, name=name, tagger=TaggerIfInstalled())


def usable_device(device: str) -> str:
    """The device that `--device` means.

    Raises:
        UsageError: where torch cannot use it here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        meant = nearest(device, _DEVICES) if device not in _DEVICES else ""
        # torch lists all that it was ever built for
        reason = meant or f" ({one_line(error)})"
        raise UsageError(f"--device {device} cannot be used here{reason}") from None
    return device


def vlm_retriever(
    source: ModelSource, *, device: str, dtype: str, trust_remote_code: bool, **options: object
) -> VlmRetriever:
    """Loads a vision-language model and puts a retriever around it.

    Args:
        source: Where it is.
        device: `auto`, or a device of torch.
        dtype: `auto`, or a type of its weights.
        trust_remote_code: Run code that comes with the model.
        options: What `VlmRetriever` takes.

    Raises:
        UsageError: where the device is not here.
        ModelError: where the model cannot be loaded.
    """
    from ffr.models.features import ImageFeatureCache
    from ffr.models.loading import load_vlm

    device = usable_device(device)
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    vlm = load_vlm(
        source.location,
        dtype=dtype,  # type: ignore[arg-type]
        device=device,
        trust_remote_code=trust_remote_code,
    )
    vlm.name = source.label
    vlm.tower.cache = ImageFeatureCache(memory_bytes=512 << 20)
    return VlmRetriever(vlm, **options)  # type: ignore[arg-type]
