"""The options of `ffr eval`, one field each, and which have no meaning beside which model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import click
from pydantic.dataclasses import dataclass

from ffr.cli.model_options import Option
from ffr.cli.setting_options import flag_of, setting_options
from ffr.errors import UsageError
from ffr.settings import (
    COHERENCE_ENCODER,
    CONFIG,
    AnswerConfig,
    Declared,
    ModelKind,
    declared,
    kind_of,
    setting,
)

_BESIDE = {
    "vlm": "a vision-language model on this machine",
    "api": "api:, whose model runs elsewhere",
    "reader": "a reader, which reads no prompt and writes no text",
    "embedding": "embedding:, which reads no prompt and writes no text",
    "baseline": "baseline:, which neither reads a prompt nor loads a model",
    "fusion": "baseline:bm25+ENCODER, which reads no prompt and has nothing to fit",
    "lines": "lines, which reads no prompt and asks no encoder",
    "encoded-lines": "lines+ENCODER, which reads no prompt and writes no text",
}
_NOT = {
    frozenset({"api"}): "a model that is no api:URL#MODEL",
    frozenset({"embedding"}): "a model that is no embedding:ENCODER",
    frozenset({"embedding", "lines", "encoded-lines"}): "a model that has nothing to fit",
    frozenset({"embedding", "fusion", "reader", "encoded-lines"}): "a model that asks no encoder",
}
_OF_DATA = {"dataset", "split", "image_root", "skip_bad", "limit"}
_NOT_OF_ARCHIVE = {
    "coherence",
    "image_root",
    "no_baselines",
    "outside_pictures",
    "reading",
    "skip_bad",
    "trust_remote_code",
    "wrong_pictures",
}
_FOR_PREDICTIONS = {
    "predictions",
    "out",
    "seed",
    "no_baselines",
    "slices",
    "reading",
    "as_json",
    "progress",
}
_FOR_SEGMENTATION = (_OF_DATA | {"segmentation", "out", "seed", "as_json"}) - {"limit"}
_FOR_SEGMENTATION_BY_MODEL = {"model", "trust_remote_code", "outside_pictures"}


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class EvalCall(AnswerConfig):
    """What `ffr eval` is called with: how a model is asked, and of what.

    >>> EvalCall(model="api:http://localhost/v1#m").kind
    'api'
    """

    dataset: str = setting("sample", "a named set or a data file", unit="NAME|PATH")
    split: str = setting("val", "part of a named set")
    model: str | None = setting(
        None,
        "a run, a folder, a hub id, `reader`, `tiny`, embedding:ENCODER (what --encoder names), "
        "baseline:NAME (everything, nothing, random-third, overlap, bm25, bm25+ENCODER; bm25@3 takes "
        "three lines), lines or lines+ENCODER (a network for single lines, fitted on --fit-dataset), or "
        "api:URL#MODEL (an OpenAI-compatible server, such as "
        "api:http://localhost:8000/v1#Qwen/Qwen2-VL-2B-Instruct); with --corpus also none, which gives "
        "what was recalled",
        unit="MODEL",
        unset="the newest finished run under ./runs, else tiny",
    )
    predictions: Path | None = setting(
        None,
        "score this prediction file; no model is used. With --dataset it is joined with that data "
        "by dialogue_id and query (docs/eval.md)",
        unit="FILE",
    )
    corpus: str | None = setting(
        None,
        "ask every query of the whole archive of this data's dialogues, and of those of --dataset "
        "where that is named; figures of recall come beside (docs/archive-eval.md)",
        unit="NAME|PATH",
        unset="each query of its own dialogue",
    )
    index: Path | None = setting(
        None,
        "folder that keeps the archive of --corpus between evaluations",
        unit="DIR",
        unset="archive in the output folder",
        needs="corpus",
    )
    ways: str | None = setting(
        None,
        "how dialogues of --corpus are found, some of words, lines, segments, pictures",
        unit="WAYS",
        unset="all of them",
        needs="corpus",
    )
    specific: str = setting(
        "*",
        "kinds of queries (meta query_kind) that mean one dialogue: human_*,goal; of others each "
        "dialogue of --corpus with a query of the same meta concept is right",
        unit="KINDS",
        needs="corpus",
    )
    out: Path | None = setting(None, "output folder", unit="DIR", unset="by model and data")
    limit: int | None = setting(None, "the first N queries only", low=1, unit="N")
    seed: int = setting(0, "seed of random-third and of --wrong-pictures")
    skip_bad: bool = setting(False, "leave bad records out, counted, instead of stopping")
    image_root: Path | None = setting(None, "folder that image paths are relative to", unit="DIR")
    wrong_pictures: bool = setting(
        False, "control: show pictures of other dialogues in place of the right ones"
    )
    coherence: bool = setting(
        False, "also order coherence and likeness to the query, with the vectors of --encoder"
    )
    encoder: str | None = setting(
        None,
        "for --coherence: the folder or hub id of an encoder of the CLIP family, onnx:DIR, "
        "vlm:MODEL (last state), vlm-mean:MODEL or gme:MODEL",
        unit="ENCODER",
        unset="the model's own vectors",
        needs="coherence",
    )
    segmentation: Literal["vectors", "whole", "every-10", "model"] | None = setting(
        None,
        "cut the dialogues into segments and measure that alone: Pk, WindowDiff, boundary F1; "
        "`vectors` as a store does, `model` asks --model (docs/segments.md)",
        unset="queries are answered",
    )
    reading: Literal["published"] | None = setting(
        None,
        "a third block of figures, read as the published evaluator reads answers (docs/metrics.md)",
        unset="lenient and strict figures",
    )
    no_baselines: bool = setting(False, "leave the trivial baselines out")
    slices: bool = setting(False, "also F1 by length, density, kind of truth and language")
    trust_remote_code: bool = setting(
        False, "run code that comes with the model; only for a model you trust", of="vlm"
    )
    outside_pictures: bool = setting(
        False,
        "send pictures that lie outside the data's folder too; only for data you trust",
        of="api",
    )
    as_json: bool = setting(
        False, "print results.json instead of tables; all else goes to stderr", flag="--json"
    )
    progress: bool | None = setting(None, "progress bar", unset="where stderr is a terminal")

    @classmethod
    def called(cls, name: str) -> str:
        return flag_of(declared(cls)[name])

    @property
    def kind(self) -> ModelKind:
        """The kind of model that is asked; where none is named, it is the newest run."""
        return kind_asked(self.model)

    @property
    def asking(self) -> AnswerConfig:
        """How the model is asked."""
        return AnswerConfig(**{name: getattr(self, name) for name in declared(AnswerConfig)})

    @property
    def archive_model(self) -> str:
        """What answers inside the dialogues of an archive; `none` asks nobody."""
        return self.model or "none"

    @property
    def data_split(self) -> str | None:
        """The part of a set that is evaluated; None for a file."""
        return None if Path(self.dataset).is_file() else self.split

    @property
    def chosen_ways(self) -> list[str]:
        """What `--ways` names; nothing where it is not given."""
        return _listed(self.ways or "")

    @property
    def specific_kinds(self) -> list[str]:
        """The patterns of `--specific`."""
        return _listed(self.specific)

    @property
    def variant(self) -> list[str]:
        """What stands behind model and data in the name of the output folder."""
        words = {
            "archive": self.corpus is not None,
            f"by-{'-'.join(self.chosen_ways)}": self.ways is not None,
            "constrained": self.constrained,
            "wrong-pictures": self.wrong_pictures,
            f"first-{self.limit}": self.limit is not None,
            f"template-{self.template}": self.template is not None,
            f"query-{self.query_position}": self.query_position is not None,
            f"window-{self.window}-{self.overlap}": bool(self.window),
            f"best-{self.best_windows}": self.best_windows is not None,
            f"nothing-from-{self.nothing_from}": self.nothing_from is not None,
            f"neighbours-{self.neighbours}": self.neighbours is not None,
            self.select: self.select != "threshold",
            f"threshold-{self.threshold}": self.threshold is not None,
            f"image-threshold-{self.image_threshold}": self.image_threshold is not None,
        }
        return [word for word, is_set in words.items() if is_set]


def eval_options(kind: type[EvalCall] = EvalCall) -> tuple[Option, ...]:
    """The options of the command: what is asked first, then how."""
    inherited = [*declared(AnswerConfig)]
    own = [name for name in declared(kind) if name not in inherited]
    return setting_options(kind, [*own, *inherited])


def kind_asked(model: str | None) -> ModelKind:
    """The kind of what `--model` names; where it names nothing, of the newest finished run.

    Args:
        model: What it names.
    """
    if model is not None:
        return kind_of(model)
    from ffr.runs import RUNS_FOLDER, newest_finished_run

    run = newest_finished_run(Path(RUNS_FOLDER))
    return "vlm" if run is None else kind_of(str(run))


def is_given(ctx: click.Context, name: str) -> bool:
    """Whether an option was named, and does not just have its default."""
    return ctx.get_parameter_source(name) not in (None, click.core.ParameterSource.DEFAULT)


def read_call(ctx: click.Context, options: dict[str, Any]) -> EvalCall:
    """The call, once no option is refused that would have no effect beside the others.

    Raises:
        UsageError: naming the option, for such a one is an error and not a silence.
    """
    given = {name for name in options if is_given(ctx, name)}
    known = declared(EvalCall)
    if options["predictions"] is not None:
        is_joined = "dataset" in given
        beside = "" if is_joined else " and, without --dataset, no data but its own"
        for name in known:
            if name in given - _FOR_PREDICTIONS - (_OF_DATA if is_joined else set()):
                _refuse(name, f"--predictions, which uses no model{beside}")
    _check_segmentation(options["segmentation"], given)
    if options["corpus"] is not None:
        for name in _NOT_OF_ARCHIVE & given:
            _refuse(name, "--corpus, where a whole archive is searched")
        if options["ways"] is not None and not _listed(options["ways"]):
            raise UsageError(f"--ways {options['ways']!r} names nothing; leave it out for all ways")
        # `none` was given where it is unset still
        options |= {} if "model" in given else {"model": "reader"}
        options |= {} if "dataset" in given else {"dataset": options["corpus"]}
    kind = kind_asked(options["model"])
    kinds = {kind} if options["encoder"] is None else {kind, COHERENCE_ENCODER}
    for name, item in known.items():
        if name in given and item.about.of and not item.about.of & kinds:
            _refuse(name, _missing(item, kind))
        other = item.about.unless
        if name in given and other is not None and options[other] is not None:
            _refuse(name, EvalCall.called(other))
    call = EvalCall(**options)
    if call.api_key_env is not None and not os.environ.get(call.api_key_env, "").strip():
        raise UsageError(f"--api-key-env {call.api_key_env}: no such variable is set")
    return call


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _check_segmentation(method: str | None, given: set[str]) -> None:
    """Refuses what has no effect where dialogues are cut into segments."""
    if method is None:
        return
    meant = set(_FOR_SEGMENTATION)
    if method == "model":
        meant |= _FOR_SEGMENTATION_BY_MODEL | set(declared(AnswerConfig))
    for name in declared(EvalCall):
        if name in given - meant:
            _refuse(name, f"--segmentation {method}")


def _missing(item: Declared, kind: ModelKind) -> str:
    """What a call lacks, or has, that an option has no meaning beside."""
    of = item.about.of - {COHERENCE_ENCODER}
    words = _NOT.get(frozenset(of), _BESIDE[kind])
    return words if of == item.about.of else f"{words}, but with --encoder"


def _refuse(name: str, beside: str) -> None:
    raise UsageError(f"{EvalCall.called(name)} has no meaning beside {beside}")
