"""`ffr eval --segmentation`: dialogues cut into segments, held against true ones."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ffr.cli.output import print_json, progress_bar
from ffr.errors import UsageError
from ffr.progress import Say

if TYPE_CHECKING:
    from ffr.cli.eval_options import EvalCall
    from ffr.evaluation.segmentation import SegmentationResults
    from ffr.retrieval.segmentation import Segmenter


def measure_segmentation(call: EvalCall, method: str, folder: Path, say: Say) -> None:
    """Cuts the dialogues of the data, writes `segmentation.json` and prints the figures.

    Args:
        call: The call.
        method: `vectors`, `whole`, `every-10`, or `model` for the one of the call.
        folder: Where the results go.
        say: Gets what is told beside them.

    Raises:
        UsageError: where the model cannot be asked for segments.
        DataError: where no dialogue tells its segments.
    """
    from ffr.data.catalog import load_dataset
    from ffr.evaluation.segmentation import evaluate_segmentation, true_segments
    from ffr.provenance import command, now, versions

    data = load_dataset(
        call.dataset,
        split=call.split,
        image_root=call.image_root,
        skip_bad=call.skip_bad,
        require_images=method == "model",
        echo=say,
    )
    truth = true_segments(data)
    segmenter = _segmenter(call, method, say)
    say(f"Segments by {segmenter.name}. {truth.words}")
    of_data = {
        "dataset": call.dataset,
        "split": call.data_split,
        "fingerprint": data.fingerprint,
        "num_left_out": data.num_left_out,
    }
    started = now()
    results = evaluate_segmentation(truth, segmenter, data=of_data, seed=call.seed)
    results.provenance = {
        "command": command(),
        "started_at": started,
        "finished_at": now(),
        "versions": versions(),
    }
    path = results.save(folder)
    if call.as_json:
        print_json(asdict(results))
    else:
        _print(results, say)
    say(f"Results: {path}")


def _segmenter(call: EvalCall, method: str, say: Say) -> Segmenter:
    from ffr.retrieval.segmentation import EverySegmenter, ModelSegmenter

    if method in ("whole", "every-10"):
        return EverySegmenter(10 if method == "every-10" else None)
    if method == "vectors":
        from ffr.corpus.opening import DEFAULT_MODEL
        from ffr.corpus.segmentation import VectorSegmenter
        from ffr.reader.model import Reader
        from ffr.retrieval.opening import open_encoder_of
        from ffr.runs import resolve_model

        chosen = Reader.load(resolve_model(DEFAULT_MODEL).location).settings
        encoder = open_encoder_of(chosen.encoder_name, call.asking)
        return VectorSegmenter(encoder, chosen.line_prefix)
    from ffr.retrieval.opening import AskedData, choose_model, open_model

    if call.kind not in ("vlm", "api"):
        raise UsageError(
            "--segmentation model asks a model that reads prompts; name one with --model: a "
            "vision-language model or api:URL#MODEL"
        )
    choice = choose_model(call.model)
    opened = open_model(
        choice, call.asking, name=choice.name, trust_remote_code=call.trust_remote_code
    )
    asked = AskedData((), call.dataset, call.data_split)
    retriever = opened.retriever(
        asked, call.asking, say=say, progress=lambda size: progress_bar(False, "fitted", size)
    )
    return ModelSegmenter(retriever)


def _print(results: SegmentationResults, say: Say) -> None:
    from ffr.text import counted

    for name, value in results.figures.items():
        ends = results.intervals[name]
        sure = "" if ends is None else f"  [{ends[0]:.3f}, {ends[1]:.3f}]"
        say(f"{name:<17} {'none' if value is None else f'{value:.3f}'}{sure}")
    counts = results.counts
    say(
        f"{counted(counts['num_segments'], 'segment')} of {counted(counts['num_lines'], 'line')}; "
        f"true: {counts['num_true_segments']}"
    )
    wrong = {name: counts[f"num_{name}"] for name in ("missing", "extra", "doubled", "failed")}
    if any(wrong.values()):
        say(
            f"Repaired: {counted(wrong['missing'], 'line')} in no list, "
            f"{counted(wrong['extra'], 'id')} of no line, {counted(wrong['doubled'], 'line')} in "
            f"two lists, {counted(wrong['failed'], 'dialogue')} without an answer"
        )
