"""`ffr eval`: measures a model, a server, an encoder, a trivial baseline, or a prediction file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from ffr.cli.eval_options import (
    API_PREFIX,
    BASELINE_PREFIX,
    EMBEDDING_PREFIX,
    EVAL_OPTIONS,
    EvalCall,
    check_call,
)
from ffr.cli.model_options import progress_bar, usable_device, vlm_retriever, with_options

from ffr.errors import UsageError

if TYPE_CHECKING:
    from ffr.dialogue import Example
    from ffr.embedding import Encoder
    from ffr.evaluation.embedding import FragmentScorer, Selection
    from ffr.evaluation.results import Results
    from ffr.evaluation.retrievers import Retriever
    from ffr.runs import ModelSource

Say = Callable[[str], None]

_CACHE_BYTES = 2**30


@click.command("eval")
@with_options(*EVAL_OPTIONS)
@click.pass_context
def eval_command(ctx: click.Context, /, **options: Any) -> None:
    """Measure a model, a server, an encoder, a trivial baseline, or anyone's prediction file.

    Bare `ffr eval` takes the newest finished run under ./runs, or `tiny` where there is none, on the bundled sample. The
    output folder gets predictions.jsonl and results.json; the same command goes on where it was stopped.
    """
    call = EvalCall(**options)

    def say(text: str) -> None:
        click.echo(text, err=call.as_json)

    check_call(ctx, call)
    if call.predictions is not None:
        from ffr.evaluation.predictions import score_predictions

        say(f"Scoring {call.predictions} (no model)")
        results = score_predictions(call.predictions, seed=call.seed, with_baselines=not call.no_baselines)
        if call.out is not None:
            say(f"Results: {results.save(call.out)}")
        _show(results, call.as_json)
        return
    label, source = _choose(call.model)
    if call.coherence and call.encoder is None and source is None and call.embedding is None:
        raise UsageError("--coherence takes the vectors of a model, and this one has none here; name an --encoder")
    say(f"Evaluating {label} on {call.dataset}" + (f" ({call.split})" if call.data_split is not None else ""))
    if call.wrong_pictures:
        say("CONTROL WITH WRONG PICTURES: every picture is one of another dialogue")
    try:
        results, folder = _evaluate(call, label, source, say)
    except KeyboardInterrupt:
        say("\nStopped; the same command goes on from here.")
        raise click.exceptions.Exit(130) from None
    _show(results, call.as_json)
    say(f"Results: {folder / 'results.json'}  ·  answers: {folder / 'predictions.jsonl'}")


def _evaluate(call: EvalCall, label: str, source: ModelSource | None, say: Say) -> tuple[Results, Path]:
    """Asks and scores as the options say, and tells where the results lie."""
    from ffr.data.catalog import load_dataset
    from ffr.evaluation.retrievers import BASELINES, BaselineRetriever
    from ffr.evaluation.run import FirstExamples, WrongPictures, evaluate

    scorer = None if call.embedding is None else _scorer(call, call.embedding)
    if scorer is not None and call.wrong_pictures and not scorer.encoder.takes_images:
        raise UsageError("--wrong-pictures has no meaning beside an encoder of texts, which looks at no picture")
    shows_images = source is not None or call.is_api or call.wrong_pictures or call.coherence
    data = load_dataset(
        call.dataset,
        split=call.split,
        image_root=call.image_root,
        skip_bad=call.skip_bad,
        require_images=shows_images or (scorer is not None and scorer.encoder.takes_images),
        echo=say,
    )
    examples = data if call.limit is None else FirstExamples(data, call.limit)
    shown = WrongPictures(examples, seed=call.seed) if call.wrong_pictures else None
    name = (source.label if source is not None else label) + (" (wrong pictures)" if call.wrong_pictures else "")
    policy: Encoder | None = None
    retriever: Retriever
    if scorer is not None:
        from ffr.evaluation.embedding import EmbeddingRetriever

        retriever = EmbeddingRetriever(scorer, _selection(call, scorer, examples, say), name=name)
        policy = scorer.encoder if call.encoder is None else None
    elif call.is_api:
        retriever = _api_retriever(call, name)
    elif source is None:
        retriever = BaselineRetriever(label.removeprefix(BASELINE_PREFIX), seed=call.seed)
    else:
        reader = vlm_retriever(
            source,
            name=name,
            device=call.device,
            dtype=call.dtype,
            trust_remote_code=call.trust_remote_code,
            template=call.template,
            query_position=call.query_position,
            is_constrained=call.constrained,
            max_new_tokens=call.max_new_tokens,
            batch_tokens=call.batch_tokens,
            with_logprobs=call.logprobs,
        )
        retriever, policy = reader, reader.vlm
    encoder = _coherence_encoder(call, policy, examples) if call.coherence else None
    if call.window:
        from ffr.evaluation.windows import WindowedRetriever

        retriever = WindowedRetriever(retriever, window=call.window, overlap=call.overlap)
    folder = call.out or _default_out(call, source, label)
    say(f"{len(examples)} queries; output folder {folder}")
    with progress_bar(call.progress, len(examples)) as advance:
        results = evaluate(
            examples,
            retriever,
            folder,
            dataset=call.dataset,
            split=call.data_split,
            num_left_out=data.num_left_out,
            seed=call.seed,
            shown=shown,
            baselines=() if call.no_baselines else tuple(BASELINES),
            encoder=encoder,
            progress=advance,
        )
    return results, folder


def _choose(model: str | None) -> tuple[str, ModelSource | None]:
    """What the first line calls the choice, and where the model is; None for what is no vision-language model here."""
    from ffr.runs import RUNS_FOLDER, newest_finished_run, resolve_model

    if model is not None and model.startswith(API_PREFIX):
        from ffr.evaluation.api import split_name

        return API_PREFIX + split_name(model)[1], None
    if model is not None and model.startswith(EMBEDDING_PREFIX):
        if model == EMBEDDING_PREFIX:
            raise UsageError("--model embedding: names no encoder; write embedding:ENCODER, with what --encoder takes")
        return model, None
    if model is not None and model.startswith(BASELINE_PREFIX):
        from ffr.evaluation.retrievers import BASELINES

        if model.removeprefix(BASELINE_PREFIX) not in BASELINES:
            raise UsageError(f"no baseline {model.removeprefix(BASELINE_PREFIX)!r}; there are {', '.join(BASELINES)}")
        return model, None
    if model is not None:
        return model, resolve_model(model)
    run = newest_finished_run(Path(RUNS_FOLDER))
    if run is None:
        return "tiny (no finished run under ./runs)", resolve_model("tiny")
    return f"the newest finished run {run}", resolve_model(str(run))


# -- retrievers and encoders --------------------------------------------------------------------------------------------------


def _api_retriever(call: EvalCall, name: str) -> Retriever:
    from ffr.evaluation.api import DEFAULT_KEY_VARIABLE, ApiRetriever, Limits, Prices

    assert call.model is not None
    return ApiRetriever(
        call.model,
        key_variable=call.api_key_env or DEFAULT_KEY_VARIABLE,
        template=call.template,
        query_position=call.query_position,
        max_new_tokens=call.max_new_tokens,
        with_logprobs=call.logprobs,
        limits=Limits(call.concurrency, call.requests_per_minute, call.timeout, call.max_retries),
        prices=Prices(call.price_in, call.price_out),
        label=name,
    )


def _open_encoder(call: EvalCall, name: str, policy: Encoder | None = None) -> Encoder:
    from ffr.embedding import CachedEncoder
    from ffr.encoders import open_encoder

    device = call.device if call.device == "auto" else usable_device(call.device)
    encoder = open_encoder(name, device=device, policy=policy)
    if call.encoder_cache is None:
        return encoder
    return CachedEncoder(encoder, call.encoder_cache, max_bytes=_CACHE_BYTES)


def _scorer(call: EvalCall, name: str) -> FragmentScorer:
    from ffr.evaluation.embedding import FragmentScorer

    return FragmentScorer(_open_encoder(call, name), call.neighbours)


def _selection(call: EvalCall, scorer: FragmentScorer, examples: Sequence[Example], say: Say) -> Selection:
    """The rule that an embedding retriever chooses by: as given, or fitted on data that is not evaluated."""
    from ffr.data.catalog import load_dataset
    from ffr.evaluation.embedding import Selection, check_fit_part, fitted_selection
    from ffr.evaluation.run import FirstExamples

    takes_images = scorer.encoder.takes_images
    if call.threshold is not None:
        if call.image_threshold is not None and not takes_images:
            raise UsageError(
                "--image-threshold has no meaning beside an encoder of texts, with which pictures follow their lines"
            )
        image = call.threshold if call.image_threshold is None else call.image_threshold
        return Selection("threshold", call.threshold, image if takes_images else None)
    if call.fit_dataset is None and call.data_split is None:
        raise UsageError(
            f"what is similar enough is fitted on data that is not evaluated, and {call.dataset} is all there is; name some "
            "with --fit-dataset, or give --threshold"
        )
    dataset = call.fit_dataset or call.dataset
    data = load_dataset(
        dataset,
        split=call.fit_split,
        image_root=call.fit_image_root if call.fit_dataset is not None else call.fit_image_root or call.image_root,
        skip_bad=call.skip_bad,
        require_images=takes_images,
        echo=say,
    )
    fit = data if call.fit_limit is None else FirstExamples(data, call.fit_limit)
    check_fit_part(examples, fit, takes_images=takes_images)
    split = None if Path(dataset).is_file() else call.fit_split
    say(f"Fitting {call.select} on {dataset}" + (f" ({split})" if split is not None else "") + f", {len(fit)} queries")
    with progress_bar(call.progress, len(fit), "scored to fit") as advance:
        return fitted_selection(scorer, fit, call.select, dataset=dataset, split=split, progress=advance)


def _coherence_encoder(call: EvalCall, policy: Encoder | None, examples: Sequence[Example]) -> Encoder:
    """What makes the vectors of coherence: `--encoder`, else the retriever's own."""
    if call.encoder is not None:
        encoder = _open_encoder(call, call.encoder, policy)
    else:
        assert policy is not None
        encoder = policy
    if not encoder.takes_images and any(example.dialogue.images for example in examples):
        raise UsageError(
            f"{encoder.name} encodes texts only, and the data has pictures, whose coherence needs an encoder of both; name one with "
            "--encoder, or leave --coherence out"
        )
    return encoder


# -- output -------------------------------------------------------------------------------------------------------------------


def _default_out(call: EvalCall, source: ModelSource | None, label: str) -> Path:
    import re

    def slug(text: str) -> str:
        return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "unnamed"

    path = Path(call.dataset)
    data = slug(path.name.partition(".")[0])
    if not path.exists():
        data = slug(call.dataset) + ("" if call.split == "val" else f"-{call.split}")
    name = "-".join([data, *call.variant])
    if source is not None and source.run is not None:
        return source.run / "eval" / name
    return Path("eval") / f"{slug(source.label if source is not None else label)}-{name}"


def _show(results: Results, as_json: bool) -> None:
    if as_json:
        click.echo(results.to_json(), nl=False)
        return
    from rich.console import Console

    from ffr.evaluation.report import print_report

    print_report(results, Console())
