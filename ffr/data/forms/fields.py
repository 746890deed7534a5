"""The fields that records of several forms have.

Read strictly, with what is wrong added to the findings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ffr.data.findings import FaultyError, Findings, shown
from ffr.dialogue import Example, Fragment
from ffr.errors import DataError

EXTRA_KEYS = "_extra"
"""In `Example.meta`: keys of the record that its form does not know."""
MS_SWIFT_KEYS = ("dialogue_id", "images", "messages", "solution", "meta")
RAW_KEYS = ("dialogue_id", "dialogue", "query_text", "gt_turns", "meta")
_IMAGE_KEYS = ("path", "image_url", "url")
_ROLES = ("system", "user", "assistant")


def read_meta(
    record: Mapping[str, Any], known: Sequence[str], findings: Findings
) -> dict[str, Any]:
    """What `Example.meta` keeps.

    The record's meta, and its unknown keys, each with a warning, under `EXTRA_KEYS`.
    """
    given = record.get("meta")
    meta: dict[str, Any] = dict(
        findings.require(given, dict, '"meta"', "write an object") if given is not None else {}
    )
    if EXTRA_KEYS in meta:
        findings.error(
            "reserved-key", f'"meta" has the key "{EXTRA_KEYS}", which is reserved; rename it'
        )
        raise FaultyError
    extra = {key: value for key, value in record.items() if key not in known}
    for key in extra:
        findings.unknown(key, [name for name in known if name not in record])
    if extra:
        meta[EXTRA_KEYS] = extra
    return meta


def read_id(record: Mapping[str, Any], findings: Findings, fallback_id: str) -> str:
    """The dialogue's id as a text; the fallback, with a warning, where the record has none."""
    value = record.get("dialogue_id")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        findings.warning("missing-id", f'no "dialogue_id"; {shown(fallback_id)} is used')
        return fallback_id
    text: str = findings.require(value, str, '"dialogue_id"', "write a text")
    return text


def read_images(value: Any, findings: Findings) -> list[str]:
    """The path or URL of each image, in any spelling; none where the record has no list."""
    if value is None:
        return []
    entries = findings.require(
        value, list, '"images"', 'write a list of paths, such as ["a.png", "b.png"]'
    )
    return [read_image(entry, f"image {index}", findings) for index, entry in enumerate(entries)]


def read_image(entry: Any, name: str, findings: Findings) -> str:
    """The path or URL of an image in any spelling.

    A text, {"path"}, {"url"}, {"image_url"} (a text or {"url"}).
    """
    value = entry
    if isinstance(entry, dict):
        given = [key for key in _IMAGE_KEYS if isinstance(entry.get(key), str | dict)]
        if len(given) != 1:
            keys = " or ".join(f'"{key}"' for key in _IMAGE_KEYS)
            found = f"has {len(given)} of them" if given else "has none"
            findings.error(
                "image-spelling",
                f"{name} is an object that needs one of {keys} and {found}; write its path",
            )
            raise FaultyError
        value = entry[given[0]]
        if isinstance(value, dict):
            value = value.get("url")
    source: str = findings.require(value, str, name, "write its path")
    if not source.strip() or "\0" in source:
        findings.error(
            "image-spelling", f"{name} has an empty or impossible path; write the path of a picture"
        )
        raise FaultyError
    return source


def read_messages(value: Any, findings: Findings) -> dict[str, str]:
    """The content of each role's message."""
    messages = findings.require(value, list, '"messages"', "write a list of {role, content}")
    contents: dict[str, str] = {}
    null_keys: dict[str, None] = {}
    last = -1
    for index, message in enumerate(messages):
        name = f"message {index}"
        findings.require(message, dict, name, "write {role, content}")
        if "role" not in message:
            findings.missing(message, "role", f"roles are {', '.join(_ROLES)}", name)
        role = message["role"]
        if not isinstance(role, str) or role not in _ROLES:
            findings.error(
                "role", f"{name} has the role {shown(role)}; roles are {', '.join(_ROLES)}"
            )
            raise FaultyError
        if _ROLES.index(role) <= last:
            findings.error(
                "role",
                f"{name} is a {role} message out of turn; one each of {', '.join(_ROLES)} in this "
                "order",
            )
            raise FaultyError
        last = _ROLES.index(role)
        contents[role] = findings.require_key(message, "content", str, "write a text", name)
        for key, value in message.items():
            if key in ("role", "content"):
                continue
            if value is None:
                null_keys[key] = None
            else:
                findings.error("unknown-key", f"{name} has the unknown key {shown(key)}; remove it")
    for key in null_keys:
        # tables give every message every column, and nothing is lost
        findings.warning(
            "unknown-key", f"messages have the unknown key {shown(key)}, which holds nothing"
        )
    return contents


def check_ids(
    fragment: Fragment, name: str, num_utterances: int, num_images: int, findings: Findings
) -> None:
    """Adds a finding for ids that the dialogue does not have, and for ids that repeat."""
    for word, ids, count in (
        ("utterance", fragment.utterance_ids, num_utterances),
        ("image", fragment.image_ids, num_images),
    ):
        outside = [index for index in ids if index >= count]
        if outside:
            has = f"ids 0 to {count - 1}" if count else f"no {word}"
            findings.error(
                "id-range",
                f"{name} names {word} {outside[0]} but the dialogue has {has}; correct the answer",
            )
        if len(set(ids)) < len(ids):
            findings.warning("id-repeats", f"{name} names an {word} id twice; remove the repeats")


def split_meta(example: Example) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """A copy of an example's meta without the unknown keys, and these."""
    meta = dict(example.meta)
    return meta, meta.pop(EXTRA_KEYS, {})


def with_extra(
    record: dict[str, Any], extra: Mapping[str, Any], example: Example
) -> dict[str, Any]:
    """A record with the unknown keys that were kept.

    Raises:
        DataError: where one of them means something in a form.
    """
    for key in extra:
        if key in (*MS_SWIFT_KEYS, *RAW_KEYS):
            raise DataError(
                f"the kept key {shown(key)} means something else in the form that is to be "
                "written; rename it first",
                where=f"dialogue {example.dialogue.id!r}",
            )
    return {**record, **extra}
