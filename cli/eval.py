"""`ffr eval`: measures a model, a server, an encoder, a trivial baseline, or a prediction file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from ffr.cli.eval_corpus import evaluate_archive
from ffr.cli.eval_options import EvalCall, eval_options, is_given, read_call
from ffr.cli.model_options import with_options
from ffr.cli.output import print_json, progress_bar, say, say_aside
from ffr.errors import UsageError
from ffr.progress import Say
from ffr.text import counted

if TYPE_CHECKING:
    from ffr.data.dataset import ExampleDataset, FirstExamples
    from ffr.dialogue import Example
    from ffr.embedding import Encoder
    from ffr.evaluation.results import Results
    from ffr.progress import Progress
    from ffr.retrieval.interface import Retriever
    from ffr.retrieval.opening import OpenModel


@click.command("eval")
@with_options(*eval_options())
@click.pass_context
def eval_command(ctx: click.Context, /, **options: Any) -> None:
    """Measure a model, a server, an encoder, a trivial baseline, or anyone's prediction file.

    Bare `ffr eval` takes the newest finished run under ./runs, or `tiny` where there is none, on
    the bundled sample. The output folder gets predictions.jsonl and results.json; the same command
    goes on where it was stopped.
    """
    from ffr.evaluation.published import add_published
    from ffr.retrieval.answer_log import PREDICTIONS_FILE

    call = read_call(ctx, options)

    tell = say_aside if call.as_json else say
    if call.segmentation is not None:
        from ffr.cli.eval_segmentation import measure_segmentation

        folder = call.out or _default_out(call, f"segments-{call.segmentation}")
        measure_segmentation(call, call.segmentation, folder, tell)
        return
    if call.predictions is not None and not is_given(ctx, "dataset"):
        _score_file(call, call.predictions, tell)
        return
    try:
        if call.corpus is not None:
            folder = call.out or _default_out(call, call.archive_model)
            results = evaluate_archive(call, folder, tell)
        elif call.predictions is not None:
            results, folder = _evaluate_file(call, call.predictions, tell)
        else:
            results, folder = _evaluate_model(call, tell)
    except KeyboardInterrupt:
        tell("\nStopped; the same command goes on from here.")
        raise click.exceptions.Exit(130) from None
    if call.reading == "published":
        add_published(results, folder / PREDICTIONS_FILE)
        results.save(folder)
    _show(results, call, folder)
    tell(f"Results: {folder / 'results.json'}  ·  answers: {folder / 'predictions.jsonl'}")
    _conclude(results, call, f"ffr report {quote(str(folder))}")


def _score_file(call: EvalCall, file: Path, say: Say) -> None:
    """Scores a prediction file that holds its dialogues and true answers itself."""
    from ffr.evaluation.predictions import copy_predictions, score_predictions
    from ffr.evaluation.published import add_published
    from ffr.files import write_checksums
    from ffr.retrieval.answer_log import PREDICTIONS_FILE

    say(f"Scoring {file} (no model)")
    if call.out is not None:
        target = call.out / PREDICTIONS_FILE
        is_itself = target.exists() and target.samefile(file)
        if not is_itself and (call.out / "evaluation.json").exists():
            raise UsageError(f"{call.out} holds the evaluation of a model; name another --out")
    results = score_predictions(
        file, seed=call.seed, with_baselines=not call.no_baselines, out=call.out
    )
    if call.reading == "published":
        add_published(results, file)
    _show(results, call, file)
    if call.out is not None:
        if not is_itself:
            copy_predictions(file, target)
            write_checksums(call.out, [target.name])
        results.model["path"] = str(file.resolve())
        say(f"Results: {results.save(call.out)}  ·  answers: {target}")
    _conclude(
        results,
        call,
        f"ffr report {quote(str(call.out))}" if call.out else "--out DIR, to keep the results",
    )


def _evaluate_file(call: EvalCall, file: Path, say: Say) -> tuple[Results, Path]:
    """Scores the answers of a file against the named data; tells where the results lie."""
    from ffr.data.catalog import load_dataset
    from ffr.retrieval.submitted import SubmittedRetriever

    say(f"Scoring {file} on {_data_label(call)} (no model)")
    submitted = SubmittedRetriever(file)
    data = load_dataset(
        call.dataset,
        split=call.split,
        image_root=call.image_root,
        skip_bad=call.skip_bad,
        require_images=False,
        echo=say,
    )
    if note := submitted.check_all_asked(data, data.num_left_out):
        say(note)
    folder = call.out or _default_out(call, file.name.partition(".")[0])
    return _ask(call, _asked_of(data, call), data.num_left_out, submitted, folder, say), folder


def _evaluate_model(call: EvalCall, say: Say) -> tuple[Results, Path]:
    """Asks a model and scores its answers as the options say, and tells where the results lie."""
    from ffr.data.catalog import load_dataset, locate
    from ffr.evaluation.controls import WrongPictures
    from ffr.evaluation.room import with_room
    from ffr.retrieval.fitting import OR_A_THRESHOLD, AskedData, data_to_fit
    from ffr.retrieval.opening import choose_model, open_model, rules_of

    choice = choose_model(call.model)
    if (
        call.coherence
        and call.encoder is None
        and choice.source is None
        and call.kind != "embedding"
    ):
        raise UsageError(
            "--coherence takes the vectors of a model, and none is here; name an --encoder"
        )
    say(f"Evaluating {choice.label} on {_data_label(call)}")
    if call.wrong_pictures:
        say("CONTROL WITH WRONG PICTURES: every picture is one of another dialogue")
    name = choice.name + (" (wrong pictures)" if call.wrong_pictures else "")

    def opened() -> OpenModel:
        return open_model(
            choice, call.asking, name=name, seed=call.seed, trust_remote_code=call.trust_remote_code
        )

    # data that is not here is found out before a model is loaded
    locate(call.dataset, split=call.split, echo=say)
    if choice.kind in ("embedding", "lines", "encoded-lines") and call.asking.threshold is None:
        or_else = OR_A_THRESHOLD if choice.kind == "embedding" else ""
        fitted_on = data_to_fit(call.asking, call.dataset, call.data_split, or_else)
        locate(fitted_on, split=call.asking.fit_split, echo=say)
    model = opened() if choice.takes_images is None else None
    takes_images = choice.takes_images if model is None else model.takes_images
    if call.wrong_pictures and choice.kind in ("embedding", "reader") and not takes_images:
        raise UsageError(
            "--wrong-pictures has no meaning beside an encoder of texts, which looks at no picture"
        )
    rules = rules_of(
        choice,
        model,
        trust_remote_code=call.trust_remote_code,
        sends_outside_pictures=call.outside_pictures,
    )
    data = load_dataset(
        call.dataset,
        split=call.split,
        image_root=call.image_root,
        skip_bad=call.skip_bad,
        require_images=takes_images or call.wrong_pictures or call.coherence,
        rules=with_room(rules, call.asking),
        echo=say,
    )
    examples = _asked_of(data, call)
    shown = WrongPictures(examples, seed=call.seed) if call.wrong_pictures else None

    def bar(num_queries: int) -> AbstractContextManager[Progress]:
        return progress_bar(call.progress, "scored to fit", num_queries)

    asked = AskedData(examples, call.dataset, call.data_split, call.image_root, call.skip_bad)
    model = model or opened()
    retriever = model.retriever(asked, call.asking, say=say, progress=bar)
    policy = model.encoder if call.encoder is None or choice.kind == "vlm" else None
    encoder = _coherence_encoder(call, policy, examples) if call.coherence else None
    run = choice.source.run if choice.source is not None else None
    folder = call.out or _default_out(call, choice.name, run)
    results = _ask(
        call, examples, data.num_left_out, retriever, folder, say, shown=shown, encoder=encoder
    )
    return results, folder


def _asked_of(data: ExampleDataset, call: EvalCall) -> ExampleDataset | FirstExamples:
    """The data, or its first queries."""
    from ffr.data.dataset import FirstExamples

    return data if call.limit is None else FirstExamples(data, call.limit)


def _ask(
    call: EvalCall,
    examples: Sequence[Example],
    num_left_out: int,
    retriever: Retriever,
    folder: Path,
    say: Say,
    *,
    shown: Sequence[Example] | None = None,
    encoder: Encoder | None = None,
) -> Results:
    """Asks a retriever the queries and scores the answers."""
    from ffr.evaluation.run import evaluate
    from ffr.retrieval.lexical import BASELINES

    say(f"{counted(len(examples), 'query')}; output folder {folder}")
    with progress_bar(call.progress, "answers", len(examples)) as advance:
        return evaluate(
            examples,
            retriever,
            folder,
            dataset=call.dataset,
            split=call.data_split,
            num_left_out=num_left_out,
            seed=call.seed,
            shown=shown,
            baselines=() if call.no_baselines else tuple(BASELINES),
            encoder=encoder,
            progress=advance,
            max_failures=call.max_failures,
        )


def _coherence_encoder(
    call: EvalCall, policy: Encoder | None, examples: Sequence[Example]
) -> Encoder:
    """What makes the vectors of coherence: `--encoder`, else the retriever's own."""
    from ffr.retrieval.opening import open_encoder_of

    if call.encoder is not None:
        encoder = open_encoder_of(call.encoder, call.asking, policy)
    else:
        assert policy is not None
        encoder = policy
    if not encoder.takes_images and any(example.dialogue.images for example in examples):
        raise UsageError(
            f"{encoder.name} encodes texts only, and the data has pictures, "
            "whose coherence needs an encoder of both; name one with --encoder, or leave "
            "--coherence out"
        )
    return encoder


# -- output ----------------------------------------------------------------------------------------


def _data_label(call: EvalCall) -> str:
    return call.dataset + (f" ({call.split})" if call.data_split is not None else "")


def _default_out(call: EvalCall, name: str, run: Path | None = None) -> Path:
    """The output folder where none is named.

    Args:
        call: The call.
        name: What answers.
        run: The run folder, where it is a run's model.
    """
    import re

    def slug(text: str) -> str:
        return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "unnamed"

    path = Path(call.dataset)
    data = slug(path.name.partition(".")[0])
    if not path.exists():
        data = slug(call.dataset) + ("" if call.split == "val" else f"-{call.split}")
    variant = "-".join([data, *call.variant])
    return run / "eval" / variant if run is not None else Path("eval") / f"{slug(name)}-{variant}"


def _conclude(results: Results, call: EvalCall, next_command: str) -> None:
    """The last line: what came out, and what comes next.

    JSON is all there is where it is wanted.
    """
    if call.as_json:
        return
    from ffr.report.tables import headline

    say(headline(results, next_command))


def _show(results: Results, call: EvalCall, answers: Path) -> None:
    """Prints the results; the answers themselves where nothing could be scored."""
    if call.as_json:
        print_json(asdict(results))
        return
    from ffr.report.tables import print_report
    from ffr.terminal import PlainConsole

    console = PlainConsole()
    print_report(results, console, with_slices=call.slices)
    if call.corpus is not None:
        from ffr.report.archive_table import archive_line, archive_tables

        for table in archive_tables(results):
            console.print(table)
        say(archive_line(results))
    if not results.num_scored:
        from ffr.report.answered import open_evaluation
        from ffr.report.dialogue import print_answers

        print_answers(open_evaluation(answers), console)
