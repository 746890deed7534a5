"""From what is named on a command line to an archive that can be asked.

Exports are read where they changed, what is missing is made, and the model is opened.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ffr.chats.cutting import Cutting
from ffr.chats.stream import ChatStream, ReadChoices
from ffr.corpus.adding import Added, add_chat, path_text, recut
from ffr.corpus.archive import Archive
from ffr.corpus.forgetting import finish_forgetting
from ffr.corpus.indexing import Bar, index_store
from ffr.corpus.pictures import StoredTagger
from ffr.corpus.schema import whole
from ffr.corpus.sealing import seal_if_broken
from ffr.corpus.store import Store
from ffr.corpus.vectors import StoredEncoder, is_any_kept, weights_of
from ffr.corpus.ways import WAYS
from ffr.embedding.interface import Encoder
from ffr.embedding.prefixes import trained_prefixes
from ffr.errors import DataError, UsageError
from ffr.progress import Say
from ffr.reader.background_file import read_background
from ffr.reader.likeness import Background
from ffr.reader.model import Reader
from ffr.reader.query import plain_words
from ffr.retrieval.interface import Retriever
from ffr.retrieval.reader import ReaderRetriever
from ffr.runs import resolve_model
from ffr.settings import AnswerConfig, kind_of
from ffr.text import address_hint, counted, one_line

DEFAULT_MODEL = "reader"

NO_MODEL = "none"
"""In a model's place: what recall found is given as it is."""


@dataclass(frozen=True, slots=True)
class ReadExport:
    """What came of reading an export into a store.

    Args:
        path: The export.
        added: For each of its chats, what is new; nothing where the export has not changed.
        chats: The numbers of its chats.
    """

    path: Path
    added: tuple[Added, ...]
    chats: tuple[int, ...]


def read_export(
    store: Store,
    path: str | Path,
    cutting: Cutting,
    *,
    form: str | None = None,
    choices: ReadChoices | None = None,
    say: Say,
    bar: Bar,
) -> ReadExport:
    """Reads an export into a store, where it is not there as it is.

    Args:
        store: The store.
        path: A chat export of any form, or an FFR data file, whose dialogues become chats.
        cutting: How chats are cut into dialogues; those of a data file are not.
        form: As in `chat_streams`.
        choices: Likewise.
        say: Gets the summary of each chat, and what was not understood.
        bar: Shows how far it is.

    Raises:
        DataError: where there is no chat in it.
        UsageError: where it must be read and another process writes.
    """
    # what reads every app is not needed for a question
    from ffr.corpus.sources import DATA, streams_of

    source = Path(path)
    if not _is_there(source):
        raise DataError(
            f"is not there{address_hint(source)}; check the path", where=one_line(source)
        )
    if ".." in source.parts:
        # one export is one, from whichever folder it is named
        source = source.resolve()
    before = _known(store, source)
    # what was said of an export before holds until something else is said; what was said last is
    # where a reading was broken off
    last = min(before.values(), key=lambda read: bool(read.files), default=_Read(""))
    asked = choices or ReadChoices()
    now = _Read(
        _state_of(source),
        form or last.form,
        asked.date_order or last.date_order,
        asked.me or last.me,
    )
    if set(before.values()) == {now}:
        chats = tuple(before)
        changed = [
            chat.id for chat in store.chats(chats) if chat.app != DATA and chat.cutting != cutting
        ]
        if changed:
            with store.writing():
                for chat in changed:
                    recut(store, chat, cutting)
        return ReadExport(source, (), chats)
    # dates that were read another way name other messages
    is_corrected = any(read.date_order != now.date_order for read in before.values())
    added: list[Added] = []
    with store.writing(), bar(f"reading {one_line(source.name, 40)}", 0) as progress:
        for stream in streams_of(source, now.form, ReadChoices(now.date_order, now.me)):
            chosen = Cutting(0, 0) if stream.app == DATA else cutting
            done = add_chat(
                store,
                stream,
                source,
                chosen,
                state=dataclasses.replace(now, files="").state,
                is_corrected=is_corrected,
                progress=lambda number: progress(number, None),
            )
            added.append(done)
            (kept,) = store.chats([done.chat])
            say(_summary(kept.called(60), kept.summary, stream, done))
            for line in stream.account.lines():
                say(f"  {line}")
        if not added:
            raise DataError("holds no chat that can be asked", where=one_line(source))
        _remember(store, source, now, [item.chat for item in added])
    return ReadExport(source, tuple(added), tuple(item.chat for item in added))


def _state_of(path: Path) -> str:
    """What tells that an export has not changed: sizes and times of its files.

    Raises:
        DataError: where it cannot be looked at, or is neither a file nor a folder.
    """
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            return f"{status.st_size} {status.st_mtime_ns}"
        if not stat.S_ISDIR(status.st_mode):
            raise DataError(
                "is neither a file nor a folder; save it as a file first", where=one_line(path)
            )
        seen = hashlib.sha256()
        for found in sorted(path.rglob("*")):
            # what goes away meanwhile is not there
            with suppress(FileNotFoundError):
                if found.is_file():
                    status = found.stat()
                    line = f"{found.relative_to(path)} {status.st_size} {status.st_mtime_ns}\n"
                    seen.update(line.encode(errors="replace"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"cannot be looked at ({reason})", where=one_line(path)) from error
    return seen.hexdigest()


_LEFT = "left"


@dataclass(frozen=True, slots=True)
class _Read:
    """How an export was, and was read.

    Args:
        files: Sizes and times of its files; "" where it was not read to its end.
        form: What was said of its form.
        date_order: What was said of its days and months.
        me: Whose it was said to be.
    """

    files: str
    form: str | None = None
    date_order: str | None = None
    me: str | None = None

    @property
    def state(self) -> str:
        """As the database keeps it."""
        return json.dumps(dataclasses.astuple(self))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, or in a folder that may not be entered
        return False


def _known(store: Store, source: Path) -> dict[int, _Read]:
    """How an export was read, by the numbers of its chats."""
    rows = store.rows(
        "SELECT chat, state FROM sources WHERE path = ? AND state != ? ORDER BY chat",
        [path_text(source), _LEFT],
    )
    return {row["chat"]: _read_of(row["state"]) for row in rows}


def _read_of(state: str) -> _Read:
    try:
        return _Read(*json.loads(state))
    except (ValueError, TypeError):
        return _Read("")  # kept by an earlier ffr


def _remember(store: Store, source: Path, read: _Read, chats: Sequence[int]) -> None:
    """Notes that an export was read to its end, and which chats it has no longer."""
    path = path_text(source)
    with whole(store.database):
        store.database.execute("UPDATE sources SET state = ? WHERE path = ?", [_LEFT, path])
        store.database.executemany(
            "UPDATE sources SET state = ? WHERE path = ? AND chat = ?",
            [(read.state, path, chat) for chat in chats],
        )


def _summary(title: str, summary: str, stream: ChatStream, done: Added) -> str:
    said = ", ".join([f"{title}: {summary}", *stream.account.decisions])
    if done.num_known or done.num_changed:
        said += f"; {counted(done.num_new, 'new message')}"
        if done.num_changed:
            said += f", {done.num_changed:,} changed"
    return said


def open_archive(
    store: Store,
    model: str,
    settings: AnswerConfig,
    *,
    chats: Sequence[int] = (),
    encoder: str | None = None,
    has_vectors: bool = False,
    ways: Sequence[str] = WAYS,
    image_model: str | None = None,
    say: Say,
    bar: Bar,
) -> Archive:
    """The store with its model, indexed.

    Args:
        store: The store.
        model: As `ffr eval --model` takes it; `none` asks nobody.
        settings: How it is asked.
        chats: Those that are asked; none for all.
        encoder: Whose vectors recall dialogues, as `ffr.encoders` takes it; None for the reader's.
        has_vectors: Whether an encoder is refused of which the store has no vector yet.
        ways: Those that are going to be asked for: without vectors none are made.
        image_model: As in `StoredTagger`.
        say: Gets a line where it takes long.
        bar: Shows how far it is.

    Raises:
        UsageError: where there is no such model or encoder, or it has no vectors here.
        ModelError: where it cannot be loaded.
    """
    finish_forgetting(store)
    wanted = list(chats) or store.numbers()
    tagger = StoredTagger(store, image_model)
    kind = NO_MODEL if model == NO_MODEL else kind_of(model)
    is_words_alone = kind == NO_MODEL and set(ways) == {"words"}
    if (kind == "baseline" or is_words_alone) and encoder is None:
        index_store(store, wanted, None, None, say=say, bar=bar)
        seal_if_broken(store)
        return Archive(
            store, None if kind == NO_MODEL else _other(model, settings, say, bar), None, None
        )
    # dialogues are recalled by the reader's encoder if no other is named, whatever answers in them
    reader = Reader.load(resolve_model(model if kind == "reader" else DEFAULT_MODEL).location)
    reader.freeze()
    own = reader_encoder(store, settings, reader)
    is_own = encoder in (None, reader.settings.encoder_name)
    recalling = own if is_own else named_encoder(store, settings, str(encoder))
    # what is usual among strangers, by which a query is held against many dialogues
    background = reader.background if is_own else _background_of(recalling)
    if has_vectors and not recalling.has_vectors and is_any_kept(store):
        raise UsageError(
            f"{store.place} has no vectors of {recalling.name}; make them with "
            f"`ffr index add --encoder {recalling.name}`, or leave --encoder out"
        )
    if is_own or kind == "reader":
        index_store(store, wanted, own, tagger, say=say, bar=bar)
    if not is_own:
        index_store(store, wanted, recalling, tagger, say=say, bar=bar)
    seal_if_broken(store)
    asked: Retriever | None = None
    if kind == "reader":
        asked = ReaderRetriever(reader, own, name=model, tagger=tagger)
    elif kind != NO_MODEL:
        asked = _other(model, settings, say, bar)

    def query_vectors(queries: Sequence[str]) -> Tensor:
        if is_own:
            return reader.recall_vectors(queries, own)
        plain = [plain_words(query) for query in queries]
        vectors = recalling.embed_texts(trained_prefixes(recalling.encoder).of_queries(plain))
        return vectors if background is None else background.across_dialogues(vectors)

    usual = None if background is None else background.usual_queries
    return Archive(store, asked, recalling, query_vectors, tagger.digest, usual)


def named_encoder(store: Store, settings: AnswerConfig, name: str) -> StoredEncoder:
    """An encoder of any name, whose vectors a store keeps; before its lines stands what it was trained with.

    Args:
        store: The store.
        settings: Device of the encoder.
        name: As `ffr.encoders.open_encoder` takes it.

    Raises:
        UsageError: where there is no such encoder.
        ModelError: where it cannot be loaded.
    """
    from ffr.retrieval.opening import open_encoder_of

    opened = open_encoder_of(name, settings)
    return StoredEncoder(
        store,
        lambda: opened,
        name=name,
        weights_digest=weights_of(opened),
        line_prefix=trained_prefixes(opened).line,
        takes_images=opened.takes_images,
    )


def _background_of(encoder: StoredEncoder) -> Background | None:
    """What lies beside the weights of an encoder that was trained; None where nothing does."""
    from ffr.embedding.loading import encoder_folder

    folder = encoder_folder(encoder.name)
    return None if folder is None else read_background(folder, encoder.weights_digest)


def indexing_parts(
    store: Store,
    model: str,
    settings: AnswerConfig,
    *,
    encoder: str | None = None,
    image_model: str | None = None,
) -> tuple[StoredEncoder, StoredTagger]:
    """The encoder whose vectors a store keeps for a model, and what puts its pictures into words.

    Args:
        store: The store.
        model: As in `open_archive`.
        settings: Likewise.
        encoder: Likewise.
        image_model: Likewise.

    Raises:
        UsageError: where the model needs no vectors, or is not there.
        ModelError: where it cannot be loaded.
    """
    kind = NO_MODEL if model == NO_MODEL else kind_of(model)
    if kind == "baseline" and encoder is None:
        raise UsageError(f"--model {one_line(model, 60)} needs no vectors; leave it out")
    reader = Reader.load(resolve_model(model if kind == "reader" else DEFAULT_MODEL).location)
    reader.freeze()
    is_own = encoder in (None, reader.settings.encoder_name)
    found = (
        reader_encoder(store, settings, reader)
        if is_own
        else named_encoder(store, settings, str(encoder))
    )
    return found, StoredTagger(store, image_model)


def _other(model: str, settings: AnswerConfig, say: Say, bar: Bar) -> Retriever:
    """What answers where that is no reader."""
    # with it comes transformers, which the reader does without
    from ffr.retrieval.fitting import AskedData
    from ffr.retrieval.opening import choose_model, open_model

    choice = choose_model(model)
    opened = open_model(choice, settings, name=choice.name)
    asked = AskedData((), "the chats", None)
    return opened.retriever(asked, settings, say=say, progress=lambda size: bar("fitting", size))


def reader_encoder(
    store: Store, settings: AnswerConfig, reader: Reader | None = None
) -> StoredEncoder:
    """The encoder of a reader, whose vectors a store keeps.

    Args:
        store: The store.
        settings: Device and cache of the encoder.
        reader: The reader; None for the one that comes with ffr.
    """
    if reader is None:
        reader = Reader.load(resolve_model(DEFAULT_MODEL).location)
    chosen = reader.settings

    def load() -> Encoder:
        from ffr.retrieval.opening import open_encoder_of

        return open_encoder_of(chosen.encoder_name, settings)

    return StoredEncoder(
        store,
        load,
        name=chosen.encoder_name,
        weights_digest=chosen.encoder,
        line_prefix=chosen.line_prefix,
    )
