"""The keys that records and rows have, and what others call them: `did you mean "text"?`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

LINE_COLUMNS = ("dialogue_id", "speaker", "text", "picture", "utterance_id")
"""Columns of a table of lines; the last two may be missing."""
QUERY_COLUMNS = ("dialogue_id", "query", "utterance_ids", "image_ids")
"""Columns of a table of queries; the last two may be missing."""
COLUMNS = tuple(dict.fromkeys((*LINE_COLUMNS, *QUERY_COLUMNS)))
"""Of both, each once."""

_CALLED = {
    "dialogue_id": "id dialog_id conversation_id session_id chat_id thread_id dialogue chat",
    "dialogue": "dialog dialogues conversation conversations turns utterances lines chat",
    "messages": "message",
    "speaker": "role from sender sender_name author user username name from_name who",
    "utterance": "text content message body said value msg sentence",
    "utterance_idx": "utterance_id id index idx turn turn_id",
    "query_text": "query queries question questions topic query_texts",
    "gt_turns": "turns answer answers utterance_ids utterances labels gt ground_truth relevant",
    "role": "from speaker author",
    "content": "value text message",
    "solution": "answer label labels gt ground_truth",
    "images": "image pictures image_urls image_paths picture",
    "image_url": "image img file picture filename src",
    "text": "utterance content message body said value msg sentence",
    "picture": "image images image_path image_url photo file media picture_path",
    "utterance_id": "utterance_idx turn turn_id line line_id message_id",
    "query": "query_text question topic",
    "utterance_ids": "gt_turns turns answer answers utterances labels lines relevant",
    "image_ids": "images pictures",
    "response": "prediction answer output completion generated_text",
    "labels": "label solution reference target",
}
"""For each key, what it is called elsewhere, the likeliest first."""
_TAKEN_FOR = {
    "dialogue_id": "dialogue dialog dialog_id conversation conversation_id chat chat_id session_id "
    "thread_id",
    "speaker": "author sender sender_name from from_name user username role who",
    "text": "utterance message content body msg sentence said",
    "picture": "image image_path image_url photo picture_path",
    "utterance_id": "utterance_idx line_id message_id turn_id",
    "query": "query_text question",
    "utterance_ids": "gt_turns answer answers labels relevant relevant_ids",
    "image_ids": "picture_ids",
}
"""What a column of a table is taken for without being asked; the others above are asked about."""
_MAX_KEY_CHARS = 50  # a longer key is like none, and comparing it takes long


def other_name(wanted: str, given: Iterable[str]) -> str | None:
    """The key among those given that most likely is another name of the one that is wanted.

    >>> other_name("utterance", ["speaker", "text"]), other_name("speaker", ["speeker", "text"])
    ('text', 'speeker')
    """
    short = [key for key in given if len(key) <= _MAX_KEY_CHARS]
    lowered = {key.lower(): key for key in reversed(short)}
    if found := next((name for name in _spellings(wanted) if name in lowered), None):
        return lowered[found]
    return next(iter(difflib.get_close_matches(wanted, short, 1, 0.75)), None)


def meant_key(given: str, wanted: Sequence[str]) -> str | None:
    """The key among those wanted that a given one most likely is another name of.

    >>> meant_key("answer", ["query_text", "gt_turns"]), meant_key("mood", ["gt_turns"])
    ('gt_turns', None)
    """
    return next((key for key in wanted if other_name(key, [given])), None)


def columns_taken(given: Iterable[str], wanted: Sequence[str]) -> dict[str, str]:
    """The columns that stand under another name, by the names that are wanted.

    Only what one column alone can be is taken for it; where two are called like it, none is.

    Args:
        given: The columns of a table.
        wanted: The columns that mean something there.

    >>> columns_taken(["Dialogue", "author", "text"], ["dialogue_id", "speaker", "text"])
    {'dialogue_id': 'Dialogue', 'speaker': 'author'}
    >>> columns_taken(["author", "sender"], ["speaker"])
    {}
    """
    others = [key for key in given if key not in wanted and len(key) <= _MAX_KEY_CHARS]
    found: dict[str, str] = {}
    for name in wanted:
        names = {name, *_TAKEN_FOR.get(name, "").split()}
        alike = [key for key in others if key.lower() in names]
        if name not in given and len(alike) == 1:
            found[name] = alike[0]
    return found


def _spellings(wanted: str) -> list[str]:
    return [wanted, *_CALLED.get(wanted, "").split()]
