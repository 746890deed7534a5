"""The options of `ffr eval`, what they hold together, and which have no meaning beside which model."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import click

from ffr.cli.model_options import (
    BATCH_TOKENS,
    DEVICE,
    DTYPE,
    IMAGE_ROOT,
    LIMIT,
    MAX_NEW_TOKENS,
    PROGRESS,
    QUERY_POSITION,
    SKIP_BAD,
    TEMPLATE,
    TRUST_REMOTE_CODE,
    Option,
    data_options,
)
from ffr.errors import UsageError
from ffr.settings import (
    SETTINGS_OF_APIS,
    SETTINGS_OF_EMBEDDINGS,
    SETTINGS_OF_FITTING,
    SETTINGS_OF_PROMPTS,
    SETTINGS_OF_VLMS,
    AnswerConfig,
)

# as ffr.evaluation has them, which help pages do not import
API_PREFIX = "api:"
EMBEDDING_PREFIX = "embedding:"

EVAL_OPTIONS: tuple[Option, ...] = (
    *data_options(split="val"),
    click.option(
        "--model",
        metavar="MODEL",
        help="A run, a folder, a hub id, `tiny`, embedding:ENCODER (what --encoder names), baseline:NAME (everything, nothing, "
        "random-third, overlap), or api:URL#MODEL (an OpenAI-compatible server, such as "
        "api:http://localhost:8000/v1#Qwen/Qwen2-VL-2B-Instruct). [default: the newest finished run under ./runs, else tiny]",
    ),
    click.option(
        "--predictions",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Score this prediction file; no model is used.",
    ),
    click.option(
        "--out", type=click.Path(path_type=Path), metavar="DIR", help="Output folder. [default: by model and data]"
    ),
    click.option("--constrained", is_flag=True, help="Let the model write well-formed answers only."),
    BATCH_TOKENS,
    MAX_NEW_TOKENS,
    DEVICE,
    DTYPE,
    LIMIT,
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Seed of random-third and of --wrong-pictures."
    ),
    SKIP_BAD,
    IMAGE_ROOT,
    TEMPLATE,
    QUERY_POSITION,
    click.option("--logprobs", is_flag=True, help="Write the log-probability of every answer token."),
    click.option(
        "--window",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        metavar="N",
        help="Answer dialogues of more than N utterances in pieces of N and merge the answers; 0 never cuts.",
    ),
    click.option(
        "--overlap",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        metavar="M",
        help="Utterances that neighbouring pieces share.",
    ),
    click.option(
        "--neighbours",
        type=click.IntRange(0),
        metavar="N",
        help="For embedding: lines on either side that an utterance is joined with. [default: 2 for encoders of texts alone, else 0]",
    ),
    click.option(
        "--select",
        type=click.Choice(["threshold", "top-share"]),
        default="threshold",
        show_default=True,
        help="For embedding: choose what is as similar as this, or this share of a dialogue; the number is fitted.",
    ),
    click.option(
        "--threshold",
        type=click.FloatRange(-1, 1),
        metavar="X",
        help="For embedding: this similarity, not a fitted one.",
    ),
    click.option(
        "--image-threshold",
        type=click.FloatRange(-1, 1),
        metavar="X",
        help="For embedding with --threshold: that of pictures. [default: as --threshold]",
    ),
    click.option(
        "--fit-dataset",
        metavar="NAME|PATH",
        help="For embedding: data to fit the number on. [default: another part of the named set]",
    ),
    click.option("--fit-split", default="train", show_default=True, help="For embedding: part of the set to fit on."),
    click.option(
        "--fit-limit", type=click.IntRange(1), metavar="N", help="For embedding: the first N queries of it only."
    ),
    click.option(
        "--fit-image-root", type=click.Path(path_type=Path), metavar="DIR", help="For embedding: folder of its images."
    ),
    click.option(
        "--api-key-env",
        metavar="NAME",
        help="For api: environment variable that holds the key. [default: OPENAI_API_KEY, where it is set]",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(1, 256),
        default=8,
        show_default=True,
        help="For api: requests at a time.",
    ),
    click.option(
        "--requests-per-minute",
        type=click.FloatRange(0, min_open=True),
        help="For api: requests begun in a minute at most. [default: no bound]",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        default=300.0,
        show_default=True,
        metavar="SECONDS",
        help="For api: longest time for one answer.",
    ),
    click.option(
        "--max-retries",
        type=click.IntRange(0),
        default=6,
        show_default=True,
        help="For api: how often a request is repeated after a passing fault.",
    ),
    click.option(
        "--price-in", type=click.FloatRange(0), default=0.0, help="For api: price of a million prompt tokens."
    ),
    click.option(
        "--price-out", type=click.FloatRange(0), default=0.0, help="For api: price of a million answer tokens."
    ),
    click.option(
        "--wrong-pictures", is_flag=True, help="Control: show pictures of other dialogues in place of the right ones."
    ),
    click.option("--coherence", is_flag=True, help="Also fragment order coherence, with the vectors of --encoder."),
    click.option(
        "--encoder",
        metavar="ENCODER",
        help="For --coherence: the folder or hub id of an encoder of the CLIP family, onnx:DIR, vlm:MODEL (last state) or "
        "vlm-mean:MODEL. [default: the model's own vectors]",
    ),
    click.option(
        "--encoder-cache",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Folder that keeps the vectors of encoders between runs, 1 GiB at most. [default: memory only]",
    ),
    click.option("--no-baselines", is_flag=True, help="Leave the trivial baselines out."),
    TRUST_REMOTE_CODE,
    click.option(
        "--json", "as_json", is_flag=True, help="Print results.json instead of tables; all else goes to stderr."
    ),
    PROGRESS,
)


@dataclass(frozen=True, slots=True)
class EvalCall:
    """What `ffr eval` was called with, one field an option."""

    dataset: str
    split: str
    model: str | None
    predictions: Path | None
    out: Path | None
    constrained: bool
    batch_tokens: int
    max_new_tokens: int
    device: str
    dtype: str
    limit: int | None
    seed: int
    skip_bad: bool
    image_root: Path | None
    template: str | None
    query_position: Literal["first", "last"] | None
    logprobs: bool
    window: int
    overlap: int
    neighbours: int | None
    select: Literal["threshold", "top-share"]
    threshold: float | None
    image_threshold: float | None
    fit_dataset: str | None
    fit_split: str
    fit_limit: int | None
    fit_image_root: Path | None
    api_key_env: str | None
    concurrency: int
    requests_per_minute: float | None
    timeout: float
    max_retries: int
    price_in: float
    price_out: float
    wrong_pictures: bool
    coherence: bool
    encoder: str | None
    encoder_cache: Path | None
    no_baselines: bool
    trust_remote_code: bool
    as_json: bool
    progress: bool | None

    @property
    def is_api(self) -> bool:
        return self.model is not None and self.model.startswith(API_PREFIX)

    @property
    def embedding(self) -> str | None:
        """The encoder that retrieves; None where something else does."""
        if self.model is None or not self.model.startswith(EMBEDDING_PREFIX):
            return None
        return self.model.removeprefix(EMBEDDING_PREFIX)

    @property
    def asking(self) -> AnswerConfig:
        """How the model is asked."""
        values: dict[str, Any] = {}
        for item in fields(AnswerConfig):
            value = getattr(self, item.name)
            values[item.name] = str(value) if isinstance(value, Path) else value
        return AnswerConfig(**values)

    @property
    def data_split(self) -> str | None:
        """The part of a set that is evaluated; None for a file."""
        return None if Path(self.dataset).is_file() else self.split

    @property
    def variant(self) -> list[str]:
        """What stands behind model and data in the name of the output folder."""
        words = {
            "constrained": self.constrained,
            "wrong-pictures": self.wrong_pictures,
            f"first-{self.limit}": self.limit is not None,
            f"template-{self.template}": self.template is not None,
            f"query-{self.query_position}": self.query_position is not None,
            f"window-{self.window}-{self.overlap}": bool(self.window),
            f"neighbours-{self.neighbours}": self.neighbours is not None,
            self.select: self.select != "threshold",
            f"threshold-{self.threshold}": self.threshold is not None,
            f"image-threshold-{self.image_threshold}": self.image_threshold is not None,
        }
        return [word for word, is_set in words.items() if is_set]


_FOR_PREDICTIONS = {"predictions", "out", "seed", "no_baselines", "as_json", "progress"}
_FOR_VLMS = SETTINGS_OF_VLMS | {"trust_remote_code"}


def check_call(ctx: click.Context, call: EvalCall) -> None:
    """Refuses options that contradict each other or would have no effect, which is an error and not a silence.

    Raises:
        UsageError: naming them.
    """
    if call.predictions is not None:
        known = {parameter.name or "" for parameter in ctx.command.params}
        _refuse(ctx, known - _FOR_PREDICTIONS, "--predictions, which uses no model and no data set")
        return
    if call.is_api:
        _refuse(ctx, _FOR_VLMS, "api:, whose model runs elsewhere")
        if call.encoder is None:
            _refuse(ctx, {"coherence", "device"}, "api:, whose model runs elsewhere, but with --encoder")
    else:
        _refuse(ctx, SETTINGS_OF_APIS, "a model that is no api:URL#MODEL")
    if call.embedding is not None:
        _refuse(ctx, _FOR_VLMS | SETTINGS_OF_PROMPTS, "embedding:, which reads no prompt and writes no text")
    else:
        _refuse(ctx, SETTINGS_OF_EMBEDDINGS, "a model that is no embedding:ENCODER")
        if call.encoder is None:
            _refuse(ctx, {"encoder_cache"}, "a model that is no embedding:ENCODER, but with --encoder")
    if call.threshold is not None:
        _refuse(ctx, SETTINGS_OF_FITTING, "--threshold, with which nothing is fitted")
    else:
        _refuse(ctx, {"image_threshold"}, "a fitted threshold; give --threshold too")
    if not call.coherence:
        _refuse(ctx, {"encoder"}, "a measurement without --coherence")
    if call.api_key_env is not None and not os.environ.get(call.api_key_env, "").strip():
        raise UsageError(f"--api-key-env {call.api_key_env}: no such variable is set")
    if call.overlap >= max(call.window, 1):
        raise UsageError(f"--overlap {call.overlap} is not less than --window {call.window}")


def _refuse(ctx: click.Context, refused: Collection[str], beside: str) -> None:
    for parameter in ctx.command.params:
        name = parameter.name or ""
        given = ctx.get_parameter_source(name) not in (None, click.core.ParameterSource.DEFAULT)
        if given and name in refused:
            raise UsageError(f"{parameter.opts[0]} has no meaning beside {beside}")
