"""A sentence encoder's training from its settings to a run folder, resumable, and its description.

InfoNCE (van den Oord et al. 2018) over the texts of a batch: with s the cosine, τ the temperature,
q a query, p its fragment and C all fragments of the batch with their hard negatives,

    loss = −log( exp(s(q, p) / τ) / Σ_{c in C} exp(s(q, c) / τ) )

by `MultipleNegativesRankingLoss` of sentence-transformers, in batches in which no text comes twice.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ffr.data.dataset import ExampleDataset
from ffr.embedding import SentenceEncoder, load_encoder, load_sentence_encoder
from ffr.embedding.loading import encoder_folder
from ffr.embedding.prefixes import trained_prefixes
from ffr.errors import DataError, UsageError
from ffr.files import replace_text, replaced_folder, write_checksums
from ffr.reader.background_file import BACKGROUND_FILE, write_background
from ffr.run_log import METRICS_FILE, draw_curve, last_figures, read_metrics
from ffr.runs import ENCODER, ModelSource, RunRecord, Status
from ffr.settings import EmbeddingConfig, to_yaml
from ffr.text import counted
from ffr.training.common.background import background_of, chosen_texts
from ffr.training.common.data import load_data
from ffr.training.common.recipe import model_name
from ffr.training.common.run import (
    TrainResult,
    check_resumed,
    configuration_of,
    kept_record,
    run_folder,
    with_absolute_paths,
)
from ffr.training.common.setup import prepare_process
from ffr.training.common.stage import Job
from ffr.training.embedding.card import encoder_card
from ffr.training.embedding.following import Following, newest_checkpoint
from ffr.training.embedding.pairs import QUERIES, Pairs, pairs_of

_CHECKPOINTS = "checkpoints"
_USUAL_LINES, _USUAL_QUERIES = 1_500, 500
"""Of each language: averages of them tell what lies close to anything."""


@dataclass(frozen=True)
class _Start:
    """What a training starts from, all of it checked."""

    config: EmbeddingConfig
    source: ModelSource
    data: tuple[ExampleDataset, ExampleDataset | None]
    pairs: Pairs
    val_pairs: Pairs | None
    encoder: SentenceEncoder
    strangers: list[tuple[list[str], list[str]]]
    configuration: str


def train(config: EmbeddingConfig, job: Job) -> TrainResult:
    """Trains from settings to a run folder with an encoder, and keeps the run's record true.

    Args:
        config: The settings.
        job: Folder, record and voice.

    Raises:
        FfrError: for anything wrong with settings, data or encoder.
    """
    start = _started(config, job)
    config = start.config
    name = model_name(start.source)
    with run_folder(job.run, job.root, config.stage, name, resume=job.resume) as run:
        job.say(
            f"Training {start.source.label} on {counted(len(start.pairs.queries), 'query', 'queries')} → {run}"
        )
        with kept_record(
            run,
            config,
            start.source,
            start.data,
            configuration=start.configuration,
            resume=job.resume,
            recipe=job.recipe,
        ) as record:
            record.status, record.results = _fit(start, run, record, job)
    return TrainResult(run, record.status, record.results)


def describe(config: EmbeddingConfig, job: Job) -> None:
    """Says what a training would do, without doing it (`--dry-run`).

    Raises:
        FfrError: for whatever would stop it at its start.
    """
    start = _started(config, job)
    if job.run is not None and job.resume:
        val = start.data[1]
        check_resumed(job.run, start.data[0].fingerprint, "" if val is None else val.fingerprint)
    num_rows = len(start.pairs.queries)
    job.say(f"Would train {start.source.label} on {config.dataset} ({num_rows} queries)")
    job.say(f"data fingerprint {start.data[0].fingerprint[:16]}")
    job.say(to_yaml(start.config).rstrip())


def _started(config: EmbeddingConfig, job: Job) -> _Start:
    if importlib.util.find_spec("sentence_transformers") is None:
        raise UsageError(
            "sentence-transformers is not installed here; pip install 'ffr-vlm[embedding]'"
        )
    prepare_process(config)
    config = with_absolute_paths(config)
    # our own door: it reads safetensors alone, and knows what it does not know
    encoder = load_encoder(config.model)
    if not isinstance(encoder, SentenceEncoder) or encoder.is_lowered:
        raise UsageError(
            f"{config.model} is no sentence encoder that can be trained here; name e5, minilm or "
            "the folder of one that does not lower its texts"
        )
    train_data, val_data = load_data(config, job.say)
    pairs = pairs_of(train_data, config.hard_negatives, config.seed)
    strangers = [
        (lines[:_USUAL_LINES], queries[:_USUAL_QUERIES])
        for lines, queries in _strangers(train_data, pairs, config)
    ]
    val_pairs = None
    if val_data is not None and config.val_examples:
        val_pairs = _first(
            pairs_of(val_data, config.hard_negatives, config.seed), config.val_examples
        )
    for what, found in (("training", pairs), ("validation", val_pairs)):
        if found is not None:
            _say_counts(found, what, job)
    configuration = configuration_of(config, job.run if job.resume else None)
    source = ModelSource(str(encoder_folder(config.model) or config.model), config.model)
    data = (train_data, val_data)
    return _Start(config, source, data, pairs, val_pairs, encoder, strangers, configuration)


def _strangers(
    data: ExampleDataset, pairs: Pairs, config: EmbeddingConfig
) -> list[tuple[list[str], list[str]]]:
    """Lines and queries of each language of the data, by which it is known what is usual.

    Raises:
        DataError: where the data has too few for that, or to learn anything.
    """
    if len(set(pairs.queries)) < 2:
        raise DataError(
            "holds fewer than two queries whose fragments have words; an encoder learns from "
            "telling them apart",
            where=config.dataset,
        )
    return chosen_texts(list(data), config.seed)


def _first(pairs: Pairs, num_rows: int) -> Pairs | None:
    if len(pairs.queries) < 2:
        return None
    return replace(
        pairs,
        queries=pairs.queries[:num_rows],
        positives=pairs.positives[:num_rows],
        negatives=pairs.negatives[:num_rows],
    )


def _say_counts(pairs: Pairs, what: str, job: Job) -> None:
    if pairs.num_left_out:
        job.say(
            f"{what}: {counted(pairs.num_left_out, 'query', 'queries')} without an answer in words "
            "left out"
        )
    if pairs.num_from_elsewhere:
        job.say(
            f"{what}: {counted(pairs.num_from_elsewhere, 'query', 'queries')} on dialogues of one "
            "fragment have hard negatives out of other dialogues"
        )


def _fit(start: _Start, run: Path, record: RunRecord, job: Job) -> tuple[Status, dict[str, float]]:
    checkpoint, last_step = None, 0
    if job.resume:
        checkpoint, last_step = newest_checkpoint(run / _CHECKPOINTS, job.say)
        job.say(
            f"going on after step {last_step}"
            if checkpoint
            else "no checkpoint yet: starting again"
        )
    following = Following(run, last_step, job.say)
    with _quietly():
        trainer, model = _trainer(start, run, following, job)
        try:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        finally:
            following.restore_handlers()
    metrics = run / METRICS_FILE
    figures = last_figures(read_metrics(metrics))
    if following.was_interrupted:
        return "interrupted", figures
    num_texts = sum(len(texts) for group in start.strangers for texts in group)
    job.say(f"Embedding {num_texts:,} lines and queries of the data: what is usual to the encoder")
    _save(start, model, run, record, figures)
    draw_curve(
        metrics,
        run / "curve.png",
        title=run.name,
        curves={"loss": "-", "val_loss": "o-"},
        label="InfoNCE per query",
    )
    return "finished", figures


def _trainer(start: _Start, run: Path, following: Following, job: Job) -> tuple[Any, Any]:
    """The trainer of sentence-transformers, and the model that it trains."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.base.sampler import BatchSamplers
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    config = start.config
    model = _sentence_transformer(start)
    scale = 1 / config.temperature
    loss = (
        MultipleNegativesRankingLoss(model, scale=scale)
        if config.pass_texts is None
        else CachedMultipleNegativesRankingLoss(
            model, scale=scale, mini_batch_size=config.pass_texts
        )
    )
    per_step = config.batch_size * config.accumulate
    num_steps = config.max_steps or max(
        1, round(config.epochs * len(start.pairs.queries) / per_step)
    )
    has_gpu = config.accelerator != "cpu" and torch.cuda.is_available()
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(run / _CHECKPOINTS),
        prompts=_prompts(start),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_share,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=has_gpu and config.precision != "fp32",
        use_cpu=not has_gpu,
        seed=config.seed,
        data_seed=config.seed,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        eval_strategy="no" if start.val_pairs is None else "steps",
        eval_steps=config.val_every_steps or max(1, -(-num_steps // 4)),
        save_steps=config.checkpoint_every_steps,
        save_total_limit=config.keep_checkpoints,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=config.report_to,
        run_name=run.name,
        disable_tqdm=not job.progress,
    )

    class Trainer(SentenceTransformerTrainer):  # type: ignore[misc]
        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """Nothing: the card is ours, and theirs shows a bar for its examples."""

    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(start.pairs.columns),
        eval_dataset=None
        if start.val_pairs is None
        else Dataset.from_dict(start.val_pairs.columns),
        loss=loss,
        callbacks=[following],
    )
    trainer.remove_callback(PrinterCallback)
    if not job.progress:
        trainer.remove_callback(ProgressCallback)
    return trainer, model


def _prompts(start: _Start) -> dict[str, str]:
    """What stands before the texts of each column."""
    prefixes = trained_prefixes(start.encoder)
    return {
        name: prefixes.query if name == QUERIES else prefixes.line for name in start.pairs.columns
    }


def _sentence_transformer(start: _Start) -> Any:
    """The encoder as sentence-transformers has it, out of the parts that were checked."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import (
        Normalize,
        Pooling,
        Transformer,
    )

    encoder = start.encoder
    torch.manual_seed(start.config.seed)
    prefixes = trained_prefixes(encoder)
    words = Transformer(start.source.location)
    words.max_seq_length = min(start.config.max_text_tokens, encoder.max_text_tokens)
    pooling = Pooling(int(encoder.model.config.hidden_size), encoder.pooling)
    return SentenceTransformer(
        modules=[words, pooling, Normalize()],
        device="cpu",
        prompts={"query": prefixes.query, "document": prefixes.line},
    )


def _save(
    start: _Start, model: Any, run: Path, record: RunRecord, figures: dict[str, float]
) -> None:
    """Writes the encoder into the run's folder, whole or not at all, with its card and background."""
    # training may have cut texts that the encoder itself takes whole
    model.max_seq_length = start.encoder.max_text_tokens
    prefixes = trained_prefixes(start.encoder)
    num_rows = len(start.pairs.queries)
    card = encoder_card(run.name, start.config, start.source, record, prefixes, num_rows, figures)
    with _quietly(), replaced_folder(run / ENCODER) as scratch:
        model.save_pretrained(str(scratch), create_model_card=False)
        made = load_sentence_encoder(scratch)
        background = background_of(start.strangers, made, prefixes)
        write_background(scratch, background, made.weights_digest)
        replace_text(scratch / "README.md", card)
        write_checksums(
            scratch,
            [
                "config.json",
                "config_sentence_transformers.json",
                "model.safetensors",
                "tokenizer.json",
                BACKGROUND_FILE,
            ],
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps the libraries' bars and remarks away from ours."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(before)
        transformers_logging.enable_progress_bar()
