"""Records of the ms-swift form, one example each: read and made.

What a record says beyond its form's keys is kept in `Example.meta` (unknown keys under
`EXTRA_KEYS`), so that making a record of an example gives back what was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ffr.answer import format_answer, parse_strict
from ffr.data.findings import FaultyError, Findings, all_texts, shown
from ffr.data.forms.fields import (
    MS_SWIFT_KEYS,
    check_ids,
    read_id,
    read_images,
    read_messages,
    read_meta,
    split_meta,
    with_extra,
)
from ffr.dialogue import Dialogue, Example, FilePrompt, Fragment, Image
from ffr.errors import DataError
from ffr.prompt import QueryPosition, parse_user_prompt, render
from ffr.text import counted

CAPTIONS = "image_captions"
"""In the meta of ms-swift records: entry i is the caption of image i; absent where no image has
one."""


def read_ms_swift(
    record: Mapping[str, Any], findings: Findings, fallback_id: str, root: Path | None
) -> Example:
    """The example of a record; raises FaultyError where a part cannot be read any further."""
    if "response" in record:
        findings.error(
            "prediction",
            'the record has a "response": a prediction file; use it with `ffr eval --predictions`',
        )
        raise FaultyError
    meta = read_meta(record, MS_SWIFT_KEYS, findings)
    dialogue_id = read_id(record, findings, fallback_id)
    sources = read_images(record.get("images"), findings)
    captions = meta.pop(CAPTIONS, None)
    if captions is None:
        captions = [""] * len(sources)
    elif not isinstance(captions, list) or len(captions) != len(sources) or not all_texts(captions):
        findings.error(
            "wrong-type",
            f"meta {CAPTIONS} is not a list of {counted(len(sources), 'text')}, one an image; "
            "correct it",
        )
        raise FaultyError
    images = tuple(map(Image, sources, captions))
    contents = read_messages(record["messages"], findings)
    if "user" not in contents:
        findings.error("no-prompt", "messages have no user message; it holds the prompt")
        raise FaultyError
    try:
        query, utterances = parse_user_prompt(contents["user"], images)
    except DataError as error:
        findings.error("prompt", error.message)
        raise FaultyError from error
    fragment = _read_answers(
        record, contents.get("assistant"), len(utterances), len(images), findings
    )
    return Example(
        dialogue=Dialogue(dialogue_id, utterances),
        query=query,
        fragment=fragment,
        prompt=FilePrompt(user=contents["user"], system=contents.get("system")),
        image_root=root,
        meta=MappingProxyType(meta),
    )


def _read_answers(
    record: Mapping[str, Any],
    assistant: str | None,
    num_utterances: int,
    num_images: int,
    findings: Findings,
) -> Fragment | None:
    given: dict[str, Fragment] = {}
    if (solution := record.get("solution")) is not None:
        text = findings.require(solution, str, '"solution"', "write the answer as a text")
        given['"solution"'] = _read_answer(text, '"solution"', num_utterances, num_images, findings)
    if assistant is not None:
        given["the assistant's answer"] = _read_answer(
            assistant, "the assistant's answer", num_utterances, num_images, findings
        )
    if not given:
        return None
    fragments = list(given.values())
    if fragments[0] != fragments[-1]:
        findings.error(
            "two-answers", '"solution" and the assistant\'s answer differ; keep the right one'
        )
    return fragments[0]


def _read_answer(
    text: str, name: str, num_utterances: int, num_images: int, findings: Findings
) -> Fragment:
    fragment = parse_strict(text)
    if fragment is None:
        findings.error(
            "answer-format",
            f"{name} is {shown(text)}, not in the answer format; write "
            f"{format_answer(Fragment((0,), ()))}",
        )
        raise FaultyError
    check_ids(fragment, name, num_utterances, num_images, findings)
    return fragment


def example_to_record(
    example: Example, *, template: str = "zh", query_position: QueryPosition = "first"
) -> dict[str, Any]:
    """An example as a record of the ms-swift form, with its own prompt where it has one.

    Raises:
        DataError: where a text holds a marker, or a kept key collides with one of the form.

    >>> from ffr.dialogue import Utterance
    >>> chat = Dialogue("d1", (Utterance("a", ("hi",)),))
    >>> record = example_to_record(Example(chat, "greeting", Fragment((0,), ())), template="en")
    >>> record["solution"]
    '<|utt_ids_start|>[0]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>'
    >>> [message["role"] for message in record["messages"]]
    ['system', 'user', 'assistant']
    """
    prompt = example.prompt or render(
        example.dialogue, example.query, template=template, query_position=query_position
    )
    messages = [{"role": "system", "content": prompt.system}] if prompt.system is not None else []
    messages.append({"role": "user", "content": prompt.user})
    record: dict[str, Any] = {
        "dialogue_id": example.dialogue.id,
        "images": [image.source for image in example.dialogue.images],
        "messages": messages,
    }
    if example.fragment is not None:
        answer = format_answer(example.fragment)
        messages.append({"role": "assistant", "content": answer})
        record["solution"] = answer
    meta, extra = split_meta(example)
    if any(image.caption for image in example.dialogue.images):
        meta[CAPTIONS] = [image.caption for image in example.dialogue.images]
    if meta:
        record["meta"] = meta
    return with_extra(record, extra, example)
