"""How a model is asked, and which kind of model has which setting."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from ffr.errors import UsageError
from ffr.runs import is_reader
from ffr.settings.declaration import CONFIG, Settings, declared, setting

ModelKind = Literal[
    "vlm", "api", "reader", "embedding", "baseline", "fusion", "lines", "encoded-lines"
]
"""What answers: a vision-language model here, a server, a reader, an encoder, a trivial baseline,
words and an encoder together, a network for single lines, and that beside an encoder."""

COHERENCE_ENCODER = "coherence-encoder"
"""Stands among the kinds of a setting that the encoder of `ffr eval --coherence` has too."""

_WRITERS = ("vlm", "api")
_CUT = (*_WRITERS, "reader", "baseline")
_FITTED = ("embedding", "lines", "encoded-lines")
_ENCODED = ("reader", "embedding", "fusion", "encoded-lines", COHERENCE_ENCODER)


def kind_of(model: str) -> ModelKind:
    """What kind of model a text names; it need not exist, but a folder is looked into.

    >>> kind_of("baseline:overlap"), kind_of("runs/sft-tiny-001")
    ('baseline', 'vlm')
    >>> kind_of("baseline:bm25+e5"), kind_of("lines@3"), kind_of("lines+e5")
    ('fusion', 'lines', 'encoded-lines')
    """
    if model.partition("@")[0] == "lines":
        return "lines"
    if model.startswith("lines+"):
        return "encoded-lines"
    if model.startswith("baseline:bm25+"):
        return "fusion"
    if is_reader(model):
        return "reader"
    kinds: tuple[ModelKind, ...] = ("api", "embedding", "baseline")
    return next((kind for kind in kinds if model.startswith(f"{kind}:")), "vlm")


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class AnswerConfig(Settings):
    """How a model is asked, in `ffr eval` and in the suites of `ffr bench run`.

    >>> AnswerConfig(window=100).overlap
    0
    """

    constrained: bool = setting(False, "let the model write well-formed answers only", of="vlm")
    batch_tokens: int = setting(16_384, "prompt tokens answered at once", low=1, of="vlm")
    max_new_tokens: int = setting(512, "longest answer, in tokens", low=1, of=_WRITERS)
    device: str = setting(
        "auto",
        "where it runs: auto, cpu, cuda, cuda:1, mps",
        of=("vlm", *_ENCODED),
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto",
        "type of the weights; auto = float32 on a CPU, as in the files on a GPU",
        of="vlm",
    )
    template: Literal["zh", "en"] | None = setting(
        None, "prompt template", unset="the model's, else the file's", of=_WRITERS
    )
    query_position: Literal["first", "last"] | None = setting(
        None,
        "query before or after the dialogue",
        unset="as the model's template has it, else the file's",
        of=_WRITERS,
    )
    logprobs: bool = setting(False, "write the log-probability of every answer token", of=_WRITERS)
    window: int = setting(
        0,
        "cut dialogues of more than N utterances into pieces, and merge the answers; 0 never cuts",
        low=0,
        unit="N",
        of=_CUT,
        of_data=True,
    )
    overlap: int = setting(
        0,
        "utterances that neighbouring pieces share",
        low=0,
        unit="M",
        of=_CUT,
        of_data=True,
    )
    best_windows: int | None = setting(
        None,
        "ask only the N pieces that share most words with the query (BM25)",
        low=1,
        unit="N",
        unset="all of them",
        of=_CUT,
        of_data=True,
    )
    api_key_env: str | None = setting(
        None,
        "environment variable that holds the key",
        unit="NAME",
        unset="OPENAI_API_KEY, where it is set",
        of="api",
    )
    concurrency: int = setting(8, "requests at a time", low=1, high=256, of="api")
    requests_per_minute: float | None = setting(
        None, "requests begun in a minute at most", above=0, unset="no bound", of="api"
    )
    timeout: float = setting(
        300.0, "longest time for one answer, in seconds", above=0, unit="SECONDS", of="api"
    )
    max_retries: int = setting(
        6, "how often a request is repeated after a passing fault", low=0, of="api"
    )
    max_failures: int | None = setting(
        None,
        "stop where more than N queries cannot be answered; they count as wrong",
        low=0,
        unit="N",
        unset="no bound",
        of=(*_WRITERS, "reader", "embedding", "baseline", "fusion", "lines", "encoded-lines"),
    )
    nothing_from: float | None = setting(
        None,
        "answer with nothing where that is at least as probable as this",
        low=0,
        high=1,
        unit="P",
        unset="the reader's own",
        of="reader",
    )
    neighbours: int | None = setting(
        None,
        "lines on either side that an utterance is joined with",
        low=0,
        unit="N",
        unset="2 for encoders of texts alone, else 0",
        of="embedding",
    )
    select: Literal["threshold", "top-share", "z-score", "stretch"] = setting(
        "threshold",
        "choose what is as similar as this, this share of a dialogue, what lies this far above its "
        "mean, or the stretch that does; the number is fitted",
        of="embedding",
        of_data=True,
        unless="threshold",
    )
    threshold: float | None = setting(
        None,
        "this similarity, not a fitted one",
        low=-1,
        high=1,
        unit="X",
        unset="fitted",
        of="embedding",
        of_data=True,
    )
    image_threshold: float | None = setting(
        None,
        "that of pictures, beside threshold",
        low=-1,
        high=1,
        unit="X",
        unset="as threshold",
        of="embedding",
        of_data=True,
        needs="threshold",
    )
    fit_dataset: str | None = setting(
        None,
        "data to fit the number on",
        unit="NAME|PATH",
        unset="another part of the named set",
        of=_FITTED,
        of_data=True,
        unless="threshold",
    )
    fit_split: str = setting(
        "train", "part of the set to fit on", of=_FITTED, of_data=True, unless="threshold"
    )
    fit_limit: int | None = setting(
        None,
        "fit on the first N queries only",
        low=1,
        unit="N",
        unset="all of them",
        of=_FITTED,
        of_data=True,
        unless="threshold",
    )
    fit_image_root: str | None = setting(
        None,
        "folder of the images to fit on",
        unit="DIR",
        unset="as the data has it",
        of=_FITTED,
        of_data=True,
        unless="threshold",
    )
    encoder_cache: str | None = setting(
        None,
        "folder that keeps the vectors of encoders between runs, 1 GiB at most",
        unit="DIR",
        unset="memory only",
        of=_ENCODED,
    )
    price_in: float = setting(0.0, "price of a million prompt tokens", low=0, of="api")
    price_out: float = setting(0.0, "price of a million answer tokens", low=0, of="api")

    def check(self) -> None:
        super().check()
        if self.overlap >= max(self.window, 1):
            overlap, window = self.called("overlap"), self.called("window")
            raise UsageError(f"{overlap} {self.overlap} is not less than {window} {self.window}")
        if self.best_windows is not None and not self.window:
            best, window = self.called("best_windows"), self.called("window")
            raise UsageError(f"{best} has no meaning without {window}; give both")


def without_effect(kind: ModelKind, settings: type[Settings] = AnswerConfig) -> frozenset[str]:
    """The settings that change nothing of a kind of model.

    >>> sorted(without_effect("vlm") & {"constrained", "timeout", "threshold"})
    ['threshold', 'timeout']
    """
    return frozenset(
        name
        for name, item in declared(settings).items()
        if item.about.of and kind not in item.about.of
    )


def settings_of_data(settings: type[Settings] = AnswerConfig) -> frozenset[str]:
    """The settings that may differ between data sets without loading the model anew."""
    return frozenset(name for name, item in declared(settings).items() if item.about.of_data)
