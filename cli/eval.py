"""`ffr eval`: measures a model, a server, a trivial baseline, or a prediction file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ffr.errors import UsageError

if TYPE_CHECKING:
    from ffr.data.formats import ExampleDataset
    from ffr.evaluation.results import Results
    from ffr.evaluation.retrievers import Retriever
    from ffr.evaluation.run import Progress
    from ffr.runs import ModelSource

_API_PREFIX = "api:"  # as ffr.evaluation.api has it, which help pages do not import


@click.command("eval")
@click.option("--dataset", default="sample", show_default=True, metavar="NAME|PATH", help="A named set or a data file.")
@click.option("--split", default="val", show_default=True, help="Part of a named set.")
@click.option(
    "--model",
    metavar="MODEL",
    help="A run, a folder, a hub id, `tiny`, baseline:NAME (everything, nothing, random-third, overlap), or api:URL#MODEL (an "
    "OpenAI-compatible server, such as api:http://localhost:8000/v1#Qwen/Qwen2-VL-2B-Instruct). "
    "[default: the newest finished run under ./runs, else tiny]",
)
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Score this prediction file; no model is used.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Output folder. [default: by model and data]"
)
@click.option("--constrained", is_flag=True, help="Let the model write well-formed answers only.")
@click.option(
    "--batch-tokens", type=click.IntRange(1), default=16_384, show_default=True, help="Prompt tokens at once."
)
@click.option("--max-new-tokens", type=click.IntRange(1), default=512, show_default=True, help="Longest answer.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    help="Type of the weights. [default: auto = float32 on a CPU, as in the files on a GPU]",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N queries only.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of random-third and of --wrong-pictures.")
@click.option("--skip-bad", is_flag=True, help="Leave bad records out, counted, instead of stopping.")
@click.option(
    "--image-root", type=click.Path(path_type=Path), metavar="DIR", help="Folder that image paths are relative to."
)
@click.option(
    "--template", type=click.Choice(["zh", "en"]), help="Prompt template. [default: the model's, else the file's]"
)
@click.option(
    "--query-position",
    type=click.Choice(["first", "last"]),
    help="Query before or after the dialogue. [default: likewise]",
)
@click.option("--logprobs", is_flag=True, help="Write the log-probability of every answer token.")
@click.option(
    "--window",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Answer dialogues of more than N utterances in pieces of N and merge the answers; 0 never cuts.",
)
@click.option(
    "--overlap",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="M",
    help="Utterances that neighbouring pieces share.",
)
@click.option(
    "--api-key-env",
    metavar="NAME",
    help="For api: environment variable that holds the key. [default: OPENAI_API_KEY, where it is set]",
)
@click.option(
    "--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="For api: requests at a time."
)
@click.option(
    "--requests-per-minute",
    type=click.FloatRange(0, min_open=True),
    help="For api: requests begun in a minute at most. [default: no bound]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="For api: longest time for one answer.",
)
@click.option(
    "--max-retries",
    type=click.IntRange(0),
    default=6,
    show_default=True,
    help="For api: how often a request is repeated after a passing fault.",
)
@click.option("--price-in", type=click.FloatRange(0), default=0.0, help="For api: price of a million prompt tokens.")
@click.option("--price-out", type=click.FloatRange(0), default=0.0, help="For api: price of a million answer tokens.")
@click.option(
    "--wrong-pictures", is_flag=True, help="Control: show pictures of other dialogues in place of the right ones."
)
@click.option(
    "--coherence", is_flag=True, help="Also fragment order coherence, with the model's own text and image vectors."
)
@click.option("--no-baselines", is_flag=True, help="Leave the trivial baselines out.")
@click.option(
    "--trust-remote-code", is_flag=True, help="Run code that comes with the model; only for a model you trust."
)
@click.option("--json", "as_json", is_flag=True, help="Print results.json instead of tables; all else goes to stderr.")
@click.option("--progress/--no-progress", default=None, help="Progress bar. [default: where stderr is a terminal]")
@click.pass_context
def eval_command(
    ctx: click.Context,
    dataset: str,
    split: str,
    model: str | None,
    predictions: Path | None,
    out: Path | None,
    constrained: bool,
    batch_tokens: int,
    max_new_tokens: int,
    device: str,
    dtype: str,
    limit: int | None,
    seed: int,
    skip_bad: bool,
    image_root: Path | None,
    template: str | None,
    query_position: str | None,
    logprobs: bool,
    window: int,
    overlap: int,
    api_key_env: str | None,
    concurrency: int,
    requests_per_minute: float | None,
    timeout: float,
    max_retries: int,
    price_in: float,
    price_out: float,
    wrong_pictures: bool,
    coherence: bool,
    no_baselines: bool,
    trust_remote_code: bool,
    as_json: bool,
    progress: bool | None,
) -> None:
    """Measure a model, a server, a trivial baseline, or anyone's prediction file.

    Bare `ffr eval` takes the newest finished run under ./runs, or `tiny` where there is none, on the bundled sample. The
    output folder gets predictions.jsonl and results.json; the same command goes on where it was stopped.
    """

    def say(text: str) -> None:
        click.echo(text, err=as_json)

    if predictions is not None:
        _refuse(ctx, lambda name: name not in _FOR_PREDICTIONS, "--predictions, which uses no model and no data set")
        from ffr.evaluation.predictions import score_predictions

        say(f"Scoring {predictions} (no model)")
        results = score_predictions(predictions, seed=seed, with_baselines=not no_baselines)
        if out is not None:
            say(f"Results: {results.save(out)}")
        _show(results, as_json)
        return
    is_api = model is not None and model.startswith(_API_PREFIX)
    if is_api:
        _refuse(ctx, lambda name: name in _FOR_MODELS_HERE, "api:, whose model runs elsewhere")
    else:
        _refuse(ctx, lambda name: name in _FOR_API, "a model that is no api:URL#MODEL")
    if api_key_env is not None and not os.environ.get(api_key_env, "").strip():
        raise UsageError(f"--api-key-env {api_key_env}: no such variable is set")
    if overlap >= max(window, 1):
        raise UsageError(f"--overlap {overlap} is not less than --window {window}")
    label, source = _choose(model)
    if coherence and source is None:
        raise UsageError("--coherence takes the vectors of a model, and a baseline has none")
    say(f"Evaluating {label} on {dataset}" + (f" ({split})" if not Path(dataset).is_file() else ""))
    if wrong_pictures:
        say("CONTROL WITH WRONG PICTURES: every picture is one of another dialogue")
    from ffr.data.catalog import load_dataset
    from ffr.evaluation.retrievers import BASELINES, VlmRetriever
    from ffr.evaluation.run import FirstExamples, WrongPictures, evaluate

    needs_images = source is not None or is_api or wrong_pictures
    data: ExampleDataset = load_dataset(
        dataset, split=split, image_root=image_root, skip_bad=skip_bad, require_images=needs_images, echo=say
    )
    examples = data if limit is None else FirstExamples(data, limit)
    shown = WrongPictures(examples, seed=seed) if wrong_pictures else None
    name = f"{source.label if source is not None else label}{' (wrong pictures)' if wrong_pictures else ''}"
    retriever: Retriever
    if is_api:
        assert model is not None
        from ffr.evaluation.api import DEFAULT_KEY_VARIABLE, ApiRetriever, Limits, Prices

        retriever = ApiRetriever(
            model,
            key_variable=api_key_env or DEFAULT_KEY_VARIABLE,
            template=template,
            query_position=query_position,  # type: ignore[arg-type]
            max_new_tokens=max_new_tokens,
            with_logprobs=logprobs,
            limits=Limits(concurrency, requests_per_minute, timeout, max_retries),
            prices=Prices(price_in, price_out),
            label=name,
        )
    elif source is None:
        from ffr.evaluation.retrievers import BaselineRetriever

        retriever = BaselineRetriever(label.removeprefix("baseline:"), seed=seed)
    else:
        retriever = _vlm_retriever(
            source,
            name=name,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            template=template,
            query_position=query_position,
            is_constrained=constrained,
            max_new_tokens=max_new_tokens,
            batch_tokens=batch_tokens,
            with_logprobs=logprobs,
        )
    encoder = retriever.vlm if coherence and isinstance(retriever, VlmRetriever) else None
    if window:
        from ffr.evaluation.windows import WindowedRetriever

        retriever = WindowedRetriever(retriever, window=window, overlap=overlap)
    variant = {
        "constrained": constrained,
        "wrong-pictures": wrong_pictures,
        f"first-{limit}": limit is not None,
        f"template-{template}": template is not None,
        f"query-{query_position}": query_position is not None,
        f"window-{window}-{overlap}": bool(window),
    }
    folder = out or _default_out(source, label, dataset, split, [word for word, is_set in variant.items() if is_set])
    say(f"{len(examples)} queries; output folder {folder}")
    with _progress_bar(progress, len(examples)) as advance:
        try:
            results = evaluate(
                examples,
                retriever,
                folder,
                dataset=dataset,
                split=None if Path(dataset).is_file() else split,
                num_left_out=data.num_left_out,
                seed=seed,
                shown=shown,
                baselines=() if no_baselines else tuple(BASELINES),
                encoder=encoder,
                progress=advance,
            )
        except KeyboardInterrupt:
            say("\nStopped; the same command goes on from here.")
            raise click.exceptions.Exit(130) from None
    _show(results, as_json)
    say(f"Results: {folder / 'results.json'}  ·  answers: {folder / 'predictions.jsonl'}")


_FOR_PREDICTIONS = {"predictions", "out", "seed", "no_baselines", "as_json", "progress"}


_FOR_MODELS_HERE = {"constrained", "batch_tokens", "device", "dtype", "coherence", "trust_remote_code"}
_FOR_API = {
    "api_key_env",
    "concurrency",
    "requests_per_minute",
    "timeout",
    "max_retries",
    "price_in",
    "price_out",
}


def _refuse(ctx: click.Context, is_refused: Callable[[str], bool], beside: str) -> None:
    """An option that would have no effect is an error, not a silence."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        given = ctx.get_parameter_source(name) not in (None, click.core.ParameterSource.DEFAULT)
        if given and is_refused(name):
            raise UsageError(f"{parameter.opts[0]} has no meaning beside {beside}")


def _choose(model: str | None) -> tuple[str, ModelSource | None]:
    """What the first line calls the choice, and where the model is; None for a baseline or a server."""
    from ffr.runs import RUNS_FOLDER, newest_finished_run, resolve_model

    if model is not None and model.startswith(_API_PREFIX):
        from ffr.evaluation.api import split_name

        return _API_PREFIX + split_name(model)[1], None
    if model is not None and model.startswith("baseline:"):
        from ffr.evaluation.retrievers import BASELINES

        if model.removeprefix("baseline:") not in BASELINES:
            raise UsageError(f"no baseline {model.removeprefix('baseline:')!r}; there are {', '.join(BASELINES)}")
        return model, None
    if model is not None:
        return model, resolve_model(model)
    run = newest_finished_run(Path(RUNS_FOLDER))
    if run is None:
        return "tiny (no finished run under ./runs)", resolve_model("tiny")
    return f"the newest finished run {run}", resolve_model(str(run))


def _vlm_retriever(
    source: ModelSource, *, device: str, dtype: str, trust_remote_code: bool, **options: object
) -> Retriever:
    import torch

    from ffr.evaluation.retrievers import VlmRetriever
    from ffr.models.features import ImageFeatureCache
    from ffr.models.vlm import load_vlm

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device} cannot be used here ({str(error).splitlines()[0]})") from None
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    vlm = load_vlm(
        source.location,
        dtype=dtype,  # type: ignore[arg-type]
        device=device,
        trust_remote_code=trust_remote_code,
    )
    vlm.name = source.label
    vlm.feature_cache = ImageFeatureCache(memory_bytes=512 << 20)
    return VlmRetriever(vlm, **options)  # type: ignore[arg-type]


def _default_out(source: ModelSource | None, label: str, dataset: str, split: str, variant: list[str]) -> Path:
    import re

    def slug(text: str) -> str:
        return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "unnamed"

    path = Path(dataset)
    data = (
        slug(path.name.partition(".")[0]) if path.exists() else slug(dataset) + ("" if split == "val" else f"-{split}")
    )
    name = "-".join([data, *variant])
    if source is not None and source.run is not None:
        return source.run / "eval" / name
    return Path("eval") / f"{slug(source.label if source is not None else label)}-{name}"


class _progress_bar:  # noqa: N801 - reads as the function it stands for
    """A bar on stderr, or nothing."""

    def __init__(self, asked: bool | None, total: int) -> None:
        import sys

        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        is_shown = sys.stderr.isatty() if asked is None else asked
        self._bar = Bar(
            TextColumn("answers"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not is_shown,
        )
        self._task = self._bar.add_task("answers", total=total)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self._advance

    def _advance(self, num_done: int, num_total: int) -> None:
        self._bar.update(self._task, completed=num_done, total=num_total)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _show(results: Results, as_json: bool) -> None:
    if as_json:
        click.echo(results.to_json(), nl=False)
        return
    from rich.console import Console

    from ffr.evaluation.report import print_report

    print_report(results, Console())
