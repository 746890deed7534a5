"""From what is named on a command line to an archive that can be asked.

Exports are read where they changed, what is missing is made, and the model is opened.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ffr.chats.chat import Media, Message
from ffr.chats.cutting import Cutting
from ffr.chats.export_files import ExportFiles
from ffr.chats.reading import chat_streams, format_of
from ffr.chats.stream import ChatStream, ReadChoices
from ffr.corpus.adding import Added, add_chat, path_text, recut, state_of
from ffr.corpus.archive import Archive
from ffr.corpus.forgetting import finish_forgetting
from ffr.corpus.indexing import Bar, index_store
from ffr.corpus.pictures import StoredTagger
from ffr.corpus.schema import whole
from ffr.corpus.store import Store
from ffr.corpus.vectors import StoredEncoder
from ffr.embedding.interface import Encoder
from ffr.errors import DataError, UsageError
from ffr.progress import Say
from ffr.reader.model import Reader
from ffr.retrieval.interface import Retriever
from ffr.retrieval.reader import ReaderRetriever
from ffr.runs import resolve_model
from ffr.settings import AnswerConfig, kind_of
from ffr.text import address_hint, counted, one_line

DEFAULT_MODEL = "reader"


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
    source = Path(path)
    if not _is_there(source):
        raise DataError(
            f"is not there{address_hint(source)}; check the path", where=one_line(source)
        )
    before = _known(store, source)
    # what was said of an export before holds until something else is said; what was said last is
    # where a reading was broken off
    last = min(before.values(), key=lambda read: bool(read.files), default=_Read(""))
    asked = choices or ReadChoices()
    now = _Read(
        state_of(source),
        form or last.form,
        asked.date_order or last.date_order,
        asked.me or last.me,
    )
    if set(before.values()) == {now}:
        chats = tuple(before)
        changed = [
            chat.id for chat in store.chats(chats) if chat.app != _DATA and chat.cutting != cutting
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
        for stream in _streams(source, now.form, ReadChoices(now.date_order, now.me)):
            chosen = Cutting(0, 0) if stream.app == _DATA else cutting
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
            say(_summary(kept.title, kept.summary, stream, done))
            for line in stream.account.lines():
                say(f"  {line}")
        if not added:
            raise DataError("holds no chat that can be asked", where=one_line(source))
        _remember(store, source, now, [item.chat for item in added])
    return ReadExport(source, tuple(added), tuple(item.chat for item in added))


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
    said = ", ".join([f"{one_line(title, 60)}: {summary}", *stream.account.decisions])
    if done.num_known or done.num_changed:
        said += f"; {counted(done.num_new, 'new message')}"
        if done.num_changed:
            said += f", {done.num_changed:,} changed"
    return said


_DATA = "data"
_PACKED = b"\x1f\x8b"


def _streams(path: Path, form: str | None, choices: ReadChoices | None) -> Iterator[ChatStream]:
    """The chats of an export, or the dialogues of a data file as such."""
    if form is None and path.is_file():
        export = ExportFiles(path)
        head = b"" if export.is_archive else export.head(path.name)[:64]
        begins = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if begins.startswith((b"{", b"[", _PACKED)) and format_of(export) is None:
            yield from _data_streams(path)
            return
    yield from chat_streams(path, form=form, choices=choices)


def _data_streams(path: Path) -> Iterator[ChatStream]:
    from ffr.data.catalog import load_dataset

    seen: set[str] = set()
    for example in load_dataset(path, require_images=False):
        dialogue = example.dialogue
        if dialogue.fingerprint in seen:
            continue
        seen.add(dialogue.fingerprint)
        stream = ChatStream(_DATA, dialogue.id, id=dialogue.fingerprint)
        # an export's pictures are looked for beside it, wherever one stands
        locations = iter([Path(str(place)).absolute() for place in example.image_locations()])
        messages = []
        for number, line in enumerate(dialogue.utterances, 1):
            places = [next(locations) for _ in line.images]
            media = tuple(Media("picture", place.name, str(place)) for place in places)
            messages.append(
                Message(
                    stream.person(line.speaker, line.speaker),
                    line.text,
                    kind="picture" if media else "text",
                    media=media,
                    id=str(number),
                    line=number,
                )
            )
        stream.messages = iter(messages)
        yield stream


def open_archive(
    store: Store,
    model: str,
    settings: AnswerConfig,
    *,
    chats: Sequence[int] = (),
    image_model: str | None = None,
    say: Say,
    bar: Bar,
) -> Archive:
    """The store with its model, indexed.

    Args:
        store: The store.
        model: As `ffr eval --model` takes it.
        settings: How it is asked.
        chats: Those that are asked; none for all.
        image_model: As in `StoredTagger`.
        say: Gets a line where it takes long.
        bar: Shows how far it is.

    Raises:
        UsageError: where there is no such model.
        ModelError: where it cannot be loaded.
    """
    finish_forgetting(store)
    wanted = list(chats) or store.numbers()
    tagger = StoredTagger(store, image_model)
    kind = kind_of(model)
    if kind == "baseline":
        index_store(store, wanted, None, None, say=say, bar=bar)
        return Archive(store, _other(model, settings, say, bar), None, None)
    # dialogues are recalled by the reader's encoder, whatever answers inside them
    reader = Reader.load(resolve_model(model if kind == "reader" else DEFAULT_MODEL).location)
    encoder = reader_encoder(store, settings, reader)
    index_store(store, wanted, encoder, tagger, say=say, bar=bar)
    asked: Retriever
    if kind == "reader":
        asked = ReaderRetriever(reader, encoder, name=model, tagger=tagger)
    else:
        asked = _other(model, settings, say, bar)
    return Archive(
        store,
        asked,
        encoder,
        lambda queries: reader.query_vectors(queries, encoder),
        tagger.digest,
    )


def indexing_parts(
    store: Store, model: str, settings: AnswerConfig, image_model: str | None = None
) -> tuple[StoredEncoder, StoredTagger]:
    """The encoder whose vectors a store keeps for a model, and what puts its pictures into words.

    Args:
        store: The store.
        model: As in `open_archive`.
        settings: Likewise.
        image_model: Likewise.

    Raises:
        UsageError: where the model needs no vectors, or is not there.
        ModelError: where it cannot be loaded.
    """
    kind = kind_of(model)
    if kind == "baseline":
        raise UsageError(f"--model {one_line(model, 60)} needs no vectors; leave it out")
    reader = Reader.load(resolve_model(model if kind == "reader" else DEFAULT_MODEL).location)
    return reader_encoder(store, settings, reader), StoredTagger(store, image_model)


def _other(model: str, settings: AnswerConfig, say: Say, bar: Bar) -> Retriever:
    """What answers where that is no reader."""
    # with it comes transformers, which the reader does without
    from ffr.retrieval.opening import AskedData, choose_model, open_model

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
