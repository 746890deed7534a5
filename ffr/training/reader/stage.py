"""A reader's training from its settings: encoder, vectors, reader, module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from ffr.embedding import CachedEncoder
from ffr.embedding.prefixes import trained_prefixes
from ffr.errors import UsageError
from ffr.reader.likeness import Background
from ffr.reader.model import Reader
from ffr.reader.network import NetworkShape
from ffr.runs import ModelSource, resolve_model
from ffr.settings import SCRATCH, ReaderConfig
from ffr.training.common.background import background_of, chosen_texts
from ffr.training.common.reader_items import UnitTable, check_lengths, num_units
from ffr.training.common.reader_setup import (
    open_reader,
    open_text_encoder,
    tagger_for,
)
from ffr.training.common.reader_subject import ReaderSubject
from ffr.training.common.stage import Built, Job, Stage, Start
from ffr.training.reader.data import ReaderData
from ffr.training.reader.module import ReaderModule


class ReaderStage(Stage[ReaderConfig]):
    """Training a reader on dialogues with true answers; the encoder stays as it is."""

    def choose_model(self, config: ReaderConfig, root: object) -> tuple[ReaderConfig, ModelSource]:
        """The settings, and the reader that training starts from; `scratch` is none.

        Raises:
            UsageError: where what is named is not here.
        """
        if config.model == SCRATCH:
            return config, ModelSource(SCRATCH, SCRATCH)
        return config, resolve_model(config.model)

    def rules(self, config: ReaderConfig, source: ModelSource) -> None:
        """Nothing: what is too long is found when the training is built."""

    def build(self, start: Start[ReaderConfig], job: Job) -> Built:
        config = start.config
        reader, encoder = _opened(start, job)
        check_lengths(start.train_data, config.max_units, range(len(start.train_data)))
        tagger = tagger_for(reader)
        table = UnitTable(reader, encoder, start.train_data, tagger)
        data = ReaderData(config, start.train_data, table)
        validation = None
        if start.val_data is not None:
            validated = range(min(config.val_examples, len(start.val_data)))
            check_lengths(start.val_data, config.max_units, validated)
            validation = UnitTable(reader, encoder, start.val_data, tagger)
        if not job.is_dry:
            table.fill(range(len(start.train_data)), job.say, "training data")
            if validation is not None:
                validation.fill(validated, job.say, "validation data")
            rejoined = data.rejoin()
            if rejoined is not None and rejoined.is_empty:
                raise UsageError(
                    f"setting rejoined: {config.rejoined:g} asks for new dialogues, and the data "
                    "has too few to make them of; set rejoined=0"
                )
            if config.strange_pictures and rejoined is not None and not rejoined.has_pictures:
                raise UsageError(
                    "setting strange_pictures: no picture of the data's fragments has words for what "
                    "it shows, so none can be strange; leave it out"
                )
        module = ReaderModule(
            reader,
            config,
            num_steps=data.plan.num_steps,
            fingerprints={
                **start.fingerprints,
                "model": _fingerprint(start, reader),
                "image tagger": str(tagger.digest if tagger else None),
            },
        )
        reader.settings = replace(reader.settings, has_picture_words=table.has_picture_words)
        # a reader is read to be asked, with nothing dropped
        module.model.train()
        subject = ReaderSubject(
            reader,
            validation,
            nothing_weight=config.nothing_weight,
            calibrates=True,
            picture_weight=config.picture_weight,
        )
        notes = list(_notes(start, data, reader))
        return Built(module, data, subject, callbacks=[], notes=notes, savers="batch_size")


def _opened(start: Start[ReaderConfig], job: Job) -> tuple[Reader, CachedEncoder]:
    """The reader that training starts from, and its encoder.

    Raises:
        FfrError: where one of them cannot be used.
    """
    config = start.config
    is_new = config.model == SCRATCH
    read = None if is_new else open_reader(start.source)
    name = config.encoder or ("e5" if read is None else read.settings.encoder_name)
    encoder = open_text_encoder(name, config.encoder_cache_dir, config.encoder_cache_mb)
    if encoder.takes_images:
        raise UsageError(
            f"setting encoder: {name} is an encoder of texts and pictures, and a reader takes one "
            "of sentences; name e5, minilm or the folder of such a one"
        )
    if read is not None:
        read.query_vectors([], encoder)  # refuses another encoder
        return read, encoder
    prefixes = trained_prefixes(encoder)
    try:
        shape = NetworkShape(
            **{
                field: value
                for field in ("width", "num_heads", "num_layers", "dropout")
                if (value := getattr(config, field)) is not None
            }
        )
    except ValueError as error:
        raise UsageError(f"setting width: {error}") from None
    texts = chosen_texts(start.train_data, config.seed)
    if job.is_dry:
        # of the right width, and of no other account: nothing is trained
        nowhere = torch.ones(1, 2, encoder.embed_texts([]).shape[1])
        background = Background(nowhere, nowhere)
    else:
        background = background_of(texts, encoder, prefixes)
    made = Reader.untrained(
        encoder,
        background,
        seed=config.seed,
        shape=shape,
        line_prefix=prefixes.line,
        query_prefix=prefixes.query,
    )
    return made, encoder


def _fingerprint(start: Start[ReaderConfig], reader: Reader) -> str:
    """Names the frozen weights, and of a reader that is trained further those it starts from."""
    is_new = start.config.model == SCRATCH
    return reader.settings.encoder if is_new else reader.fingerprint


def _notes(start: Start[ReaderConfig], data: ReaderData, reader: Reader) -> Iterator[str]:
    plan, examples = data.plan, start.train_data
    yield f"{plan.num_steps} optimizer steps of up to {plan.items_per_step} examples"
    if data.num_rejoined:
        yield f"{data.num_rejoined} new dialogues are made of fragments of several"
    encoder = reader.settings.encoder_name
    texts = {line.text for example in examples for line in example.dialogue.utterances}
    texts |= {example.query for example in examples}
    yield f"{len(texts)} texts have or get vectors of {encoder}, once"
    longest = max(range(len(examples)), key=lambda index: num_units(examples[index].dialogue))
    units = num_units(examples[longest].dialogue)
    yield f"longest dialogue {examples.where(longest)}: {units} utterances and pictures"
